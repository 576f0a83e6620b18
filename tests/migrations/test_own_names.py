"""What is missing in the schema of the tables is never taken from the schema of the extension, which has it too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from support import psql
from support.commands import run
from support.legacy_databases import execute
from support.revisions import HEAD
from support.sample_rows import row_digests
from syntegra_db import backup, migrations
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import MigrationFailed
from syntegra_db.migrations import render_sql_script
from syntegra_db.search_path import with_schema

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

    from support.servers import Database
    from syntegra_db.recorded_steps import Direction

PATH = "options=-csearch_path%3Dapp,public"
EXIT_MIGRATION_FAILED = 11
EXIT_PSQL_ERROR = 3
OBJECTS = """
    SELECT classid, objid FROM pg_depend
    WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'public'::regnamespace ORDER BY 1, 2
"""
# Of revision 003, what another schema can have instead: with its label and name, and how it goes missing.
MISSING = {
    "table": ("table clusters", "DROP TABLE app.clusters"),
    "renamed table": ("table clusters", "ALTER TABLE app.clusters RENAME TO clusters_old"),
    "moved table": ("table kpi_summary", "CREATE SCHEMA old; ALTER TABLE app.kpi_summary SET SCHEMA old"),
    "type": ("type trend_status", "ALTER TYPE app.trend_status RENAME TO status_old"),
    "index": ("index idx_clusters_client_id", "DROP INDEX app.idx_clusters_client_id"),
    "sequence": ("sequence clusters_id_seq", "ALTER SEQUENCE app.clusters_id_seq RENAME TO other_seq"),
}
# Objects of another application in the schema of the extension, where there is no second set: what is missing, what is
# there instead, and the statements that create this and drop that.
NO_TABLE, NO_TYPE, NO_INDEX = (MISSING[kind][1] for kind in ("table", "type", "index"))
FOREIGN = {
    "table": ("table clusters", "table clusters", "CREATE TABLE public.clusters (hosts text)", NO_TABLE),
    "view": ("table clusters", "view clusters", "CREATE VIEW public.clusters AS SELECT 1 AS host", NO_TABLE),
    "materialized view": (
        "table clusters",
        "materialized view clusters",
        "CREATE MATERIALIZED VIEW public.clusters AS SELECT 1 AS host",
        NO_TABLE,
    ),
    "partitioned table": (
        "table clusters",
        "partitioned table clusters",
        "CREATE TABLE public.clusters (host text) PARTITION BY LIST (host)",
        NO_TABLE,
    ),
    "foreign table": (
        "table clusters",
        "foreign table clusters",
        """
        CREATE FOREIGN DATA WRAPPER app; CREATE SERVER app FOREIGN DATA WRAPPER app;
        CREATE FOREIGN TABLE public.clusters (host text) SERVER app
        """,
        NO_TABLE,
    ),
    "composite type": (
        "table clusters",
        "composite type clusters",
        "CREATE TYPE public.clusters AS (host text)",
        NO_TABLE,
    ),
    "type": ("type trend_status", "type trend_status", "CREATE TYPE public.trend_status AS ENUM ('up')", NO_TYPE),
    "table of the type": (
        "type trend_status",
        "table trend_status",
        "CREATE TABLE public.trend_status (a int)",
        NO_TYPE,
    ),
    "index": (
        "index idx_clusters_client_id",
        "index idx_clusters_client_id",
        "CREATE TABLE public.other (id int); CREATE INDEX idx_clusters_client_id ON public.other (id)",
        NO_INDEX,
    ),
    "sequence of the index": (
        "index idx_clusters_client_id",
        "sequence idx_clusters_client_id",
        "CREATE SEQUENCE public.idx_clusters_client_id",
        NO_INDEX,
    ),
}
# The same of the session that migrates, with the statement that ends it.
TEMPORARY = {
    "table": ("table", "CREATE TEMPORARY TABLE clusters (host text)", "ALTER TABLE pg_temp.clusters RENAME TO hosts"),
    "view": ("view", "CREATE TEMPORARY VIEW clusters AS SELECT 1 AS host", "DROP VIEW pg_temp.clusters"),
    "composite type": (
        "composite type",
        "CREATE TYPE pg_temp.clusters AS (host text)",
        "ALTER TYPE pg_temp.clusters RENAME TO hosts",
    ),
}


@pytest.fixture
def one_set(empty_database: Database) -> Database:
    """Return a database with the tables in app, and only the extension in public."""
    execute(empty_database, "CREATE EXTENSION vector SCHEMA public; CREATE SCHEMA app")
    migrations.upgrade(url=empty_database.url, schema="app")
    return empty_database


def with_path(database: Database) -> URL:
    return database.url.update_query_string(PATH)


def in_transaction(engine: Engine, direction: Direction = "downgrade") -> None:
    with engine.connect() as connection, connection.begin():
        migrations.run_in_transaction(connection, direction, "002")


WORKS: dict[str, Callable[[Engine, Path], object]] = {
    "downgrade": lambda engine, _: migrations.downgrade("002", url=engine),
    "rollback": lambda engine, folder: backup.rollback("002", engine, folder / "rows.dump"),
    "caller": lambda engine, _: in_transaction(engine),
}
UPGRADES: dict[str, Callable[[Engine], object]] = {
    "command": lambda engine: migrations.upgrade("002", url=engine),
    "caller": lambda engine: in_transaction(engine, "upgrade"),
}


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("missing", MISSING)
def test_downgrade_changes_nothing_of_the_other_set(
    two_sets: Database, tmp_path: Path, missing: str, work: str
) -> None:
    name, statement = MISSING[missing]
    execute(two_sets, statement)
    before = two_sets.query(OBJECTS), row_digests(two_sets)
    with pytest.raises(MigrationFailed, match=f"The {name} is missing in schema app, and schema public, which"):
        WORKS[work](unpooled_engine(with_path(two_sets)), tmp_path)
    assert (two_sets.query(OBJECTS), row_digests(two_sets)) == before
    assert two_sets.query("SELECT version_num FROM app.alembic_version") == [(HEAD,)]


@pytest.mark.parametrize("missing", MISSING)
def test_rollback_file_changes_nothing_of_the_other_set(two_sets: Database, tmp_path: Path, missing: str) -> None:
    name, statement = MISSING[missing]
    execute(two_sets, statement)
    before = two_sets.query(OBJECTS)
    script = render_sql_script("003", rollback=True).text
    result = psql.feed(two_sets.url, script, tmp_path, search_path="app,public")
    assert result.returncode == EXIT_PSQL_ERROR
    assert f"the {name} is missing in schema app, and schema public, which" in result.stderr
    assert two_sets.query(OBJECTS) == before


@pytest.mark.parametrize("command", ["downgrade 002 --yes", "rollback 002"])
def test_command_with_path_of_the_url_names_both_schemas(two_sets: Database, tmp_path: Path, command: str) -> None:
    execute(two_sets, "DROP TABLE app.clusters")
    url = with_path(two_sets).render_as_string(hide_password=False)
    result = run("syntegra-db", *command.removesuffix(" --yes").split(), url=url, cwd=tmp_path)
    assert result.returncode == EXIT_MIGRATION_FAILED, result.stderr
    assert "The table clusters is missing in schema app" in result.stderr
    assert two_sets.query("SELECT to_regclass('public.clusters')::text") == [("clusters",)]
    created = run("syntegra-db", "verify", url=url, cwd=tmp_path)
    assert "CREATE TABLE clusters" in created.stdout


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("route", ["command", "file", "caller"])
def test_object_of_another_application_is_kept(one_set: Database, tmp_path: Path, foreign: str, route: str) -> None:
    name, found, create, drop = FOREIGN[foreign]
    execute(one_set, create, drop)
    before = one_set.query(OBJECTS)
    if route == "file":
        script = render_sql_script("003", rollback=True).text
        error = psql.feed(one_set.url, script, tmp_path, search_path="app,public").stderr
    else:
        with pytest.raises(MigrationFailed) as caught:
            WORKS["downgrade" if route == "command" else route](unpooled_engine(with_path(one_set)), tmp_path)
        error = str(caught.value)
    assert f"he {name} is missing in schema app, and schema public, which" in error
    assert f"the search_path includes for the extension vector, has the {found}" in error
    assert one_set.query(OBJECTS) == before


@pytest.mark.parametrize("route", ["command", "file", "caller"])
@pytest.mark.parametrize("other", ["set", "table of another application"])
def test_upgrade_references_nothing_of_another_schema(
    empty_database: Database, tmp_path: Path, other: str, route: str
) -> None:
    database = empty_database
    execute(database, "CREATE EXTENSION vector; CREATE SCHEMA app")
    if other == "set":
        migrations.upgrade("001", url=database.url)
    else:
        execute(database, "CREATE TABLE public.data_sources (client_id bigint, id bigint, UNIQUE (client_id, id))")
    migrations.upgrade("001", url=database.url, schema="app")
    execute(database, "DROP TABLE app.data_sources")
    before = database.query(OBJECTS)
    if route == "file":
        error = psql.feed(database.url, render_sql_script("002").text, tmp_path, search_path="app,public").stderr
    else:
        engine = unpooled_engine(with_path(database))
        with pytest.raises(MigrationFailed) as caught:
            UPGRADES[route](engine)
        error = str(caught.value)
    assert "he table data_sources is missing in schema app, and schema public, which" in error
    assert database.query(OBJECTS) == before
    assert database.query("SELECT to_regclass('app.processed_data')") == [(None,)]


@pytest.mark.parametrize("kept", TEMPORARY)
def test_temporary_object_of_the_caller_is_kept(one_set: Database, kept: str) -> None:
    kind, create, end = TEMPORARY[kept]
    execute(one_set, "ALTER TABLE app.clusters RENAME TO clusters_old")
    engine = unpooled_engine(with_path(one_set))
    with engine.connect() as connection, connection.begin():
        connection.execute(text(create))
        with pytest.raises(MigrationFailed) as caught:
            migrations.run_in_transaction(connection, "downgrade", "002")
        assert (
            f"The table clusters is missing in schema app, and this session has the temporary {kind} clusters: the "
            "downgrade of revision 003 could change that one, so it was not run. Rename or drop the temporary "
            f"{kind}, and create the table in schema app;"
        ) in str(caught.value)
        connection.execute(text(end))
        connection.execute(text("ALTER TABLE app.clusters_old RENAME TO clusters"))
        migrations.run_in_transaction(connection, "downgrade", "002")


@pytest.mark.parametrize("kept", TEMPORARY)
def test_temporary_object_of_a_psql_session_is_kept(one_set: Database, tmp_path: Path, kept: str) -> None:
    kind, create, _ = TEMPORARY[kept]
    execute(one_set, "DROP TABLE app.clusters")
    script = f"{create}; {render_sql_script('003', rollback=True).text}"
    error = psql.feed(one_set.url, script, tmp_path, search_path="app,public").stderr
    assert (
        f"the table clusters is missing in schema app, and this session has the temporary {kind} clusters, which this "
        "file could change"
    ) in error
    assert f"Rename or drop the temporary {kind}, and create the table in schema app." in error


def test_object_of_the_extension_schema_is_found_before_a_temporary_one(one_set: Database) -> None:
    execute(one_set, "ALTER TABLE app.clusters SET SCHEMA public")
    engine = unpooled_engine(with_path(one_set))
    with engine.connect() as connection, connection.begin():
        connection.execute(text("CREATE TEMPORARY VIEW clusters AS SELECT 1 AS host"))
        with pytest.raises(MigrationFailed, match="extension vector, has the table clusters: "):
            migrations.run_in_transaction(connection, "downgrade", "002")


@pytest.mark.parametrize("first", ["app", "public"])
def test_two_complete_sets_migrate_one_by_one(two_sets: Database, tmp_path: Path, first: str) -> None:
    database = two_sets
    path = f"{first}, public"
    engine = unpooled_engine(database.url.update_query_string(f"options=-csearch_path%3D{path.replace(' ', '')}"))
    other = "public" if first == "app" else "app"
    before = database.query("SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1")
    result = backup.rollback("002", engine, tmp_path / "rows.dump")
    backup.restore(result.backup.path, engine, backup.ExistingRows.KEEP)
    migrations.downgrade("base", url=engine)
    with connect(with_schema(engine, first)) as connection:
        migrations.run_in_transaction(connection, "upgrade", HEAD)
        connection.commit()
    for revision in ("003", "002", "001"):
        script = render_sql_script(revision, rollback=True).text
        assert psql.feed(database.url, script, tmp_path, search_path=path.replace(" ", "")).stderr == ""
    for revision in ("001", "002", "003"):
        # The version table stays, which 001 notices.
        settings = f"SET client_min_messages = warning; SET syntegra_db.schema = '{first}';"
        script = settings + render_sql_script(revision).text
        assert psql.feed(database.url, script, tmp_path, search_path=path.replace(" ", "")).stderr == ""
    assert migrations.upgrade(url=engine) == HEAD
    assert database.query(
        "SELECT version_num FROM app.alembic_version UNION ALL SELECT version_num FROM public.alembic_version"
    ) == [(HEAD,), (HEAD,)]
    after = database.query("SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1")
    assert (before == after) == (other == "public")


def test_extension_outside_of_the_path_is_no_reason_to_stop(one_set: Database) -> None:
    execute(one_set, "CREATE TABLE public.clusters (host text); DROP TABLE app.clusters")
    engine = unpooled_engine(one_set.url.update_query_string("options=-csearch_path%3Dapp"))
    with pytest.raises(MigrationFailed, match='relation "clusters" does not exist'):
        migrations.downgrade("002", url=engine)
