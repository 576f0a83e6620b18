"""Another role may create objects in the schema, with the names of what the package calls. It calls none of them."""

from __future__ import annotations

import asyncio
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from support import psql
from support.commands import ROOT, run
from support.revisions import HEAD
from support.sample_rows import load_rows
from support.shadows import count_calls, plant_shadows
from syntegra_db import catalog, migrations
from syntegra_db.backup import create_backup
from syntegra_db.connections import connect, conninfo
from syntegra_db.database import create_async_engine, create_engine
from syntegra_db.errors import RevisionError, SyntegraDBError, UntrustedObject
from syntegra_db.search_path import SETTINGS
from syntegra_db.vectors import search

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from support.servers import Database, Server

ROLE = "syntegra_mallory"
STRANGER = "syntegra_stranger"
CATALOG_LAST = "public, pg_catalog"
UNTRUSTED = UntrustedObject.exit_status
COMMANDS = {
    "status": 0,
    "verify": 0,
    "verify --json": 0,
    "vectors status --seconds 1": 0,
    "vectors rebuild --lists 2": 0,
    "vectors rebuild --method hnsw --half": 0,
    "backup": 0,
    "restore {backup} --replace": 0,
    "adopt": UNTRUSTED,
    "adopt --apply --no-backup --yes": UNTRUSTED,
    "upgrade": UNTRUSTED,
    "downgrade 002": UNTRUSTED,
    "rollback 002": UNTRUSTED,
}
FILES = {
    "scripts/verify_analytics_tables.sql": 0,
    "migrations/003_rollback_analytics_tables.sql": 3,
    "migrations/001_create_data_sources.sql": 3,
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("", id="default path", marks=pytest.mark.long),
        pytest.param(CATALOG_LAST, id="pg_catalog last"),
    ],
)
def shadowed(request: pytest.FixtureRequest, server: Server, migrated_template: str) -> Iterator[Database]:
    """Yield a database with rows, and with shadows of another role in public."""
    with server.role(ROLE) as role, server.database(migrated_template, name="syntegra_test_shadows") as database:
        load_rows(database, 300)
        database.execute(f"GRANT CREATE ON SCHEMA public TO {ROLE}")
        with psycopg.connect(conninfo(database.url_as(role)), autocommit=True) as connection:
            plant_shadows(connection, "public")
        if request.param:
            database.execute(f"ALTER DATABASE syntegra_test_shadows SET search_path = {CATALOG_LAST}")
        yield database


