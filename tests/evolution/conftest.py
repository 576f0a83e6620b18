"""Fixtures of the tests with sample revisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.checkouts import Checkout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.servers import Database, Server


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout")


@pytest.fixture
def partitioned(server: Server, template: str) -> Iterator[Database]:
    """A copy of the module's `template`, whose kpi_summary is partitioned."""
    with server.database(template) as database:
        yield database
