"""Another role may create the version table before the first migration. No command runs code that it added."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import sql

from support import psql
from support.commands import run
from support.legacy_databases import execute
from support.revisions import HEAD
from syntegra_db import migrations
from syntegra_db.connections import conninfo
from syntegra_db.errors import UntrustedObject
from syntegra_db.migrations import render_sql_script

if TYPE_CHECKING:
    from collections.abc import Iterator
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
        "a trigger",
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


def test_owner_keeps_what_it_added(database: Database) -> None:
    execute(database, "ALTER TABLE alembic_version ADD note text DEFAULT current_user")
    assert migrations.downgrade("002", url=database.url) == "002"
