"""The same revision gives the same snapshot, wherever its tables stand and however they were made."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import text

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
    return format_manifest("003", introspect(connection, TABLES).schema)


def with_search_path(database: Database, search_path: str) -> URL:
    return database.url.update_query_dict({"options": "-csearch_path=" + search_path.replace(" ", r"\ ")})


@pytest.fixture
def expected() -> str:
    return format_manifest("003", load_manifest("003"))


def test_revisions_make_what_the_models_describe(database: Database, empty_database: Database, expected: str) -> None:
    with empty_database.engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION vector"))
        Base.metadata.create_all(connection)
    with database.engine.connect() as migrated, empty_database.engine.connect() as created:
        assert manifest_of(created) == manifest_of(migrated) == expected


@pytest.mark.parametrize(
    "search_path", ["syntegra,public", "syntegra,extensions", '"Syntegra data",extensions', "syntegra"]
)
def test_schema_of_the_tables_does_not_matter(empty_database: Database, expected: str, search_path: str) -> None:
    extension_schema = "extensions" if "extensions" in search_path else "public"
    with empty_database.connect() as connection:
        connection.execute('CREATE SCHEMA syntegra; CREATE SCHEMA "Syntegra data"; CREATE SCHEMA extensions')
        connection.execute(f"CREATE EXTENSION vector SCHEMA {extension_schema}")
    migrations.upgrade(url=with_search_path(empty_database, f"{search_path},{extension_schema}"))
    with unpooled_engine(with_search_path(empty_database, search_path)).connect() as connection:
        assert manifest_of(connection) == expected


def test_tables_in_another_schema_are_not_looked_at(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("CREATE SCHEMA application")
    with unpooled_engine(with_search_path(database, "application,public")).connect() as connection:
        assert introspect(connection, TABLES, ["trend_status"]).schema == load_manifest(None)


def test_temporary_tables_of_the_same_name_do_not_matter(database: Database, expected: str) -> None:
    with database.engine.connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE data_sources (id text)"))
        connection.execute(text("CREATE TYPE pg_temp.trend_status AS ENUM ('up')"))
        assert manifest_of(connection) == expected


def test_rows_do_not_matter(database: Database, expected: str) -> None:
    with database.connect() as connection:
        connection.execute("INSERT INTO trend_signals SELECT n, '', '', now(), now() FROM generate_series(1, 50) AS n")
    with database.engine.connect() as connection:
        assert manifest_of(connection) == expected


def test_it_is_plain_data(database: Database) -> None:
    with database.engine.connect() as connection:
        taken = introspect(connection, TABLES)
    shape = json.loads(json.dumps(asdict(taken.schema)))
    assert shape["tables"]["text_summary"]["columns"]["embedding"]["type"] == "vector(384)"
    assert taken.extension is not None
    assert taken.extension.schema == "public"


def test_it_leaves_the_session_and_the_transaction_as_they_were(database: Database) -> None:
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


def test_it_keeps_no_lock_that_anyone_could_wait_for(database: Database) -> None:
    with database.engine.connect() as connection, database.connect() as other:
        introspect(connection, TABLES)
        other.execute("SET lock_timeout = '100ms'")
        for table in TABLES:
            other.execute(f"ALTER TABLE {table} SET (fillfactor = 90)")


def test_it_waits_for_a_locked_table_only_so_long(database: Database) -> None:
    with database.engine.connect() as connection, database.connect() as other, other.transaction():
        other.execute("LOCK TABLE text_summary IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(LockTimeout, match="ACCESS EXCLUSIVE"):
            introspect(connection, TABLES)
        assert connection.scalar(text("SELECT current_setting('lock_timeout')")) == "0"
    assert LOCK_TIMEOUT_MILLISECONDS < 1000


def test_writers_and_index_builds_do_not_keep_it_waiting(database: Database, expected: str) -> None:
    with database.engine.connect() as connection, database.connect() as other, other.transaction():
        other.execute("LOCK TABLE text_summary IN EXCLUSIVE MODE")
        assert manifest_of(connection) == expected


def test_without_a_schema_it_says_what_to_do(database: Database) -> None:
    with (
        unpooled_engine(with_search_path(database, "nowhere")).connect() as connection,
        pytest.raises(SettingsError, match=r"search_path \(nowhere\).*GRANT USAGE ON SCHEMA"),
    ):
        introspect(connection, TABLES)


def test_a_role_without_any_privilege_reads_the_same(database: Database, expected: str) -> None:
    with database.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS syntegra_test_nobody; CREATE ROLE syntegra_test_nobody")
    try:
        with database.engine.connect() as connection:
            connection.execute(text("SET ROLE syntegra_test_nobody"))
            assert manifest_of(connection) == expected
            with pytest.raises(Exception, match="permission denied") as refused:
                connection.execute(text("SELECT FROM clusters"))
            assert isinstance(refused.value.__cause__, psycopg.errors.InsufficientPrivilege)
    finally:
        with database.connect() as connection:
            connection.execute("DROP ROLE syntegra_test_nobody")
