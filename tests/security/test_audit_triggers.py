"""A trigger on the version table runs if its function and the table belong to roles that migrate anyway."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from support import psql
from support.commands import run
from support.revisions import HEAD
from syntegra_db import migrations
from syntegra_db.connections import conninfo
from syntegra_db.errors import UntrustedObject
from syntegra_db.migrations import render_sql_script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy.engine import URL

    from support.servers import Database, Server

OWNER, STRANGER = "syntegra_owner", "syntegra_stranger"
AUDIT = """
    CREATE SCHEMA audit;
    CREATE TABLE audit.log (revision text);
    CREATE FUNCTION audit.record() RETURNS trigger LANGUAGE plpgsql AS
      'BEGIN INSERT INTO audit.log VALUES (NEW.version_num); RETURN NEW; END';
    CREATE FUNCTION audit.same(text, text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 = $2';
    CREATE OPERATOR audit.=== (FUNCTION = audit.same, LEFTARG = text, RIGHTARG = text);
    CREATE DOMAIN audit.word AS varchar(32) CHECK (VALUE <> '');
    GRANT USAGE ON SCHEMA audit TO PUBLIC;
    GRANT INSERT ON audit.log TO PUBLIC
"""
TRIGGER = "CREATE TRIGGER audit AFTER UPDATE ON alembic_version FOR EACH ROW {} EXECUTE FUNCTION audit.record()"
ACCEPTED = {
    "none": "",
    "changed": "WHEN (OLD.* IS DISTINCT FROM NEW.*)",
    "changed column": "WHEN (OLD.version_num IS DISTINCT FROM NEW.version_num)",
    "comparison": "WHEN (NEW.version_num > OLD.version_num OR NOT (OLD.version_num IS NOT NULL))",
    "functions": "WHEN (upper(NEW.version_num) = ANY (ARRAY['002', '003']) AND length(OLD.version_num) = 3)",
    "pattern": "WHEN (NEW.version_num ~ '^[0-9]{3}$' COLLATE \"C\")",
}
REFUSED = {
    "function that executes its argument": "WHEN (query_to_xml('SELECT 1', true, true, '') IS NOT NULL)",
    "function of the owner": "WHEN (audit.same(NEW.version_num, '002'))",
    "operator of the owner": "WHEN (NEW.version_num OPERATOR(audit.===) '002')",
    "setting": "WHEN (current_setting('audit.on', true) IS NULL)",
    "user": "WHEN (current_user <> 'other')",
    "domain": "WHEN (NEW.version_num::audit.word IS NOT NULL)",
}


@contextmanager
def owned_database(server: Server) -> Iterator[Database]:
    """Yield a database at revision 001 of one role that is no superuser, and a role that may create objects in it."""
    with server.role(OWNER), server.role(STRANGER), server.database() as database:
        for role in (OWNER, STRANGER):
            database.execute(
                sql.SQL("GRANT CREATE ON SCHEMA public TO {0}; GRANT CREATE ON DATABASE {1} TO {0}").format(
                    sql.Identifier(role), sql.Identifier(database.name)
                )
            )
        database.execute("CREATE EXTENSION vector")
        migrations.upgrade("001", url=database.url_as(OWNER))
        yield database


def execute_as(database: Database, role: str | None, *statements: str) -> None:
    url = database.url_as(role) if role else database.url
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def in_transaction(url: URL, _folder: Path) -> str:
    migrations.upgrade("002", url=url)
    return ""


def with_alembic(url: URL, _folder: Path) -> str:
    result = run("alembic", "upgrade", "002", url=url.render_as_string(hide_password=False))
    return result.stderr if result.returncode else ""


def with_file(url: URL, folder: Path) -> str:
    result = psql.feed(url, render_sql_script("002").text, folder)
    return result.stderr if result.returncode else ""


ROUTES: dict[str, Callable[[URL, Path], str]] = {
    "command": in_transaction,
    "alembic": with_alembic,
    "file": with_file,
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("condition", ACCEPTED)
def test_trigger_of_the_owner_records_the_revision(server: Server, tmp_path: Path, condition: str, route: str) -> None:
    with owned_database(server) as database:
        execute_as(database, OWNER, AUDIT, TRIGGER.format(ACCEPTED[condition]))
        assert ROUTES[route](database.url_as(OWNER), tmp_path) == ""
        assert database.query("SELECT revision FROM audit.log") == [("002",)]
        assert migrations.upgrade(url=database.url_as(OWNER)) == HEAD
        assert database.query("SELECT revision FROM audit.log") == [("002",), (HEAD,)]


@pytest.mark.parametrize("condition", REFUSED)
def test_trigger_of_the_owner_with_a_condition_that_could_run_more_is_refused(
    server: Server, tmp_path: Path, condition: str
) -> None:
    with owned_database(server) as database:
        execute_as(database, OWNER, AUDIT, TRIGGER.format(REFUSED[condition]))
        with pytest.raises(UntrustedObject, match="a trigger with a condition that calls more than immutable"):
            migrations.upgrade(url=database.url_as(OWNER))
        assert "calls more than immutable functions" in with_file(database.url_as(OWNER), tmp_path)
        assert database.query("SELECT * FROM audit.log") == []


@pytest.mark.parametrize("migrating", [OWNER, None], ids=["owner", "superuser"])
def test_trigger_of_a_superuser_records_the_revision(server: Server, tmp_path: Path, migrating: str | None) -> None:
    with owned_database(server) as database:
        execute_as(database, None, AUDIT, TRIGGER.format(""))
        if migrating is None:
            owner = database.query("SELECT current_user")[0][0]
            execute_as(database, None, f'ALTER TABLE alembic_version OWNER TO "{owner}"')
        url = database.url_as(migrating) if migrating else database.url
        assert with_file(url, tmp_path) == ""
        assert migrations.upgrade(url=url) == HEAD
        assert database.query("SELECT revision FROM audit.log") == [("002",), (HEAD,)]


# Who owns the function and the table, which role migrates (None is a superuser), and what the message says.
OTHERS = {
    "function of another role": (STRANGER, OWNER, OWNER, "a trigger of another role"),
    "function and table of the owner, for a superuser": (OWNER, OWNER, None, "a trigger of another role"),
    "table of another role": (OWNER, STRANGER, OWNER, "a trigger, "),
    "table of another role, function of a superuser": (None, STRANGER, OWNER, "a trigger, "),
    "function and table of another role": (STRANGER, STRANGER, OWNER, "a trigger of another role"),
    "table of another role, for a superuser": (None, STRANGER, None, "a trigger, "),
}


@pytest.mark.parametrize("others", OTHERS)
def test_trigger_of_another_role_is_refused_until_it_is_given_to_the_migrating_one(
    server: Server, tmp_path: Path, others: str
) -> None:
    function, table, migrating, part = OTHERS[others]
    with owned_database(server) as database:
        execute_as(database, function, AUDIT)
        execute_as(database, None, TRIGGER.format(""))
        execute_as(database, None, f"ALTER TABLE alembic_version OWNER TO {table}")
        execute_as(database, None, f"GRANT ALL ON alembic_version TO {OWNER}")
        url = database.url_as(migrating) if migrating else database.url
        with pytest.raises(UntrustedObject, match=f"{part}.*could run code.*give the table, the functions"):
            migrations.upgrade(url=url)
        error = with_file(url, tmp_path)
        assert part in error
        assert "give the table, the functions of its triggers" in error
        assert database.query("SELECT * FROM audit.log") == []
        role = sql.Identifier(migrating or database.query("SELECT current_user")[0][0])
        database.execute(sql.SQL("ALTER TABLE alembic_version OWNER TO {}").format(role))
        database.execute(sql.SQL("ALTER FUNCTION audit.record OWNER TO {}").format(role))
        assert migrations.upgrade(url=url) == HEAD
        assert database.query("SELECT revision FROM audit.log") == [("002",), (HEAD,)]
