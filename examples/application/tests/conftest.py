"""The tests' databases have both histories: the revisions of syntegra_db, then those of the application."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.config import Config
from fastapi.testclient import TestClient

from application.main import app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import URL

pytest_plugins = ["syntegra_db.testing"]

ALEMBIC = Config(Path(__file__).parents[1] / "alembic.ini")


@pytest.fixture(scope="session")
def syntegra_migrate() -> Callable[[URL], object]:
    """Return what adds the application's tables to the database that each test's database is a copy of."""
    return lambda url: run_alembic(url, "upgrade")


def run_alembic(url: URL, name: str) -> None:
    """Upgrade to the newest revision of the application, or check that its models have no other tables."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
        if name == "check":
            command.check(ALEMBIC)
        else:
            command.upgrade(ALEMBIC, "head")


@pytest.fixture
def web(syntegra_url: URL, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Yield a client of the started service."""
    monkeypatch.setenv("DATABASE_URL", syntegra_url.render_as_string(hide_password=False))
    with TestClient(app) as client:
        yield client
