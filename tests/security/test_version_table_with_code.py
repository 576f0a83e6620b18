"""Another role may create the version table before the first migration. No command runs code that it added."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from support import psql
from support.commands import ROOT, run
from support.legacy_databases import execute
from support.revisions import HEAD
from syntegra_db import migrations
from syntegra_db.connections import conninfo
from syntegra_db.errors import RevisionError, SyntegraDBError, UntrustedObject
from syntegra_db.migrations import render_sql_script
from syntegra_db.recorded_steps import step_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.servers import Database, Server

STRANGER = "syntegra_mallory"
# A call advances a sequence, which a rollback does not undo.
CODE = """
    CREATE SCHEMA foreign_code;
    GRANT USAGE ON SCHEMA foreign_code TO PUBLIC;
    CREATE SEQUENCE foreign_code.calls;
    GRANT USAGE ON foreign_code.calls TO PUBLIC;
    CREATE FUNCTION foreign_code.call() RETURNS bool LANGUAGE sql AS
      'SELECT nextval(''foreign_code.calls'') IS NOT NULL';
    CREATE FUNCTION foreign_code.call(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
      'BEGIN PERFORM nextval(''foreign_code.calls''); RETURN $1; END';
    CREATE FUNCTION foreign_code.act() RETURNS trigger LANGUAGE plpgsql AS
      'BEGIN PERFORM nextval(''foreign_code.calls''); RETURN NEW; END';
    CREATE TYPE foreign_code.mood AS ENUM ('001');
    CREATE FUNCTION foreign_code.read(foreign_code.mood) RETURNS text LANGUAGE plpgsql AS
      'BEGIN PERFORM nextval(''foreign_code.calls''); RETURN ''001''; END';
    CREATE CAST (foreign_code.mood AS text) WITH FUNCTION foreign_code.read AS IMPLICIT;
    CREATE DOMAIN foreign_code.word AS varchar(32) CHECK (foreign_code.call());
"""
TABLE: LiteralString = (
    "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY "
    "(version_num))"
)
TRIGGER: LiteralString = "CREATE TRIGGER t {} ON alembic_version FOR EACH {} EXECUTE FUNCTION foreign_code.act()"
# What the role creates after `TABLE`, and what the message says.
ADDED: dict[str, tuple[LiteralString, str]] = {
    "trigger": (TRIGGER.format("BEFORE INSERT OR UPDATE OR DELETE", "ROW"), "a trigger"),
    "statement trigger": (TRIGGER.format("AFTER INSERT OR UPDATE OR DELETE", "STATEMENT"), "a trigger"),
    "constraint trigger": (
        "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON alembic_version FOR EACH ROW EXECUTE FUNCTION foreign_code.act()",
        "a trigger",
    ),
    "referencing table": (
        "CREATE TABLE follower (v varchar(32) REFERENCES alembic_version ON UPDATE CASCADE)",
        "a foreign key of another role",
    ),
    "default": ("ALTER TABLE alembic_version ADD more bool DEFAULT foreign_code.call()", "a default or generated"),
    "generated column": (
        "ALTER TABLE alembic_version ADD more text GENERATED ALWAYS AS (foreign_code.call(version_num)) STORED",
        "a default or generated",
    ),
    "column": ("ALTER TABLE alembic_version ADD more text", "other columns"),
    "identity": ("ALTER TABLE alembic_version ADD more int GENERATED ALWAYS AS IDENTITY", "other columns"),
    "length": ("ALTER TABLE alembic_version ALTER version_num TYPE varchar(64)", "other columns"),
    "collation": ('ALTER TABLE alembic_version ALTER version_num TYPE varchar(32) COLLATE "C"', "other columns"),
    "check": ("ALTER TABLE alembic_version ADD CHECK (foreign_code.call())", "another constraint"),
    "exclusion": (
        "ALTER TABLE alembic_version ADD EXCLUDE USING btree (foreign_code.call(version_num) WITH =)",
        "another constraint",
    ),
    "index": ("CREATE INDEX ON alembic_version (foreign_code.call(version_num))", "another index"),
    "rule": ("CREATE RULE r AS ON INSERT TO alembic_version DO ALSO SELECT foreign_code.call()", "a rule"),
    "policy": (
        "CREATE POLICY p ON alembic_version USING (foreign_code.call()); GRANT ALL ON alembic_version TO PUBLIC",
        "row-level security",
    ),
    "child": ("CREATE TABLE child () INHERITS (alembic_version)", "a parent or child table"),
    "no key": ("ALTER TABLE alembic_version DROP CONSTRAINT alembic_version_pkc", "no primary key"),
}


@contextmanager
def strange_database(server: Server) -> Iterator[tuple[Database, psycopg.Connection[tuple[object, ...]]]]:
    """Yield an empty database, and a session of a role that may create objects in its schema."""
    with server.role(STRANGER), server.database() as database:
        database.execute(
            sql.SQL("GRANT CREATE ON SCHEMA public TO {0}; GRANT CREATE ON DATABASE {1} TO {0}").format(
                sql.Identifier(STRANGER), sql.Identifier(database.name)
            )
        )
        with psycopg.connect(conninfo(database.url_as(STRANGER)), autocommit=True) as connection:
            connection.execute(CODE)
            yield database, connection


def has_called(database: Database) -> bool:
    return bool(database.query("SELECT is_called FROM foreign_code.calls")[0][0])


@pytest.mark.parametrize("added", ADDED)
def test_version_table_with_code_of_another_role_is_not_written(server: Server, tmp_path: Path, added: str) -> None:
    statement, part = ADDED[added]
    with strange_database(server) as (database, connection):
        connection.execute(TABLE)
        connection.execute(statement)
        connection.execute("SELECT setval('foreign_code.calls', 1, false)")
        with pytest.raises(UntrustedObject, match=part):
            migrations.upgrade("001", url=database.url)
        with database.engine.connect() as caller, caller.begin(), pytest.raises(UntrustedObject, match=part):
            migrations.run_in_transaction(caller, "upgrade", "001")
        stamp = run("alembic", "stamp", "001", url=database.environment_url)
        assert (stamp.returncode, part in stamp.stderr) == (UntrustedObject.exit_status, True), stamp.stderr
        error = psql.feed(database.url, render_sql_script("001").text, tmp_path).stderr
        assert f"alembic_version of {STRANGER} has {part}" in error
        assert not has_called(database)
        assert database.query("SELECT to_regclass('data_sources')") == [(None,)]


@pytest.mark.parametrize("added", ["trigger", "default", "rule"])
def test_adoption_does_not_write_it(server: Server, added: str) -> None:
    with strange_database(server) as (database, connection):
        migrations.upgrade("001", url=database.url)
        execute(database, "DROP TABLE alembic_version")
        connection.execute(TABLE)
        connection.execute(ADDED[added][0])
        result = run("syntegra-db", "adopt", "--apply", "--no-backup", "--yes", url=database.environment_url)
        assert result.returncode == UntrustedObject.exit_status, result.stderr
        assert ADDED[added][1] in result.stderr
        assert not has_called(database)


def test_domain_of_another_role_is_not_read(server: Server, tmp_path: Path) -> None:
    with strange_database(server) as (database, connection):
        connection.execute("CREATE TABLE alembic_version (version_num foreign_code.word PRIMARY KEY)")
        result = run("syntegra-db", "upgrade", url=database.environment_url)
        assert "of a type that is not PostgreSQL's" in result.stderr
        error = psql.feed(database.url, render_sql_script("001").text, tmp_path).stderr
        assert "has other columns than this package creates" in error
        assert not has_called(database)


def test_exact_table_of_another_role_is_used(server: Server, tmp_path: Path) -> None:
    with strange_database(server) as (database, connection):
        connection.execute(TABLE)
        assert psql.feed(database.url, render_sql_script("001").text, tmp_path).returncode == 0
        assert migrations.upgrade(url=database.url) == HEAD
        assert migrations.downgrade("001", url=database.url) == "001"


def test_trigger_that_the_owner_adds_during_the_migration_waits(server: Server) -> None:
    script = render_sql_script("001").text
    with strange_database(server) as (database, connection):
        connection.execute(TABLE)
        before, statements, rest = script.partition("CREATE TABLE IF NOT EXISTS alembic_version")
        adder = threading.Thread(target=connection.execute, args=(ADDED["trigger"][0],))
        with database.connect() as session:
            session.execute("BEGIN")
            begun = before.rpartition("SET LOCAL idle_in_transaction_session_timeout = ")[2].partition("\n")[2]
            session.execute(begun.encode())
            adder.start()
            adder.join(0.5)
            assert adder.is_alive()
            session.execute((statements + rest.partition("COMMIT;")[0]).encode())
            session.execute("COMMIT")
        adder.join(10)
        assert not has_called(database)
        with pytest.raises(UntrustedObject, match="a trigger"):
            migrations.upgrade(url=database.url)
        assert not has_called(database)


def test_trigger_of_a_role_with_that_privilege_is_not_run(server: Server, tmp_path: Path) -> None:
    with strange_database(server) as (database, connection):
        migrations.upgrade("001", url=database.url)
        execute(database, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {STRANGER}")
        connection.execute(ADDED["trigger"][0])
        with pytest.raises(UntrustedObject, match="a trigger of another role"):
            migrations.upgrade(url=database.url)
        assert (
            "has a trigger of another role" in psql.feed(database.url, render_sql_script("002").text, tmp_path).stderr
        )
        execute(database, "DROP TRIGGER t ON alembic_version")
        assert migrations.upgrade(url=database.url) == HEAD
        assert not has_called(database)


CONDITION: LiteralString = "CREATE TRIGGER t {} {} EXECUTE FUNCTION suppress_redundant_updates_trigger()"
FOLLOWER: LiteralString = (
    "CREATE TABLE follower (v varchar(32) REFERENCES alembic_version ON UPDATE CASCADE); "
    "INSERT INTO follower VALUES ('001'); CREATE CONSTRAINT TRIGGER t AFTER UPDATE ON follower "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION foreign_code.act()"
)
# What a role with TRIGGER and REFERENCES on the operator's version table creates, and what the message says.
PRIVILEGED: dict[str, tuple[LiteralString, str]] = {
    "condition on a row": (
        CONDITION.format(
            "BEFORE UPDATE ON alembic_version FOR EACH ROW", "WHEN (foreign_code.call(NEW.version_num) IS NOT NULL)"
        ),
        "a trigger with a condition",
    ),
    "condition on a statement": (
        CONDITION.format("AFTER UPDATE ON alembic_version FOR EACH STATEMENT", "WHEN (foreign_code.call())"),
        "a trigger with a condition",
    ),
    "foreign key": (
        FOLLOWER,
        "a foreign key of another role",
    ),
    "foreign key of a partitioned table": (
        "CREATE TABLE follower (v varchar(32) REFERENCES alembic_version ON UPDATE CASCADE) PARTITION BY LIST (v)",
        "a foreign key of another role",
    ),
}


@pytest.mark.parametrize("added", PRIVILEGED)
def test_version_table_of_the_operator_runs_no_code_of_a_role_with_privileges(
    server: Server, tmp_path: Path, added: str
) -> None:
    statement, part = PRIVILEGED[added]
    with strange_database(server) as (database, connection):
        migrations.upgrade("001", url=database.url)
        execute(database, f"GRANT TRIGGER, REFERENCES ON alembic_version TO {STRANGER}")
        connection.execute(statement)
        with pytest.raises(UntrustedObject, match=part):
            migrations.upgrade(url=database.url)
        with database.engine.connect() as caller, caller.begin(), pytest.raises(UntrustedObject, match=part):
            migrations.run_in_transaction(caller, "upgrade", "002")
        assert part in run("alembic", "stamp", "002", url=database.environment_url).stderr
        assert f"has {part}" in psql.feed(database.url, render_sql_script("002").text, tmp_path).stderr
        assert not has_called(database)


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
        connection.execute(TABLE)
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
        connection.execute(TABLE)
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
        connection.execute(TABLE)
        connection.execute(f"CREATE TABLE alembic_version_steps ({columns})".encode())
        connection.execute("INSERT INTO alembic_version_steps VALUES (1, '009', 'upgrade', false, 'x', false)")

        def read() -> str:
            if reader == "file":
                return psql.feed(database.url, render_sql_script("001").text, tmp_path).stderr
            return run("syntegra-db", reader, url=database.environment_url).stderr

        assert "is not an ordinary table" in replace_while_it_is_read(connection, database, view, "public", read)
        assert not has_called(database)


def test_owner_keeps_what_it_added(database: Database) -> None:
    execute(database, "ALTER TABLE alembic_version ADD note text DEFAULT current_user")
    assert migrations.downgrade("002", url=database.url) == "002"
