"""Sessions of the demo's database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from syntegra_db.database import create_engine, session_factory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session, sessionmaker

    from support.servers import Database


@pytest.fixture
def sessions(database: Database) -> Iterator[sessionmaker[Session]]:
    engine = create_engine(database.url)
    yield session_factory(engine)
    engine.dispose()
