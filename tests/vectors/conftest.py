"""Databases with texts, for searches and rebuilds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.rebuild import ROWS as ROWS_TO_REBUILD
from support.rebuild import TEMPLATE
from support.search import CLIENTS, IVFFLAT, ROWS
from support.texts import Texts, load_texts
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
        texts = load_texts(database, ROWS, CLIENTS)
        database.execute(f"SET maintenance_work_mem = '256MB'; {IVFFLAT}")
        yield database, texts


@pytest.fixture
def texts(searched: tuple[Database, Texts]) -> Texts:
    return searched[1]


@pytest.fixture
def engine(searched: tuple[Database, Texts]) -> Iterator[Engine]:
    """An engine with one connection, which all its users share."""
    engine = create_engine(searched[0].url, pool_size=1, max_overflow=0)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with session_factory(engine)() as session:
        yield session


@pytest.fixture(scope="module")
def loaded_template(server: Server, migrated_template: str) -> Iterator[tuple[str, Texts]]:
    """The name of a database with texts, whose index was created with the empty table."""
    with server.database(migrated_template, name=TEMPLATE) as database:
        yield TEMPLATE, load_texts(database, ROWS_TO_REBUILD, {})


@pytest.fixture
def loaded(server: Server, loaded_template: tuple[str, Texts]) -> Iterator[Database]:
    with server.database(loaded_template[0]) as database:
        yield database
