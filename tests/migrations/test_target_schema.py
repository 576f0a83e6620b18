"""The schema for the tables: SQL files and commands choose the same one, and what they print leads to it."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import pytest
from psycopg import sql
from psycopg.errors import DuplicateSchema

from support import psql
from support.commands import run
from support.drift import drift_report
from support.legacy_databases import create_legacy_database, execute
from support.revisions import HEAD
from syntegra_db import adoption, migrations
from syntegra_db.catalog import read_status
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import MigrationFailed, SettingsError, SyntegraDBError, TablesInOtherSchema
from syntegra_db.migrations import render_sql_script
from syntegra_db.search_path import with_schema
from syntegra_db.sql import literal, quote

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import URL

    from support.servers import Database, Server

AWKWARD = "O'Brien\"x,\\ y"
TABLES = "SELECT count(*) FROM pg_tables WHERE tablename IN ('alembic_version', 'data_sources')"
ALL_TABLES = (
    "SELECT schemaname::text, tablename::text FROM pg_tables WHERE NOT schemaname ~ '^(pg_|info)' ORDER BY 1, 2"
)
OWN_SCHEMAS = ("pg_catalog", "pg_temp", "pg_toast", "information_schema")
# The first one is that of the message; then schemas with their revisions, of which None means tables without one.
SETS: dict[str, tuple[str, dict[str, str | None], str]] = {
    "newest": ("public", {"public": HEAD, "former": "001"}, "later"),
    "newest is last in names and path": ("zeta", {"alpha": "001", "zeta": HEAD}, "later, alpha, zeta"),
    "three": ("Más", {"alpha": "001", "Más": HEAD, "zeta": "002"}, "later, zeta"),
    "awkward": (AWKWARD, {"b": "001", AWKWARD: "002"}, "later"),
    "same revision": ("zeta", {"alpha": "002", "zeta": "002"}, "later, zeta, alpha"),
    "same revision outside of the path": ("alpha", {"alpha": "002", "zeta": "002"}, "later"),
    "without revision": ("former", {"created": None, "former": "001"}, "later, created"),
}


def create_sets(database: Database, revisions: dict[str, str | None], path: str) -> None:
    """Create `later`, and tables at each of `revisions` in its schema; `path` is the search_path from now on."""
    with database.connect() as connection:
        connection.execute("CREATE EXTENSION vector SCHEMA public")
        for schema in ("later", *revisions):
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    for schema, revision in revisions.items():
        migrations.upgrade(revision or "001", url=database.url, schema=schema)
        if revision is None:
            database.execute(sql.SQL("DROP TABLE {}.alembic_version").format(sql.Identifier(schema)))
    set_path(database, path)


def set_path(database: Database, path: str) -> None:
    name = quote(database.name)
    execute(database, f"ALTER DATABASE {name} SET search_path = {path or quote('')}")


def feed(database: Database, home: Path, path: str, *parts: str) -> str:
    """Return the error of psql for a file with the statements `parts`, empty if there is none."""
    options = path.replace("\\", "\\\\").replace(" ", "\\ ") or '""'
    result = psql.feed(database.url, "\n".join(parts), home, search_path=options)
    assert (result.returncode, result.stderr == "") in {(0, True), (3, False)}, result.stderr
    return result.stderr


def error_of_upgrade(url: URL, kind: type[SyntegraDBError]) -> str:
    with pytest.raises(kind) as error:
        migrations.upgrade("001", url=url)
    assert type(error.value) is kind
    return str(error.value)


def hint(error: str) -> str:
    found = re.search(r"^HINT: +(.*)", error, re.MULTILINE)
    assert found is not None, error
    return found[1]


@pytest.mark.parametrize("layout", SETS)
def test_two_sets_are_listed_with_the_newest_revision_first_by_commands_and_files(
    empty_database: Database, tmp_path: Path, layout: str
) -> None:
    database, (schema, revisions, path) = empty_database, SETS[layout]
    create_sets(database, revisions, path)
    message = error_of_upgrade(database.url, TablesInOtherSchema)
    error = feed(database, tmp_path, path, render_sql_script("001").text)
    places = re.search(r"are in (schema .*), but the search_path leads to schema later", message)
    assert places is not None, message
    assert f"are in {places[1]}, but the search_path leads to schema later" in error
    assert places[1].startswith(f"schema {quote(schema)}")
    for name, revision in revisions.items():
        assert quote(name) + (f" (revision {revision})" if revision else "") in places[1]
    newest = revisions[schema]
    use, second = re.findall(r"SET [a-z_.]+ = .*?;(?= or|$)", hint(error))
    again = feed(database, tmp_path, path, use, render_sql_script(newest or "001").text)
    assert f"the database is at revision {newest}" in again
    printed = re.search(r"run: (.*;) For", message)
    assert printed is not None, message
    execute(database, printed[1])
    with connect(unpooled_engine(database.url)) as connection:
        assert (read_status(connection).schema, migrations.current_revision(connection)) == (schema, newest)
    assert feed(database, tmp_path, path, second, render_sql_script("001").text) == ""


@pytest.mark.parametrize("schema", ["public", "Más tablas", AWKWARD])
@pytest.mark.parametrize("revision", ["001", "002", "003"])
def test_file_finds_tables_outside_of_the_search_path(
    database: Database, tmp_path: Path, schema: str, revision: str
) -> None:
    with database.connect() as connection:
        name = sql.Identifier(schema)
        if schema != "public":
            connection.execute(sql.SQL("ALTER SCHEMA public RENAME TO {}").format(name))
        connection.execute("CREATE SCHEMA kpi")
    before = database.query(TABLES)
    for rollback in (False, True):
        text = render_sql_script(revision, rollback=rollback).text
        error = feed(database, tmp_path, "kpi", text)
        assert f"in schema {quote(schema)}, but the search_path leads to schema kpi" in error
        assert database.query(TABLES) == before
        used = feed(database, tmp_path, "kpi", hint(error).partition(": ")[2].partition(" or,")[0], text)
        assert used == "" or f"at revision {HEAD}" in used or "already applied" in used
        migrations.upgrade(url=database.url, schema=schema)


@pytest.mark.parametrize("name", ["other_names", "first_two"])
def test_file_and_upgrade_find_tables_without_revision(empty_database: Database, tmp_path: Path, name: str) -> None:
    create_legacy_database(empty_database, name)
    execute(empty_database, "CREATE SCHEMA kpi")
    set_path(empty_database, "kpi")
    assert "are in schema public, but" in error_of_upgrade(empty_database.url, TablesInOtherSchema)
    for revision in ("001", "002"):
        error = feed(empty_database, tmp_path, "kpi", render_sql_script(revision).text)
        assert "are in schema public, but the search_path leads to schema kpi" in error
    assert empty_database.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'kpi'") == [(0,)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE elsewhere.data_sources (id bigint, host text); CREATE TABLE elsewhere.alembic_version (v text)",
        "CREATE VIEW elsewhere.data_sources AS SELECT 1 AS id, 1 AS client_id, '' AS name, '' AS type, '' AS status",
        "CREATE TEMP TABLE data_sources (id bigint, client_id bigint, name text, type text, status text)",
    ],
)
def test_file_takes_no_schema_of_another_application_for_the_tables(
    empty_database: Database, tmp_path: Path, statement: str
) -> None:
    text = f"CREATE SCHEMA elsewhere; {statement};\n{render_sql_script('001').text}"
    assert feed(empty_database, tmp_path, "public", text) == ""


def test_second_set_that_the_role_cannot_read_is_listed_last(
    server: Server, empty_database: Database, tmp_path: Path
) -> None:
    create_sets(empty_database, {"alpha": HEAD, "beta": "001", "gamma": HEAD, "types": HEAD}, "later")
    with server.role("syntegra_test_reader") as role:
        execute(
            empty_database,
            f"GRANT USAGE ON SCHEMA alpha, beta, gamma, types, later TO {role}; GRANT CREATE ON SCHEMA later TO {role};"
            f"GRANT SELECT ON beta.alembic_version, gamma.alembic_version, types.alembic_version TO {role};"
            "ALTER TABLE gamma.alembic_version ENABLE ROW LEVEL SECURITY;"
            "ALTER TABLE types.alembic_version ALTER version_num TYPE integer USING version_num::integer",
        )
        url = empty_database.url_as(role)
        listed = "schema beta (revision 001) and alpha and gamma and types, but"
        assert listed in error_of_upgrade(url, TablesInOtherSchema)
        assert listed in psql.feed(url, render_sql_script("001").text, tmp_path, search_path="later").stderr
        execute(empty_database, f"DROP OWNED BY {role}")


@pytest.mark.parametrize("cast", ["FUNCTION beta.note(beta.kind)", "FUNCTION beta.note(beta.kind) AS IMPLICIT"])
def test_version_of_another_schema_calls_no_function_of_its_owner(
    server: Server, empty_database: Database, tmp_path: Path, cast: str
) -> None:
    create_sets(empty_database, {"alpha": "001", "beta": "001"}, "later")
    with server.role("syntegra_test_intruder") as role:
        execute(
            empty_database,
            "CREATE TYPE beta.kind AS ENUM ('001');"
            "CREATE FUNCTION beta.note(beta.kind) RETURNS text LANGUAGE plpgsql AS "
            "$$ BEGIN CREATE TABLE beta.proof (id int); RETURN '999'; END $$;"
            f"CREATE CAST (beta.kind AS text) WITH {cast};"
            "ALTER TABLE beta.alembic_version ALTER version_num TYPE beta.kind USING version_num::beta.kind;"
            f"ALTER SCHEMA beta OWNER TO {role}",
        )
        assert f"in schema alpha (revision 001) and beta (of role {role}), but" in error_of_upgrade(
            empty_database.url, TablesInOtherSchema
        )
        error = feed(empty_database, tmp_path, "later", render_sql_script("001").text)
        assert f"in schema alpha (revision 001) and beta (of role {role}), but" in error
        assert empty_database.query("SELECT to_regclass('beta.proof')") == [(None,)]
        execute(empty_database, "DROP SCHEMA beta CASCADE")


@pytest.mark.parametrize(
    "path", ["nowhere", '"$user", "Nowhere 2"', "$user, x", "Nowhere_3", f"pg_missing, {quote(AWKWARD)}", "", '""']
)
def test_file_without_schema_prints_statement_that_works(empty_database: Database, tmp_path: Path, path: str) -> None:
    text = render_sql_script("001").text
    error = feed(empty_database, tmp_path, path, text)
    assert error.count("ERROR") == 1
    assert "…" not in error
    assert feed(empty_database, tmp_path, path, hint(error).partition(": ")[2], text) == ""
    assert empty_database.query(TABLES) == [(2,)]


def test_file_with_empty_search_path_and_without_public_prints_statements_that_work(
    empty_database: Database, tmp_path: Path
) -> None:
    empty_database.execute("DROP SCHEMA public")
    text = render_sql_script("001").text
    error = feed(empty_database, tmp_path, "", text)
    assert feed(empty_database, tmp_path, "", hint(error).partition(": ")[2], text) == ""


def test_file_without_usable_schema_prints_grant_that_works(
    server: Server, empty_database: Database, tmp_path: Path
) -> None:
    with server.role("kpi-ro@corp.iam") as role:
        execute(
            empty_database,
            f"CREATE SCHEMA {quote(AWKWARD)}; GRANT CREATE ON SCHEMA {quote(AWKWARD)} TO PUBLIC",
            f"ALTER ROLE {quote(role)} IN DATABASE {empty_database.name} SET search_path = missing, {quote(AWKWARD)}",
        )
        url, text = empty_database.url_as(role), render_sql_script("001").text
        path = f"missing,{quote(AWKWARD)}".replace("\\", "\\\\").replace(" ", "\\ ")
        error = psql.feed(url, text, tmp_path, search_path=path).stderr
        execute(empty_database, hint(error).partition(": ")[2])
        assert psql.feed(url, text, tmp_path, search_path=path).returncode == 0
        execute(empty_database, f"DROP OWNED BY {quote(role)} CASCADE")


@pytest.mark.parametrize("rest", ["", ", public", ', "Nowhere 2"', ', "$user"'])
@pytest.mark.parametrize("own", OWN_SCHEMAS)
def test_path_that_begins_with_a_schema_of_postgresql_prints_statement_that_works(
    empty_database: Database, tmp_path: Path, own: str, rest: str
) -> None:
    database, path, text = empty_database, own + rest, render_sql_script("001").text
    set_path(database, path)
    message = error_of_upgrade(database.url, MigrationFailed)
    assert message.startswith(f"The search_path ({path}) leads to a schema of PostgreSQL itself")
    with connect(database.engine) as connection:
        for work in (read_status, adoption.plan):
            with pytest.raises(SettingsError) as error:
                work(connection)
            assert str(error.value) == message
    error_of_file = feed(database, tmp_path, path, text)
    assert f"the search_path ({path}) leads to a schema of PostgreSQL itself" in error_of_file
    assert "--schema" not in message
    assert "syntegra_db.schema" not in error_of_file
    fix = re.search(r"ALTER ROLE .*;", message)
    assert fix is not None, message
    execute(database, fix[0])
    statements = hint(error_of_file).partition(": ")[2]
    if rest in {"", ", public"}:
        assert feed(database, tmp_path, path, statements, text) == ""
        migrations.downgrade("base", url=database.url)
    else:
        missing = hint(feed(database, tmp_path, path, statements, text)).partition(": ")[2]
        assert feed(database, tmp_path, path, statements, missing, text) == ""
        # A comparison with no revision leaves the tables.
        assert migrations.upgrade(url=database.url) == HEAD
        return
    assert migrations.upgrade("001", url=database.url) == "001"


@pytest.mark.parametrize("own", OWN_SCHEMAS)
def test_schema_of_postgresql_is_never_offered_for_a_second_set(database: Database, tmp_path: Path, own: str) -> None:
    path, text = f"{own}, public", render_sql_script("003").text
    set_path(database, path)
    message = error_of_upgrade(database.url, TablesInOtherSchema)
    error = feed(database, tmp_path, path, text)
    for printed in (message, error):
        assert "are in schema public, but the search_path leads to one of PostgreSQL itself" in printed
        assert "second set" not in printed
    used = feed(database, tmp_path, path, hint(error).partition(": ")[2], text)
    assert "revision 003 is already applied" in used
    fix = re.search(r"ALTER ROLE .*;", message)
    assert fix is not None, message
    execute(database, fix[0])
    assert migrations.upgrade(url=database.url) == HEAD


@pytest.mark.parametrize("own", [*OWN_SCHEMAS, "pg_temp_3", "pg_mine"])
@pytest.mark.parametrize("path", ["public", "{own}, public", "later"])
def test_schema_of_postgresql_as_setting_of_a_file_is_refused(
    empty_database: Database, tmp_path: Path, own: str, path: str
) -> None:
    text = render_sql_script("001").text
    execute(empty_database, "CREATE SCHEMA later")
    path = path.format(own=own)
    error = feed(empty_database, tmp_path, path, f"SET syntegra_db.schema = '{own}';", text)
    assert error.count("ERROR") == 1
    assert "leads to a schema of PostgreSQL itself" in error
    fix = hint(error).partition(": ")[2]
    assert feed(empty_database, tmp_path, path, f"SET syntegra_db.schema = '{own}';", fix, text) == ""
    assert empty_database.query(TABLES) == [(2,)]


@pytest.mark.long
@pytest.mark.parametrize("own", [*OWN_SCHEMAS, "pg_temp_3", "pg_mine"])
def test_schema_of_postgresql_as_argument_is_refused(database: Database, own: str) -> None:
    for command in (
        ("syntegra-db", "upgrade", "--schema", own),
        ("syntegra-db", "adopt", "--schema", own),
        ("alembic", "-x", f"schema={own}", "upgrade", "head"),
        ("alembic", "-x", f"schema={own}", "upgrade", "head", "--sql"),
    ):
        result = run(*command, url=database.environment_url)
        assert (result.returncode, result.stderr.count("\n")) == (3, 1), result.stderr
        assert f"Schema {own} belongs to PostgreSQL itself" in result.stderr
    for work in (
        partial(migrations.upgrade, url=database.url, schema=own),
        partial(with_schema, database.engine, own),
        lambda: migrations.upgrade(url=database.engine.execution_options(schema_translate_map={None: own})),
    ):
        with pytest.raises((SettingsError, MigrationFailed), match=f"Schema {own} belongs to PostgreSQL itself"):
            work()


@pytest.mark.parametrize("schema", ["PG_mine", "pgdata", "Information_schema"])
def test_schema_with_similar_name_is_accepted(empty_database: Database, tmp_path: Path, schema: str) -> None:
    execute(empty_database, f"CREATE SCHEMA {quote(schema)}")
    with pytest.raises(DuplicateSchema):
        execute(empty_database, f"CREATE SCHEMA {quote(schema)}")
    assert migrations.upgrade("001", url=empty_database.url, schema=schema) == "001"
    assert "already applied" in feed(empty_database, tmp_path, quote(schema), render_sql_script("001").text)


@pytest.mark.parametrize("schema", ["second", "Más", AWKWARD])
def test_verify_notes_the_second_set_that_no_command_uses(database: Database, schema: str) -> None:
    execute(database, f"CREATE SCHEMA {quote(schema)}")
    migrations.upgrade(url=database.url, schema=schema)
    assert drift_report(database).notes == []
    set_path(database, f"public, {quote(schema)}")
    report = drift_report(database)
    (note,) = report.notes
    assert (report.findings, note.object) == ([], f"schema {quote(schema)}")
    execute(database, note.fix)
    result = run("syntegra-db", "verify", url=database.environment_url)
    assert (result.returncode, f"schema {quote(schema)}" in result.stdout) == (0, True)


@pytest.mark.parametrize("schema", ["second", "Más", AWKWARD])
@pytest.mark.parametrize("file", ["001", "003 --rollback"])
def test_file_with_setting_of_another_schema_than_the_path_changes_nothing(
    database: Database, tmp_path: Path, schema: str, file: str
) -> None:
    migrate_second_schema(database, schema, HEAD)
    before = database.query(ALL_TABLES)
    revision, _, option = file.partition(" ")
    script = render_sql_script(revision, rollback=bool(option)).text
    setting = f"SET syntegra_db.schema = {literal(schema)};"
    error = feed(database, tmp_path, '"$user", public', setting, script)
    assert f"names schema {quote(schema)}, but the search_path leads to schema public" in error
    assert database.query(ALL_TABLES) == before
    [use, reset] = re.findall(r"(?:SET search_path = .*?|RESET [a-z_.]+);(?= or|$)", hint(error))
    in_schema = feed(database, tmp_path, '"$user", public', setting, use, script)
    in_public = feed(database, tmp_path, '"$user", public', setting, reset, script)
    for outcome in (in_schema, in_public):
        assert "already applied" in outcome if revision == "001" else outcome == ""


def test_file_with_setting_of_missing_schema_prints_statements_that_work(
    empty_database: Database, tmp_path: Path
) -> None:
    setting, script = "SET syntegra_db.schema = 'Más';", render_sql_script("001").text
    error = feed(empty_database, tmp_path, "public", setting, script)
    assert empty_database.query(TABLES) == [(0,)]
    create = hint(error).removeprefix("Run this in the same session before the file: ").partition(" or, ")[0]
    assert feed(empty_database, tmp_path, "public", setting, create, script) == ""
    assert empty_database.query("SELECT schemaname::text FROM pg_tables WHERE tablename = 'data_sources'") == [("Más",)]


@pytest.mark.parametrize("path", ["", '"No Pe"', '"$user"', 'nix, """"'])
def test_file_without_existing_schema_on_the_path_names_the_schema_of_the_tables(
    database: Database, tmp_path: Path, path: str
) -> None:
    error = feed(database, tmp_path, path, render_sql_script("001").text)
    assert "are in schema public, but the search_path leads to no existing schema" in error
    use = hint(error).partition(": ")[2]
    assert "already applied" in feed(database, tmp_path, path, use, render_sql_script("001").text)


def test_schema_with_the_name_that_means_the_role_is_refused(database: Database) -> None:
    execute(database, 'CREATE SCHEMA "$user"')
    with pytest.raises(SettingsError, match=r"\$user means the role"):
        with_schema(database.engine, "$user")
    result = run("alembic", "-x", "schema=$user", "upgrade", "head", url=database.environment_url)
    assert (result.returncode, "means the role" in result.stderr) == (3, True)
    upgrade = run("syntegra-db", "upgrade", "--schema", "$user", url=database.environment_url)
    assert (upgrade.returncode, "means the role" in upgrade.stderr) == (3, True)
    assert database.query("SELECT count(*) FROM pg_tables WHERE schemaname = '$user'") == [(0,)]


def migrate_second_schema(database: Database, schema: str, revision: str) -> None:
    database.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    migrations.upgrade(revision, url=database.url, schema=schema)
