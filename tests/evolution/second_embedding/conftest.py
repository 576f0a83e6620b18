"""A checkout with a second embedding, and a database with texts that have both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.second_embedding import LOAD_ROWS, evolved_checkout, run_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.checkouts import Checkout
    from support.servers import Database, Server


@pytest.fixture(scope="session")
def evolved(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Checkout:
    return evolved_checkout(tmp_path_factory.mktemp("second") / "checkout", server)


@pytest.fixture(scope="module")
def loaded(evolved: Checkout, server: Server, migrated_template: str) -> Iterator[Database]:
    """Yield a database with rows that have both embeddings; its tests keep them."""
    with server.database(migrated_template) as database:
        evolved.succeed("syntegra-db", "upgrade", database=database)
        result = run_program(evolved, LOAD_ROWS, database)
        assert result.returncode == 0, result.stderr
        yield database
