"""`introspect` returns the manifest of a revision, in any schema and for any role."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import text

from support.revisions import HEAD
from syntegra_db import migrations
from syntegra_db.catalog import format_manifest, introspect, load_manifest
from syntegra_db.catalog._introspection import LOCK_TIMEOUT_MILLISECONDS
from syntegra_db.connections import unpooled_engine
from syntegra_db.errors import LockTimeout, SettingsError
from syntegra_db.models import Base

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

    from support.servers import Database

TABLES = tuple(Base.metadata.tables)


def manifest_of(connection: Connection) -> str:
    """Every column in its order, as a manifest has it."""
    return format_manifest(HEAD, introspect(connection, TABLES).schema)


def with_search_path(database: Database, search_path: str) -> URL:
    return database.url.update_query_dict({"options": "-csearch_path=" + search_path.replace(" ", r"\ ")})


@pytest.fixture
def expected() -> str:
    return format_manifest(HEAD, load_manifest(HEAD))


def test_migrated_schema_equals_models(database: Database, empty_database: Database, expected: str) -> None:
    with empty_database.engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION vector"))
        Base.metadata.create_all(connection)
    with database.engine.connect() as migrated, empty_database.engine.connect() as created:
        assert manifest_of(created) == manifest_of(migrated) == expected


@pytest.mark.parametrize(
    "search_path", ["syntegra,public", "syntegra,extensions", '"Syntegra data",extensions', "syntegra"]
)
def test_introspect_in_any_schema_returns_the_manifest(
    empty_database: Database, expected: str, search_path: str
) -> None:
    extension_schema = "extensions" if "extensions" in search_path else "public"
    with empty_database.connect() as connection:
        connection.execute('CREATE SCHEMA syntegra; CREATE SCHEMA "Syntegra data"; CREATE SCHEMA extensions')
        connection.execute(f"CREATE EXTENSION vector SCHEMA {extension_schema}")
    migrations.upgrade(url=with_search_path(empty_database, f"{search_path},{extension_schema}"))
    with unpooled_engine(with_search_path(empty_database, search_path)).connect() as connection:
        assert manifest_of(connection) == expected


def test_introspect_ignores_tables_of_other_schemas(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("CREATE SCHEMA application")
    with unpooled_engine(with_search_path(database, "application,public")).connect() as connection:
        assert introspect(connection, TABLES, ["trend_status"]).schema == load_manifest(None)


def test_introspect_ignores_temporary_tables(database: Database, expected: str) -> None:
    with database.engine.connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE data_sources (id text)"))
        connection.execute(text("CREATE TYPE pg_temp.trend_status AS ENUM ('up')"))
        assert manifest_of(connection) == expected


def test_introspect_with_rows_returns_the_manifest(database: Database, expected: str) -> None:
    with database.connect() as connection:
        connection.execute("INSERT INTO trend_signals SELECT n, '', '', now(), now() FROM generate_series(1, 50) AS n")
    with database.engine.connect() as connection:
        assert manifest_of(connection) == expected


def test_live_catalog_converts_to_json(database: Database) -> None:
    with database.engine.connect() as connection:
        live_catalog = introspect(connection, TABLES)
    schema = json.loads(json.dumps(asdict(live_catalog.schema)))
    assert schema["tables"]["text_summary"]["columns"]["embedding"]["type"] == "vector(384)"
    assert live_catalog.extension is not None
    assert live_catalog.extension.schema == "public"


def test_introspect_keeps_session_settings_and_transaction(database: Database) -> None:
    settings = text("SELECT current_setting('search_path'), current_setting('lock_timeout')")
    with database.engine.connect() as connection:
        connection.execute(text("SET search_path = public, pg_catalog"))
        connection.execute(text("SET lock_timeout = '7s'"))
        connection.execute(text("CREATE TABLE clients (id bigint)"))
        before = connection.execute(settings).one()
        introspect(connection, TABLES)
        assert connection.execute(settings).one() == before
        connection.commit()
        assert connection.execute(settings).one() == before
        assert connection.scalar(text("SELECT to_regclass('clients') IS NOT NULL"))


def test_introspect_keeps_no_conflicting_lock(database: Database) -> None:
    with database.engine.connect() as connection, database.connect() as other:
        introspect(connection, TABLES)
        other.execute("SET lock_timeout = '100ms'")
        for table in TABLES:
            other.execute(f"ALTER TABLE {table} SET (fillfactor = 90)")


def test_introspect_of_locked_table_raises_lock_timeout(database: Database) -> None:
    with database.engine.connect() as connection, database.connect() as other, other.transaction():
        other.execute("LOCK TABLE text_summary IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(LockTimeout, match="ACCESS EXCLUSIVE"):
            introspect(connection, TABLES)
        assert connection.scalar(text("SELECT current_setting('lock_timeout')")) == "0"
    assert LOCK_TIMEOUT_MILLISECONDS < 1000


def test_introspect_does_not_wait_for_writers(database: Database, expected: str) -> None:
    with database.engine.connect() as connection, database.connect() as other, other.transaction():
        other.execute("LOCK TABLE text_summary IN EXCLUSIVE MODE")
        assert manifest_of(connection) == expected


def test_introspect_without_schema_raises_settings_error(empty_database: Database) -> None:
    with (
        unpooled_engine(with_search_path(empty_database, "nowhere")).connect() as connection,
        pytest.raises(SettingsError, match=r"No schema of the search_path \(nowhere\).*CREATE SCHEMA nowhere;"),
    ):
        introspect(connection, TABLES)


def test_introspect_without_privileges_returns_the_manifest(database: Database, expected: str) -> None:
    with database.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS syntegra_test_role; CREATE ROLE syntegra_test_role")
    try:
        with database.engine.connect() as connection:
            connection.execute(text("SET ROLE syntegra_test_role"))
            assert manifest_of(connection) == expected
            with pytest.raises(Exception, match="permission denied") as error:
                connection.execute(text("SELECT FROM clusters"))
            assert isinstance(error.value.__cause__, psycopg.errors.InsufficientPrivilege)
    finally:
        with database.connect() as connection:
            connection.execute("DROP ROLE syntegra_test_role")
