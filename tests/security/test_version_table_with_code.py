"""Another role may create the version table before the first migration. No command runs code that it added."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, LiteralString

import pytest

from support import psql
from support.commands import run
from support.legacy_databases import execute
from support.revisions import HEAD
from support.strangers import STRANGER, VERSION_TABLE, has_called, strange_database
from syntegra_db import migrations
from syntegra_db.errors import UntrustedObject
from syntegra_db.migrations import render_sql_script

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database, Server

TRIGGER: LiteralString = "CREATE TRIGGER t {} ON alembic_version FOR EACH {} EXECUTE FUNCTION foreign_code.act()"
# What the role creates after `VERSION_TABLE`, and what the message says.
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


@pytest.mark.parametrize("added", ADDED)
def test_version_table_with_code_of_another_role_is_not_written(server: Server, tmp_path: Path, added: str) -> None:
    statement, part = ADDED[added]
    with strange_database(server) as (database, connection):
        connection.execute(VERSION_TABLE)
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
        connection.execute(VERSION_TABLE)
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
        connection.execute(VERSION_TABLE)
        assert psql.feed(database.url, render_sql_script("001").text, tmp_path).returncode == 0
        assert migrations.upgrade(url=database.url) == HEAD
        assert migrations.downgrade("001", url=database.url) == "001"


def test_trigger_that_the_owner_adds_during_the_migration_waits(server: Server) -> None:
    script = render_sql_script("001").text
    with strange_database(server) as (database, connection):
        connection.execute(VERSION_TABLE)
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


def test_owner_keeps_what_it_added(database: Database) -> None:
    execute(database, "ALTER TABLE alembic_version ADD note text DEFAULT current_user")
    assert migrations.downgrade("002", url=database.url) == "002"
