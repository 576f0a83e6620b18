"""Alembic's commands on a connection of the caller, as in Alembic's cookbook."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.config import Config
from psycopg.errors import DuplicateTable
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine

from support.commands import ROOT
from support.revisions import HEAD
from syntegra_db import migrations
from syntegra_db.errors import MigrationFailed

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from support.servers import Database


def run(connection: Connection, name: str, revision: str) -> None:
    config = Config(str(ROOT / "alembic.ini"))
    config.attributes["connection"] = connection
    getattr(command, name)(config, revision)


def revision(database: Database) -> str | None:
    with database.engine.connect() as connection:
        return migrations.current_revision(connection)


@pytest.mark.parametrize("isolation_level", ["READ COMMITTED", "SERIALIZABLE"])
def test_connection_without_transaction_is_committed(empty_database: Database, isolation_level: str) -> None:
    engine = empty_database.engine.execution_options(isolation_level=isolation_level)
    with engine.connect() as connection:
        run(connection, "upgrade", "head")
        assert not connection.in_transaction()
    assert revision(empty_database) == HEAD
    with engine.connect() as connection:
        run(connection, "downgrade", "001")
        run(connection, "stamp", "001")
    assert revision(empty_database) == "001"


def test_connection_in_configuration_of_package_is_used(empty_database: Database) -> None:
    config = migrations.alembic_config()
    with empty_database.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "001")
    assert revision(empty_database) == "001"


def test_connection_in_autocommit_is_rejected(empty_database: Database) -> None:
    engine = empty_database.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, pytest.raises(MigrationFailed, match="is in AUTOCOMMIT"):
        run(connection, "upgrade", "head")
    assert revision(empty_database) is None


def test_failed_revision_keeps_those_before_it(empty_database: Database) -> None:
    empty_database.execute("CREATE TABLE anomaly_log (id integer)")
    with empty_database.engine.connect() as connection, pytest.raises(ProgrammingError) as raised:
        run(connection, "upgrade", "head")
    assert isinstance(raised.value.orig, DuplicateTable)
    assert revision(empty_database) == "002"


@pytest.mark.parametrize("is_committed", [True, False])
def test_transaction_of_the_caller_is_the_callers_to_end(empty_database: Database, *, is_committed: bool) -> None:
    with empty_database.engine.begin() as connection:
        run(connection, "upgrade", "head")
        if not is_committed:
            connection.rollback()
    assert revision(empty_database) == (HEAD if is_committed else None)


@pytest.mark.parametrize("is_committed", [True, False])
def test_transaction_that_a_query_began_is_the_callers_too(empty_database: Database, *, is_committed: bool) -> None:
    with empty_database.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        run(connection, "upgrade", "head")
        if is_committed:
            connection.commit()
    assert revision(empty_database) == (HEAD if is_committed else None)


def test_asyncio_connection_without_transaction_is_committed(empty_database: Database) -> None:
    async def upgrade() -> None:
        engine = create_async_engine(empty_database.url)
        async with engine.connect() as connection:
            await connection.run_sync(run, "upgrade", "head")
        await engine.dispose()

    asyncio.run(upgrade())
    assert revision(empty_database) == HEAD
