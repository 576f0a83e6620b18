"""Tables in another schema than the one that the search_path leads to: no command takes them for missing."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from psycopg import sql
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine

from support.commands import PROGRAMS, run, succeed
from support.legacy_databases import create_legacy_database, execute
from support.revisions import HEAD
from support.sample_rows import load_rows
from syntegra_db import adoption, backup, migrations
from syntegra_db.catalog import read_status
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.database import create_engine
from syntegra_db.errors import MigrationFailed, SettingsError, TablesInOtherSchema
from syntegra_db.search_path import with_schema
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

    from support.servers import Database, Server

ROLE = "kpi-ro@corp.iam"
OWNER = "Ñandú owner"
AWKWARD = "O'Brien\"x,\\ y"
# What puts a new schema before public: statements with the names of role, database and schema.
CHANGES = {
    "schema of the role": (ROLE, "SELECT 1"),
    "role": ("lateral", "ALTER ROLE {role} SET search_path = {schema}, public"),
    "role without public": (AWKWARD, "ALTER ROLE {role} SET search_path = {schema}"),
    "role in database": ("collation", "ALTER ROLE {role} IN DATABASE {database} SET search_path = {schema}, public"),
    "database": ("kpi nuevos", "ALTER DATABASE {database} SET search_path = {schema}, public"),
    "SET ROLE of the role": (OWNER, "ALTER ROLE {role} SET role = {owner}"),
}
OTHER_SETS = (
    "SELECT schemaname FROM pg_tables WHERE tablename IN ('alembic_version', 'data_sources') AND schemaname <> 'public'"
)


@pytest.fixture(scope="module")
def backup_file(server: Server, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backup") / "rows.dump"
    with server.database(migrated_template) as database:
        load_rows(database, 3)
        backup.create_backup(database.engine, path)
    return path


@pytest.fixture
def role_url(server: Server, database: Database) -> Iterator[URL]:
    with server.role(ROLE) as role, server.role(OWNER) as owner:
        for name in (role, owner):
            server.execute(sql.SQL("ALTER ROLE {} SUPERUSER").format(sql.Identifier(name)))
        yield database.url_as(role)
        for name in (role, owner):
            database.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))


def change_path(database: Database, schema: str, statement: str) -> None:
    names = {
        "schema": sql.Identifier(schema),
        "role": sql.Identifier(ROLE),
        "owner": sql.Identifier(OWNER),
        "database": sql.Identifier(database.name),
    }
    with database.connect() as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {schema}").format(**names))
        connection.execute(sql.SQL(statement).format(**names))


def errors_of_all(engine: Engine, backup_file: Path) -> dict[str, str]:
    """Return the message of each command and function that reads or creates the tables."""

    def in_connection(work: Callable[[Connection], object]) -> object:
        with connect(engine) as connection:
            return work(connection)

    async def in_async_engine() -> None:
        asynchronous = create_async_engine(engine.url)
        try:
            await migrations.async_require_head(asynchronous)
        finally:
            await asynchronous.dispose()

    works: dict[str, Callable[[], object]] = {
        "upgrade": lambda: migrations.upgrade(url=engine),
        "downgrade": lambda: migrations.downgrade("base", url=engine),
        "require_head": lambda: migrations.require_head(engine),
        "async_require_head": lambda: asyncio.run(in_async_engine()),
        "status": lambda: in_connection(read_status),
        "adopt": lambda: in_connection(adoption.plan),
        "adopt --apply": lambda: adoption.apply(engine),
        "backup": lambda: backup.create_backup(engine, backup_file.with_name("new.dump")),
        "restore": lambda: backup.restore(backup_file, engine),
        "rollback": lambda: backup.rollback("002", engine),
    }
    messages = {}
    for name, work in works.items():
        with pytest.raises(TablesInOtherSchema) as error:
            work()
        messages[name] = str(error.value)
    return messages


@pytest.mark.parametrize("change", CHANGES)
def test_new_schema_before_the_tables_is_refused_with_statement_that_works(
    database: Database, role_url: URL, backup_file: Path, change: str
) -> None:
    schema, statement = CHANGES[change]
    change_path(database, schema, statement)
    engine = unpooled_engine(role_url)
    messages = errors_of_all(engine, backup_file)
    assert len(set(messages.values())) == 1
    message = messages["upgrade"]
    assert "are in schema public, but the search_path leads to schema" in message
    assert database.query(OTHER_SETS) == []
    fix = re.search(r"run: (.*;)", message)
    assert fix is not None, message
    with unpooled_engine(role_url).connect() as connection:
        connection.exec_driver_sql(fix[1], execution_options={"no_parameters": True})
        connection.commit()
    migrations.require_head(engine)
    assert migrations.upgrade(url=engine) == HEAD
    assert database.query(OTHER_SETS) == []


@pytest.mark.parametrize(
    "options",
    [r"-csearch_path=first\ one,public", "-c work_mem=8MB -c search_path=first", "-csearch_path=nowhere,first"],
)
@pytest.mark.parametrize("schema", ["public", AWKWARD])
def test_path_of_the_url_is_replaced_as_printed(
    database: Database, backup_file: Path, options: str, schema: str
) -> None:
    execute(database, 'CREATE SCHEMA "first one"; CREATE SCHEMA first')
    if schema != "public":
        with database.connect() as connection:
            connection.execute(sql.SQL("ALTER SCHEMA public RENAME TO {}").format(sql.Identifier(schema)))
    url = database.url.update_query_dict({"options": options.replace(r"first\ one", r'"first\ one"')})
    message = errors_of_all(unpooled_engine(url), backup_file)["upgrade"]
    in_url = re.search(r"in the URL: options=(.*?); ", message)
    in_environment = re.search(r"in the environment: export (PGOPTIONS=.*?)(?: For a second|$)", message)
    assert in_url is not None
    assert in_environment is not None
    migrations.require_head(unpooled_engine(database.url.update_query_dict({"options": unquote(in_url[1])})))
    command = f"export {in_environment[1]}; exec {shlex.quote(str(PROGRAMS / 'syntegra-db'))} status"
    environment = {**os.environ, "DATABASE_URL": database.environment_url, "PGOPTIONS": "-c work_mem=7MB"}
    shown = subprocess.run(
        ["sh", "-c", f'export {in_environment[1]}; echo "$PGOPTIONS"'],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.startswith("-c work_mem=7MB -csearch_path=")
    result = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"At revision {HEAD}" in result.stdout


@pytest.mark.parametrize(("path", "schema"), [("private, public", "kpi"), ("public, private", None)])
def test_version_table_in_an_unrelated_schema_without_access_does_not_matter(
    database: Database, server: Server, path: str, schema: str | None
) -> None:
    with server.role("syntegra_test_reader") as role:
        execute(
            database,
            f"CREATE SCHEMA kpi; CREATE SCHEMA private; CREATE TABLE private.alembic_version (version_num text);"
            f"GRANT SELECT ON alembic_version TO {role}; GRANT USAGE ON SCHEMA kpi TO {role};"
            f"ALTER ROLE {role} SET search_path = {path}",
        )
        with connect(with_schema(unpooled_engine(database.url_as(role)), schema)) as connection:
            assert migrations.current_revision(connection) == (None if schema else HEAD)
        execute(database, f"DROP OWNED BY {role}")


def test_status_on_a_connection_of_a_service_names_the_second_set(database: Database) -> None:
    execute(database, "CREATE SCHEMA second")
    migrations.upgrade(url=database.url, schema="second")
    url = database.url.update_query_dict({"options": "-csearch_path=public,second"})
    with create_engine(url, poolclass=NullPool).connect() as connection:
        assert read_status(connection).unused_schemas == ["second"]


def test_empty_schema_name_is_rejected(database: Database) -> None:
    for command in (
        ("syntegra-db", "upgrade", "--schema", ""),
        ("syntegra-db", "adopt", "--schema="),
        ("alembic", "-x", "schema=", "upgrade", "head"),
    ):
        result = run(*command, url=database.environment_url)
        assert (result.returncode, "The name of the schema is empty" in result.stderr) == (3, True), result.stderr


@pytest.mark.long
def test_printed_command_creates_second_set(database: Database) -> None:
    change_path(database, AWKWARD, CHANGES["database"][1])
    url = database.environment_url
    for command in (("syntegra-db", "status"), ("alembic", "upgrade", "head"), ("alembic", "current")):
        result = run(*command, url=url)
        assert (result.returncode, result.stderr.count("\n")) == (32, 1), result.stderr
    result = run("syntegra-db", "verify", url=url)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    succeed(*shlex.split(result.stderr.rpartition("For a second set of tables: ")[2]), url=url)
    assert database.query(OTHER_SETS) == [(AWKWARD,), (AWKWARD,)]
    assert "Schema public also has tables of this package" in succeed("syntegra-db", "status", url=url)
    succeed("alembic", "downgrade", "base", url=url)
    with pytest.raises(TablesInOtherSchema, match="in schema public"):
        migrations.upgrade(url=database.url)


def test_second_set_is_used_by_all_commands_and_backup_names_the_first(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_rows(database, 3)
    change_path(database, "new set", CHANGES["database"][1])
    succeed("alembic", "-x", "schema=new set", "upgrade", "head", url=database.environment_url)
    with caplog.at_level("WARNING"):
        saved = backup.create_backup(database.engine, tmp_path / "rows.dump")
    assert saved.metadata.rows == 0
    assert "The tables in schema public are not in the backup" in caplog.text
    backup.restore(saved.path, database.engine)
    assert backup.rollback("002", database.engine, tmp_path / "again.dump").revision == "002"
    assert database.query("SELECT version_num FROM public.alembic_version") == [(HEAD,)]


@pytest.mark.parametrize("schema", ["tenant", "Tenant 2", AWKWARD])
def test_named_schema_is_migrated_without_search_path(database: Database, schema: str) -> None:
    with pytest.raises(MigrationFailed) as missing:
        migrations.upgrade(url=database.url, schema=schema)
    create = re.search(r"CREATE SCHEMA .*;", str(missing.value))
    assert create is not None
    execute(database, create[0])
    assert migrations.upgrade(url=database.url, schema=schema) == HEAD
    engine = with_schema(database.engine, schema)
    migrations.require_head(engine)
    assert migrations.downgrade("001", engine) == "001"
    assert migrations.current_revision(engine.connect()) == "001"
    migrations.require_head(database.engine)


def test_schema_for_sql_script_exits_3_with_statement_that_works(empty_database: Database) -> None:
    result = run("alembic", "-x", "schema=new set", "upgrade", "head", "--sql", url=empty_database.environment_url)
    assert result.returncode == 3
    execute(empty_database, result.stderr.rpartition("the file: ")[2])


def test_caller_connection_creates_no_second_set_unless_schema_is_named(database: Database) -> None:
    change_path(database, "later", CHANGES["database"][1])
    with database.engine.connect() as connection, pytest.raises(TablesInOtherSchema):
        migrations.run_in_transaction(connection, "upgrade", "head")
    with with_schema(database.engine, "later").begin() as connection:
        migrations.run_in_transaction(connection, "upgrade", "head")
    assert database.query(OTHER_SETS) == [("later",), ("later",)]


def test_path_set_in_the_session_is_corrected_as_printed(database: Database) -> None:
    execute(database, "CREATE SCHEMA later")
    with database.engine.connect() as connection:
        connection.execute(text("SET search_path = later"))
        with pytest.raises(TablesInOtherSchema) as error:
            migrations.require_head(connection)
        fix = re.search(r"run: (.*;) For", str(error.value))
        assert fix is not None
        assert fix[1].startswith("SET search_path")
        connection.exec_driver_sql(fix[1])
        migrations.require_head(connection)


@pytest.mark.parametrize("name", ["serial_ids", "first_two"])
def test_tables_without_revision_in_another_schema_are_adopted_by_name(empty_database: Database, name: str) -> None:
    create_legacy_database(empty_database, name)
    execute(
        empty_database, f'CREATE SCHEMA "Mine"; ALTER DATABASE {empty_database.name} SET search_path = "Mine", public'
    )
    with connect(empty_database.engine) as connection, pytest.raises(TablesInOtherSchema, match="in schema public"):
        adoption.plan(connection)
    with pytest.raises(TablesInOtherSchema):
        migrations.upgrade(url=empty_database.url)
    result = run("syntegra-db", "adopt", "--schema", "public", url=empty_database.environment_url)
    assert "closest to revision" in result.stdout, result.stderr
    assert empty_database.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'Mine'") == [(0,)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE elsewhere.clusters (id bigint, name text)",
        f"CREATE TABLE elsewhere.alembic_version AS SELECT '{HEAD}'::text AS version_num",
        "CREATE VIEW elsewhere.data_sources AS SELECT 1 AS id, 1 AS client_id, '' AS name, '' AS type, '' AS status",
    ],
)
def test_schema_of_another_application_is_not_taken_for_the_tables(empty_database: Database, statement: str) -> None:
    execute(empty_database, "CREATE SCHEMA elsewhere", statement)
    assert migrations.upgrade("001", url=empty_database.url) == "001"


@pytest.mark.parametrize("path", ["nowhere", '"$user", "Nowhere 2"', ""])
def test_path_without_schema_prints_statement_that_works(server: Server, empty_database: Database, path: str) -> None:
    with server.role(ROLE) as role:
        server.execute(sql.SQL("ALTER ROLE {} SUPERUSER").format(sql.Identifier(role)))
        empty_database.execute(
            sql.SQL("ALTER DATABASE {} SET search_path = " + (path or "''")).format(sql.Identifier(empty_database.name))
        )
        url = empty_database.url_as(role)
        with pytest.raises(MigrationFailed) as error:
            migrations.upgrade("001", url=url)
        fix = re.search(r"(CREATE SCHEMA|ALTER ROLE) .*;", str(error.value))
        assert fix is not None, error.value
        execute(empty_database, fix[0])
        assert migrations.upgrade("001", url=url) == "001"
        empty_database.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(role)))


@pytest.mark.parametrize("schema", ["private", "Private ñ", AWKWARD])
def test_path_with_unusable_schema_prints_grant_that_works(server: Server, database: Database, schema: str) -> None:
    with server.role(ROLE) as role, database.connect() as connection:
        name = sql.Identifier(schema)
        connection.execute(sql.SQL("ALTER SCHEMA public RENAME TO {}").format(name))
        connection.execute(sql.SQL("REVOKE USAGE ON SCHEMA {} FROM PUBLIC").format(name))
        connection.execute(sql.SQL("GRANT SELECT ON {}.alembic_version TO PUBLIC").format(name))
        path = sql.SQL("ALTER DATABASE {} SET search_path = {}").format(sql.Identifier(database.name), name)
        connection.execute(path)
        engine = unpooled_engine(database.url_as(role))
        with connect(engine) as opened, pytest.raises(SettingsError) as error:
            read_status(opened)
        fix = re.search(r"GRANT USAGE .*;", str(error.value))
        assert fix is not None, error.value
        connection.execute(fix[0].encode())
        with connect(engine) as opened:
            assert read_status(opened).revision == HEAD
        connection.execute(sql.SQL("REVOKE ALL ON SCHEMA {} FROM {}").format(name, sql.Identifier(role)))


def test_quote_quotes_every_keyword_that_the_server_rejects(database: Database) -> None:
    with database.connect() as connection:
        for (word,) in connection.execute("SELECT word FROM pg_get_keywords() WHERE catcode IN ('T', 'R')").fetchall():
            connection.execute(f"CREATE SCHEMA {quote(word)}; DROP SCHEMA {quote(word)}".encode())


@pytest.mark.parametrize("name", ["abc\n", "ABC\n", "a$\n"])
def test_name_that_ends_with_a_line_break_is_quoted(database: Database, name: str) -> None:
    with database.connect() as connection:
        connection.execute(f"CREATE SCHEMA {quote(name)}".encode())
        assert connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", (name,)).rowcount == 1