@pytest.fixture(scope="module")
def backup(server: Server, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with server.database(migrated_template) as database:
        load_rows(database, 300)
        return create_backup(database.engine, tmp_path_factory.mktemp("backup") / "rows.dump").path


@contextmanager
def no_calls(database: Database) -> Iterator[None]:
    with database.connect() as connection:
        before = count_calls(connection, "public")
        yield
        assert count_calls(connection, "public") == before


def test_shadow_is_called_by_an_unqualified_statement(shadowed: Database) -> None:
    with shadowed.connect() as connection:
        before = count_calls(connection, "public")
        with pytest.raises(psycopg.Error, match="a shadow was called"):
            connection.execute("SELECT quote_ident('a'::name)")
        assert count_calls(connection, "public") != before


@pytest.mark.parametrize("command", COMMANDS)
def test_command_as_superuser_calls_no_shadow(shadowed: Database, backup: Path, tmp_path: Path, command: str) -> None:
    with no_calls(shadowed):
        arguments = command.format(backup=backup).split()
        result = run("syntegra-db", *arguments, url=shadowed.environment_url, cwd=tmp_path)
        assert result.returncode == COMMANDS[command], result.stderr
    assert "shadow" not in (result.stdout + result.stderr).replace(shadowed.name, "")


@pytest.mark.parametrize("command", ["current", "check", "upgrade head"])
def test_alembic_command_calls_no_shadow(shadowed: Database, command: str) -> None:
    with no_calls(shadowed):
        result = run("alembic", *command.split(), url=shadowed.environment_url)
        assert (result.returncode, "could run as" in result.stderr) == (UNTRUSTED, True), result.stderr


@pytest.mark.parametrize("file", FILES)
def test_sql_file_calls_no_shadow(shadowed: Database, tmp_path: Path, file: str) -> None:
    with no_calls(shadowed):
        script = (ROOT / file).read_text(encoding="utf-8")
        path = shadowed.query("SHOW search_path")[0][0].replace(" ", "\\ ")
        result = psql.feed(shadowed.url, script, tmp_path, search_path=path)
        assert result.returncode == FILES[file], result.stderr
        assert FILES[file] == 0 or "could run as" in result.stderr


def test_service_check_calls_no_shadow(shadowed: Database) -> None:
    async def check() -> None:
        engine = create_async_engine(shadowed.url)
        async with engine.connect() as connection:
            await connection.run_sync(migrations.require_head)
        await engine.dispose()

    with no_calls(shadowed):
        engine = create_engine(shadowed.url)
        migrations.require_head(engine)
        engine.dispose()
        asyncio.run(check())


def test_session_of_a_caller_calls_no_shadow(shadowed: Database) -> None:
    engine = create_engine(shadowed.url)
    with no_calls(shadowed), engine.connect() as connection:
        session = cast("psycopg.Connection[tuple[object, ...]]", connection.connection.dbapi_connection)
        plant_shadows(session, "pg_temp")
        session.execute("CREATE TEMPORARY TABLE alembic_version AS SELECT pg_catalog.text '999' AS version_num")
        session.commit()
        migrations.require_head(connection)
        assert catalog.verify(connection).findings == []
        assert catalog.read_status(connection).revision == HEAD
        assert count_calls(session, "pg_temp") == 0
    engine.dispose()


def test_search_of_a_service_calls_no_shadow(shadowed: Database) -> None:
    if shadowed.query("SHOW search_path") == [(CATALOG_LAST,)]:
        # With this path, the service's own statements call them: `=` of SQLAlchemy has no schema.
        shadowed.execute(f"ALTER DATABASE {shadowed.name} RESET search_path")
    engine = create_engine(shadowed.url)
    with no_calls(shadowed), Session(engine) as session:
        assert len(search(session, [1.0] * 384, client_id=1, limit=3)) == 3
    engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE FUNCTION quote_ident(name) RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
        "CREATE PROCEDURE format(text) LANGUAGE sql AS 'SELECT 1'",
        'CREATE AGGREGATE max("char") (SFUNC = charlt_or_first, STYPE = "char")',
        "CREATE OPERATOR >= (FUNCTION = is_ge, LEFTARG = name, RIGHTARG = integer)",
        "CREATE DOMAIN halfvec AS text CHECK (length(VALUE) > 0)",
        "CREATE FUNCTION vector_norm(text) RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
    ],
)
@pytest.mark.parametrize("remedy", ["DROP", "ALTER"])
def test_printed_statement_lets_the_upgrade_succeed(server: Server, statement: str, remedy: str) -> None:
    with server.role(STRANGER) as role, server.database() as database:
        database.execute("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
        database.execute(f"ALTER DATABASE {database.name} SET search_path = public, extensions")
        database.execute(f"GRANT CREATE ON SCHEMA public TO {STRANGER}")
        with psycopg.connect(conninfo(database.url_as(role)), autocommit=True) as connection:
            connection.execute(
                "CREATE FUNCTION is_ge(name, integer) RETURNS bool LANGUAGE sql AS 'SELECT true';"
                'CREATE FUNCTION charlt_or_first("char", "char") RETURNS "char" LANGUAGE sql AS \'SELECT $1\''
            )
            connection.execute(statement.encode())
        with pytest.raises(UntrustedObject) as caught:
            migrations.upgrade(url=database.url)
        fixes = re.findall(r"(?:DROP|ALTER|REVOKE) [^;]+;", str(caught.value))
        with database.connect() as connection:
            for fix in fixes:
                if fix.startswith((remedy, "REVOKE")):
                    connection.execute(fix.encode())
        assert migrations.upgrade(url=database.url) == HEAD
        assert database.query("SELECT has_schema_privilege('syntegra_stranger', 'public', 'CREATE')") == [(False,)]
        database.execute(f"DROP OWNED BY {STRANGER} CASCADE")


NO_TABLES = {
    "view": "CREATE VIEW alembic_version AS SELECT shadow() AS version_num",
    "materialized view": f"CREATE MATERIALIZED VIEW alembic_version AS SELECT '{HEAD}' AS version_num",
    "partitioned table": "CREATE TABLE alembic_version (version_num text) PARTITION BY LIST (version_num)",
    "sequence": "CREATE SEQUENCE alembic_version",
    "composite type": "CREATE TYPE alembic_version AS (version_num text)",
}


@pytest.mark.parametrize("kind", NO_TABLES)
def test_version_table_that_is_no_table_is_rejected(empty_database: Database, tmp_path: Path, kind: str) -> None:
    empty_database.execute(
        f"CREATE FUNCTION shadow() RETURNS text LANGUAGE sql AS 'SELECT 1 / 0; SELECT ''{HEAD}''::text'"
    )
    with empty_database.connect() as connection:
        connection.execute(NO_TABLES[kind].encode())
    for check in (migrations.current_revision, migrations.require_head, catalog.verify, catalog.read_status):
        with (
            empty_database.engine.connect() as connection,
            pytest.raises(RevisionError, match=rf"The {kind} public\.alembic_version is not an ordinary table"),
        ):
            check(connection)
    with pytest.raises(RevisionError, match="not an ordinary table"):
        migrations.upgrade(url=empty_database.url)
    error = psql.feed(empty_database.url, migrations.render_sql_script("001").text, tmp_path).stderr
    assert f"alembic_version is not an ordinary table ({kind}); find out who created it" in error


@pytest.mark.parametrize(
    ("hide", "reason"),
    [
        ("ALTER TABLE alembic_version ENABLE ROW LEVEL SECURITY", "Row-level security can hide the rows"),
        ("REVOKE USAGE ON SCHEMA public FROM PUBLIC", "it may not use schema public"),
        ("REVOKE SELECT ON alembic_version FROM PUBLIC", "This role cannot read alembic_version"),
    ],
)
def test_hidden_version_table_is_not_taken_for_a_missing_one(
    server: Server, migrated_template: str, hide: str, reason: str
) -> None:
    with server.role("syntegra_reader") as role, server.database(migrated_template) as database:
        database.execute("GRANT SELECT ON alembic_version TO PUBLIC")
        database.execute(f"ALTER DATABASE {database.name} SET search_path = public, pg_catalog")
        with database.connect() as connection:
            connection.execute(hide.encode())
        engine = create_engine(database.url_as(role))
        for check in (migrations.require_head, read_revision):
            with pytest.raises(RevisionError, match=reason) as caught:
                check(engine)
        fix = re.search(r"(?:GRANT|ALTER) [^;]+;", str(caught.value))
        assert fix is not None
        with database.connect() as connection:
            connection.execute(fix[0].encode())
        migrations.require_head(engine)
        engine.dispose()
        database.execute("REVOKE ALL ON SCHEMA public FROM syntegra_reader; DROP OWNED BY syntegra_reader")


def read_revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return migrations.current_revision(connection)


def test_tool_session_has_catalog_path_and_own_formats(database: Database) -> None:
    database.execute(f"ALTER DATABASE {database.name} SET DateStyle = 'German, DMY'")
    database.execute(f"ALTER DATABASE {database.name} SET extra_float_digits = -15")
    with connect(database.engine) as connection:
        for _ in range(2):
            assert settings_of(connection) == {**SETTINGS, "search_path": "pg_catalog, pg_temp"}
            connection.rollback()


def settings_of(connection: Connection) -> dict[str, str]:
    names = [*SETTINGS, "search_path"]
    values = {name: connection.scalars(text(f"SHOW {name}")).one() for name in names}
    return {**values, "DateStyle": values["DateStyle"].partition(",")[0]}


def test_migration_path_ends_with_the_migration(database: Database) -> None:
    with connect(database.engine) as connection:
        migrations.run_in_transaction(connection, "downgrade", "002")
        assert settings_of(connection)["search_path"] == "pg_catalog, pg_temp"
        connection.rollback()
        with pytest.raises(SyntegraDBError):
            migrations.run_in_transaction(connection, "downgrade", "nothing")
        connection.rollback()
        assert settings_of(connection)["search_path"] == "pg_catalog, pg_temp"


@pytest.mark.long
@pytest.mark.parametrize(
    ("schema", "extension_schema"), [('Data "a%b', "public"), ("a:b", "Ext ensions"), ("select", "public")]
)
def test_commands_in_schema_with_unusual_name(
    empty_database: Database, tmp_path: Path, schema: str, extension_schema: str
) -> None:
    quoted, extension = (psycopg.sql.Identifier(name) for name in (schema, extension_schema))
    name = psycopg.sql.Identifier(empty_database.name)
    with empty_database.connect() as connection:
        connection.execute(psycopg.sql.SQL("CREATE SCHEMA {}").format(quoted))
        connection.execute(psycopg.sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(extension))
        connection.execute(psycopg.sql.SQL("CREATE EXTENSION vector SCHEMA {}").format(extension))
        path = psycopg.sql.SQL("ALTER DATABASE {} SET search_path = {}, {}").format(name, quoted, extension)
        connection.execute(path)
    assert migrations.upgrade(url=empty_database.url) == HEAD
    load_rows(empty_database, 300)
    for command in (
        "status",
        "verify",
        "backup --output rows.dump",
        "restore rows.dump --replace",
        "vectors status --seconds 1",
        "vectors rebuild --lists 2",
        "vectors rebuild --method hnsw --half",
        "adopt",
        "rollback 002 --output rollback.dump",
        "restore rollback.dump --keep",
        "verify",
    ):
        result = run("syntegra-db", *command.split(), url=empty_database.environment_url, cwd=tmp_path)
        assert result.returncode == 0, (command, result.stderr)
