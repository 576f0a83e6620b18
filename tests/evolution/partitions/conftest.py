"""A checkout and a database with a table that is partitioned by month."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.partitions import MANY_MONTHS, partitioning_checkout
from support.sample_rows import load_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.checkouts import Checkout
    from support.servers import Server


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Checkout:
    checkout = partitioning_checkout(tmp_path_factory.mktemp("partitions") / "checkout", "tools")
    program = "from tools.verify_script import render\nprint(render(), end='')\n"
    (checkout.folder / "render_script.py").write_text(program, encoding="utf-8")
    checkout.write_manifests(server)
    return checkout


@pytest.fixture(scope="session")
def template(checkout: Checkout, server: Server, migrated_template: str) -> Iterator[str]:
    """The name of a database whose kpi_summary is partitioned, with rows in all partitions."""
    with server.database(migrated_template) as database:
        load_rows(database, 2_000)
        checkout.succeed("syntegra-db", "upgrade", database=database)
        database.execute(MANY_MONTHS)
        yield database.name
