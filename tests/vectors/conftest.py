"""Databases with texts, to search and to rebuild the index of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from vectors.rebuilt import FILLED
from vectors.rebuilt import ROWS as ROWS_TO_REBUILD
from vectors.searching import CLIENTS, IVFFLAT, ROWS
from vectors.texts import Texts, fill

from syntegra_db.database import create_engine, session_factory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from support.servers import Database, Server


@pytest.fixture(scope="module")
def searched(server: Server, migrated_template: str) -> Iterator[tuple[Database, Texts]]:
    """A database whose index was built on its rows."""
    with server.database(migrated_template, name="syntegra_test_search") as database:
        database.execute("DROP INDEX idx_text_summary_embedding")
        texts = fill(database, ROWS, CLIENTS)
        database.execute(f"SET maintenance_work_mem = '256MB'; {IVFFLAT}")
        yield database, texts


@pytest.fixture
def texts(searched: tuple[Database, Texts]) -> Texts:
    return searched[1]


@pytest.fixture
def engine(searched: tuple[Database, Texts]) -> Iterator[Engine]:
    """An engine with one connection, so that whoever comes next gets the same."""
    engine = create_engine(searched[0].url, pool_size=1, max_overflow=0)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with session_factory(engine)() as session:
        yield session


@pytest.fixture(scope="module")
def filled_template(server: Server, migrated_template: str) -> Iterator[tuple[str, Texts]]:
    """The name of a database with texts, whose index came with the empty table."""
    with server.database(migrated_template, name=FILLED) as database:
        yield FILLED, fill(database, ROWS_TO_REBUILD, {})


@pytest.fixture
def filled(server: Server, filled_template: tuple[str, Texts]) -> Iterator[Database]:
    with server.database(filled_template[0]) as database:
        yield database
