"""Another role may replace the tables with the revision and its steps while a command waits. It runs no code of it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from support import psql
from support.commands import ROOT, run
from support.strangers import VERSION_TABLE, has_called, strange_database
from syntegra_db import migrations
from syntegra_db.errors import RevisionError, SyntegraDBError
from syntegra_db.migrations import render_sql_script
from syntegra_db.recorded_steps import step_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.servers import Database, Server

# In these, `{0}` is the schema of the version table.
VIEW: LiteralString = (
    "ALTER TABLE {0}.alembic_version RENAME TO renamed; CREATE VIEW {0}.alembic_version AS SELECT "
    "foreign_code.call('001'::text)::varchar(32) AS version_num; GRANT ALL ON {0}.alembic_version TO PUBLIC;"
)
COLUMN: LiteralString = (
    "ALTER TABLE {0}.alembic_version ADD mood foreign_code.mood DEFAULT '001'; "
    "ALTER TABLE {0}.alembic_version RENAME version_num TO renamed; "
    "ALTER TABLE {0}.alembic_version RENAME mood TO version_num;"
)
TYPE: LiteralString = (
    "ALTER TABLE {0}.alembic_version ALTER version_num TYPE foreign_code.mood USING '001'::foreign_code.mood;"
)
READERS = {
    "status": ("syntegra-db", "status"),
    "verify": ("syntegra-db", "verify"),
    "upgrade": ("syntegra-db", "upgrade"),
    "adopt": ("syntegra-db", "adopt"),
    "backup": ("syntegra-db", "backup"),
    "current": ("alembic", "current"),
    "check": ("alembic", "check"),
}


async def require_head_under_asyncio(database: Database) -> None:
    engine = create_async_engine(database.url)
    try:
        await migrations.async_require_head(engine)
    finally:
        await engine.dispose()


def require_head(reader: str, database: Database) -> None:
    if reader == "asyncio":
        asyncio.run(require_head_under_asyncio(database))
    elif reader == "autocommit":
        with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as caller:
            migrations.require_head(caller)
    else:
        migrations.require_head(database.engine)


def replace_while_it_is_read(
    connection: psycopg.Connection[tuple[object, ...]],
    database: Database,
    statements: LiteralString,
    schema: LiteralString,
    read: Callable[[], str],
) -> str:
    """Execute `statements`, commit them when `read` waits for their locks, and return what `read` returns."""
    connection.execute("BEGIN")
    connection.execute(sql.SQL(statements).format(sql.SQL(schema)))
    results: list[str] = []
    reader = threading.Thread(target=lambda: results.append(read()))
    reader.start()
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    while reader.is_alive() and not database.query(waiting):
        time.sleep(0.02)
    was_waiting = reader.is_alive()
    connection.execute("COMMIT")
    reader.join()
    assert was_waiting, results
    return results[0]


ALL_READERS = (*READERS, "file", "file in a snapshot", "require_head", "autocommit", "asyncio")


@pytest.mark.parametrize("schema", ["public", "other"])
@pytest.mark.parametrize(
    ("reader", "statements"),
    [
        *(pytest.param(reader, VIEW, id=f"{reader}-view") for reader in ALL_READERS),
        *(
            pytest.param(reader, statements, id=f"{reader}-{name}")
            for reader in ("status", "backup", "file", "file in a snapshot")
            for name, statements in (("column", COLUMN), ("type", TYPE))
        ),
    ],
)
def test_version_table_that_is_replaced_while_a_command_waits_runs_no_code(
    server: Server, tmp_path: Path, reader: str, statements: LiteralString, schema: LiteralString
) -> None:
    with strange_database(server) as (database, connection):
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
        connection.execute(VERSION_TABLE)
        if reader != "upgrade":
            connection.execute("INSERT INTO alembic_version VALUES ('001')")
        if schema == "other":
            connection.execute(
                "GRANT USAGE ON SCHEMA other TO PUBLIC; CREATE TABLE data_sources (id bigint, client_id bigint, "
                "name text, type text, config_json jsonb, status text, last_run_at timestamptz, "
                "created_at timestamptz, updated_at timestamptz)"
            )

        def read() -> str:
            if reader in READERS:
                directory = ROOT if READERS[reader][0] == "alembic" else tmp_path
                return run(*READERS[reader], url=database.environment_url, cwd=directory).stderr
            if reader.startswith("file"):
                begin = "SET default_transaction_isolation = 'repeatable read';\n" if "snapshot" in reader else ""
                return psql.feed(database.url, begin + render_sql_script("001").text, tmp_path).stderr
            with pytest.raises((SyntegraDBError, DBAPIError)) as caught:
                require_head(reader, database)
            return str(caught.value)

        assert replace_while_it_is_read(connection, database, statements, schema, read)
        assert not has_called(database)


@pytest.mark.parametrize("columns", ["id int", "step int, revision text", "step int, revision int, direction text"])
def test_record_of_steps_with_other_columns_is_named(server: Server, columns: LiteralString) -> None:
    with strange_database(server) as (database, connection):
        connection.execute(VERSION_TABLE)
        connection.execute(sql.SQL("CREATE TABLE alembic_version_steps ({})").format(sql.SQL(columns)))
        with pytest.raises(RevisionError, match="alembic_version_steps has other columns than this package creates"):
            migrations.upgrade(url=database.url)
        result = run("syntegra-db", "status", url=database.environment_url)
        assert result.returncode == RevisionError.exit_status, result.stderr


@pytest.mark.parametrize("reader", ["status", "upgrade", "file"])
def test_record_of_steps_that_is_replaced_while_a_command_waits_runs_no_code(
    server: Server, tmp_path: Path, reader: str
) -> None:
    columns = ", ".join(f"{column.name} {str(column.type).lower()}" for column in step_table(None).columns)
    view = (
        "ALTER TABLE {0}.alembic_version_steps RENAME TO renamed; CREATE VIEW {0}.alembic_version_steps AS SELECT * "
        "FROM {0}.renamed WHERE foreign_code.call(); GRANT ALL ON {0}.alembic_version_steps TO PUBLIC;"
    )
    with strange_database(server) as (database, connection):
        connection.execute(VERSION_TABLE)
        connection.execute(f"CREATE TABLE alembic_version_steps ({columns})".encode())
        connection.execute("INSERT INTO alembic_version_steps VALUES (1, '009', 'upgrade', false, 'x', false)")

        def read() -> str:
            if reader == "file":
                return psql.feed(database.url, render_sql_script("001").text, tmp_path).stderr
            return run("syntegra-db", reader, url=database.environment_url).stderr

        assert "is not an ordinary table" in replace_while_it_is_read(connection, database, view, "public", read)
        assert not has_called(database)
