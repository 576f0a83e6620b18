"""A role that may create objects in the schema cannot let the owner's migrations grant rights to its roles."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest
from psycopg import sql

from support import psql
from support.clients import ROWS
from support.logins import clients_seen, rows_as
from support.revisions import HEAD, REVISIONS
from syntegra_db import migrations
from syntegra_db.client_policies import BINDINGS_TABLE, Tenancy, group_roles
from syntegra_db.errors import SyntegraDBError, TenancyError, UntrustedObject
from syntegra_db.migrations import render_sql_script
from syntegra_db.tenancy import bind, disable, enable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.logins import Logins
    from support.servers import Database, Server

PREFIX = "syntegra_test_fake_"
GRANTED = r"""
    SELECT relname::text, rolname::text
    FROM pg_class CROSS JOIN aclexplode(relacl) JOIN pg_roles ON pg_roles.oid = grantee
    WHERE rolname LIKE 'syntegra\_test\_fake\_%' AND relname <> 'bound_logins'
"""


@pytest.fixture
def attacker(server: Server, logins: Logins) -> Iterator[str]:
    """A login that is a member of four roles as a mark could name them."""
    roles = group_roles(PREFIX)
    for role in roles:
        server.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))
        server.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
    yield logins.create(*roles)
    for role in roles:
        server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def fake(database: Database, attacker: str, *, version_table: bool = False) -> None:
    """Let `attacker` create the table with the mark, its function and, if asked, the version table."""
    database.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    mark = sql.Literal(Tenancy("public", PREFIX).mark)
    statements = sql.SQL(
        """
        CREATE TABLE bound_logins (login name PRIMARY KEY, client_id bigint NOT NULL);
        COMMENT ON TABLE bound_logins IS {};
        CREATE FUNCTION bound_client_id() RETURNS bigint LANGUAGE sql AS 'SELECT 8::bigint';
        """
    ).format(mark)
    rows_as(database, attacker, statements)
    if version_table:
        rows_as(
            database,
            attacker,
            "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))",
        )


@pytest.mark.parametrize("version_table", [False, True])
def test_fake_mark_stops_the_migration(attacker: str, empty_database: Database, version_table: bool) -> None:  # noqa: FBT001  parameter
    fake(empty_database, attacker, version_table=version_table)
    with pytest.raises(SyntegraDBError, match=BINDINGS_TABLE):
        migrations.upgrade(url=empty_database.url)
    assert empty_database.query(GRANTED) == []
    empty_database.execute("DROP TABLE bound_logins")
    assert migrations.upgrade(url=empty_database.url) == HEAD
    assert empty_database.query(GRANTED) == []


def test_fake_mark_stops_the_file(attacker: str, empty_database: Database, tmp_path: Path) -> None:
    fake(empty_database, attacker)
    result = psql.feed(empty_database.url, render_sql_script(REVISIONS[0]).text, tmp_path)
    assert result.returncode != 0
    assert BINDINGS_TABLE in result.stderr
    assert empty_database.query("SELECT FROM pg_class WHERE relname = 'data_sources'") == []


def test_fake_mark_is_neither_enabled_nor_disabled(attacker: str, database: Database) -> None:
    fake(database, attacker)
    for change in (enable, disable):
        with pytest.raises(UntrustedObject, match=f"belongs to {attacker}"):
            change(database.engine)
    assert database.query(GRANTED) == []


def test_table_of_the_application_with_that_name_is_kept(database: Database) -> None:
    database.execute("CREATE TABLE bound_logins (n integer)")
    with pytest.raises(TenancyError, match="drop or rename it"):
        enable(database.engine)
    migrations.downgrade("base", database.url)
    migrations.upgrade(url=database.url)
    assert database.query("SELECT count(*) FROM bound_logins") == [(0,)]


def test_look_up_function_of_another_role_stops_the_migration(attacker: str, separated: Database) -> None:
    migrations.downgrade("base", separated.url)
    separated.execute("DROP FUNCTION bound_client_id(); GRANT CREATE ON SCHEMA public TO PUBLIC")
    rows_as(separated, attacker, "CREATE FUNCTION bound_client_id() RETURNS bigint LANGUAGE sql AS 'SELECT 8::bigint'")
    with pytest.raises(SyntegraDBError, match=r"bound_client_id\(\).*belongs to another role"):
        migrations.upgrade(url=separated.url)
    assert separated.query("SELECT FROM pg_policy") == []


@pytest.mark.parametrize("argument", ["client text DEFAULT ''", "VARIADIC numbers integer[] DEFAULT '{}'"])
def test_function_that_a_policy_could_mean_stops_the_migration(
    attacker: str, separated: Database, argument: LiteralString
) -> None:
    migrations.downgrade("base", separated.url)
    separated.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    statement: LiteralString = "CREATE FUNCTION bound_client_id(" + argument + ") RETURNS bigint LANGUAGE sql"
    rows_as(separated, attacker, statement + " AS 'SELECT 8::bigint'")
    with pytest.raises(SyntegraDBError, match=r"public\.bound_client_id\(.*without arguments.*drop or rename it"):
        migrations.upgrade(url=separated.url)
    separated.execute("DROP FUNCTION bound_client_id(" + argument.partition(" DEFAULT")[0] + ")")
    migrations.upgrade(url=separated.url)
    assert separated.query("SELECT FROM pg_policy") != []


# Each answers 8, whose rows a bound login of client 7 must not see.
OVERLOADS: tuple[LiteralString, ...] = (
    "bound_client_id(integer)",
    "bound_client_id(VARIADIC numbers integer[])",
)
OTHER_OBJECTS: tuple[LiteralString, ...] = (
    "VIEW bound_logins AS SELECT 'x'::name AS login, 8 AS client_id",
    "SEQUENCE bound_logins",
    "TYPE bound_logins AS (login name)",
    "TYPE bound_logins AS ENUM ('x')",
    "DOMAIN bound_logins AS text",
    "FUNCTION bound_client_id(n integer DEFAULT 1) RETURNS bigint LANGUAGE sql AS 'SELECT 8::bigint'",
    "PROCEDURE bound_client_id() LANGUAGE sql AS 'SELECT 8'",
    "FUNCTION bound_client_id() RETURNS bigint LANGUAGE sql AS 'SELECT 8::bigint'",
)


@pytest.mark.parametrize("overload", OVERLOADS)
def test_function_with_parameters_is_not_called(
    attacker: str, logins: Logins, database: Database, overload: LiteralString
) -> None:
    database.execute(ROWS)
    database.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    rows_as(database, attacker, "CREATE FUNCTION " + overload + " RETURNS bigint LANGUAGE sql AS 'SELECT 8::bigint'")
    enable(database.engine)
    bound = logins.create()
    bind(database.engine, bound, 7)
    assert clients_seen(database, bound, "clusters") == {7}
    disable(database.engine)
    functions = "SELECT count(*) FROM pg_proc WHERE proname = 'bound_client_id'"
    assert database.query(functions) == [(1,)]


@pytest.mark.parametrize("other", OTHER_OBJECTS)
def test_other_object_with_a_name_of_enable_is_named(attacker: str, database: Database, other: LiteralString) -> None:
    database.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    rows_as(database, attacker, "CREATE " + other)
    with pytest.raises(TenancyError, match=r"public\.bound_(logins|client_id\(.*\)) exists.*drop or rename it"):
        enable(database.engine)
    assert database.query("SELECT FROM pg_policy") == []


def test_objects_that_depend_on_the_function_are_named_without_cascade(separated: Database) -> None:
    separated.execute("CREATE VIEW who AS SELECT bound_client_id() AS client_id")
    with pytest.raises(TenancyError, match=r"view public\.who depends on function public.*drop those objects") as error:
        disable(separated.engine)
    assert "CASCADE" not in str(error.value)
    separated.execute("DROP VIEW who")
    disable(separated.engine)
