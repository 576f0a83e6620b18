"""`enable`: what it makes, and that a second run completes what is missing and changes nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from support.installed_state import state_of
from support.logins import ROLES, clients_seen, rows_as
from support.processes import blocking
from support.protection import BARE_TABLES, PROTECTED_TABLES
from support.sample_rows import TABLES, load_rows
from syntegra_db import migrations
from syntegra_db.client_policies import SHARED_TABLES
from syntegra_db.errors import TenancyError
from syntegra_db.search_path import with_schema
from syntegra_db.tenancy import disable, enable

if TYPE_CHECKING:
    from support.logins import Logins
    from support.servers import Database

ROWS = 2_000
CLIENT_TABLES = tuple(table for table in TABLES if table not in SHARED_TABLES)
REFUSED: tuple[LiteralString, ...] = (
    "INSERT INTO clusters (id, client_id, cluster_id, features_json) VALUES (1, 7, 1, '{}')",
    "UPDATE kpi_summary SET id = id + 1",
    "TRUNCATE anomaly_log",
    "CREATE TRIGGER t AFTER INSERT ON clusters EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "DELETE FROM trend_signals",
    "TABLE bound_logins",
    "ALTER TABLE clusters DISABLE ROW LEVEL SECURITY",
    "SELECT setval('clusters_id_seq', 1)",
)
LOSSES: tuple[LiteralString, ...] = (
    "DROP POLICY client_delete ON clusters",
    "ALTER TABLE clusters DISABLE ROW LEVEL SECURITY",
    "REVOKE ALL ON clusters, alembic_version FROM syntegra_service",
    "REVOKE UPDATE (cluster_id) ON clusters FROM syntegra_admin",
    "REVOKE USAGE ON SEQUENCE clusters_id_seq FROM syntegra_service",
    "REVOKE USAGE ON SCHEMA public FROM syntegra_bound",
    "DROP FUNCTION bound_client_id() CASCADE",
)


@pytest.mark.parametrize("table", CLIENT_TABLES)
def test_service_and_reader_see_rows_of_the_client_in_the_setting(
    separated: Database, logins: Logins, table: str
) -> None:
    load_rows(separated, ROWS)
    for group in (ROLES.service, ROLES.reader):
        login = logins.create(group)
        assert clients_seen(separated, login, table, 7) == {7}
        assert clients_seen(separated, login, table) == set()
    assert clients_seen(separated, logins.create(ROLES.admin), table) > {7, 8}


@pytest.mark.parametrize("statement", REFUSED)
def test_service_may_not_do_more(separated: Database, logins: Logins, statement: LiteralString) -> None:
    with pytest.raises(InsufficientPrivilege):
        rows_as(separated, logins.create(ROLES.service), statement, 7)


def test_service_writes_rows_of_its_client_only(separated: Database, logins: Logins) -> None:
    load_rows(separated, ROWS)
    service = logins.create(ROLES.service)
    insert = sql.SQL("INSERT INTO anomaly_log (client_id, kpi_name, value) VALUES ({}, 'k', 1) RETURNING client_id")
    assert rows_as(separated, service, insert.format(7), 7) == [(7,)]
    with pytest.raises(InsufficientPrivilege, match="row-level security"):
        rows_as(separated, service, insert.format(8), 7)
    with pytest.raises(InsufficientPrivilege, match="row-level security"):
        rows_as(separated, service, "UPDATE anomaly_log SET client_id = 8", 7)
    for statement in ("UPDATE anomaly_log SET value = 5", "DELETE FROM anomaly_log"):
        assert {client for (client,) in rows_as(separated, service, f"{statement} RETURNING client_id", 7)} == {7}
    assert separated.query("SELECT count(*) FROM anomaly_log WHERE client_id = 7 OR value = 5") == [(0,)]
    with pytest.raises(InsufficientPrivilege):
        rows_as(separated, logins.create(ROLES.reader), insert.format(7), 7)
    assert rows_as(separated, logins.create(ROLES.admin), insert.format(8)) == [(8,)]


def test_second_run_changes_nothing_and_waits_for_nothing(separated: Database) -> None:
    before = state_of(separated)
    with blocking(separated, 3, "LOCK TABLE kpi_summary, clusters IN ACCESS SHARE MODE"):
        result = enable(separated.engine, options=migrations.MigrationOptions(lock_retry_timeout=0, lock_timeout=0.1))
    assert result.created_roles == ()
    assert state_of(separated) == before


@pytest.mark.parametrize("loss", LOSSES)
def test_second_run_completes_what_is_missing(separated: Database, loss: LiteralString) -> None:
    before = state_of(separated)
    separated.execute(loss)
    assert state_of(separated) != before
    enable(separated.engine)
    assert state_of(separated) == before


@pytest.mark.parametrize("prefix", ["acme_", "_", "a" * 40])
def test_prefix_names_the_roles(logins: Logins, database: Database, prefix: str) -> None:
    roles = enable(database.engine, prefix=prefix).tenancy.roles
    assert roles.service == f"{prefix}service"
    load_rows(database, ROWS)
    assert clients_seen(database, logins.create(roles.service), "kpi_summary", 7) == {7}
    with pytest.raises(TenancyError, match="tenancy disable"):
        enable(database.engine, prefix="other_")
    assert enable(database.engine).tenancy.prefix == prefix
    assert set(disable(database.engine).dropped_roles) == set(roles)


@pytest.mark.parametrize("prefix", ["", "pg_", "pg_x", "Acme_", "1_", "a-b", "ñ", "a" * 41, "a\n", 'a"'])
def test_prefix_of_another_form_is_refused(database: Database, prefix: str) -> None:
    with pytest.raises(TenancyError, match="prefix"):
        enable(database.engine, prefix=prefix)


@pytest.mark.usefixtures("no_group_roles")
def test_connection_of_the_caller_commits_or_rolls_back(database: Database) -> None:
    before = state_of(database)
    with database.engine.connect() as connection:
        connection.begin()
        enable(connection)
        connection.rollback()
    assert state_of(database) == before
    with database.engine.connect() as connection:
        enable(connection)
    assert len(database.query(PROTECTED_TABLES)) == len(CLIENT_TABLES)
    autocommit = database.engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection, pytest.raises(TenancyError, match="AUTOCOMMIT"):
        disable(connection)
    with database.engine.begin() as connection:
        disable(connection)
    assert state_of(database) == before


@pytest.mark.parametrize("schema", ["other", 'a "b" $$ %s :x {y}'])
def test_tables_in_another_schema_are_protected(logins: Logins, empty_database: Database, schema: str) -> None:
    empty_database.execute(sql.SQL("CREATE SCHEMA {name}; CREATE EXTENSION vector").format(name=sql.Identifier(schema)))
    migrations.upgrade(url=empty_database.engine, schema=schema)
    engine = with_schema(empty_database.engine, schema)
    enable(engine)
    login = logins.create(ROLES.service)
    query = sql.SQL(
        "INSERT INTO {}.clusters (client_id, cluster_id, features_json) VALUES (7, 1, '{{}}') RETURNING client_id"
    ).format(sql.Identifier(schema))
    assert rows_as(empty_database, login, query, 7) == [(7,)]
    with pytest.raises(InsufficientPrivilege):
        rows_as(empty_database, login, query, 8)
    disable(engine)


def test_database_without_tables_can_be_enabled(logins: Logins, empty_database: Database) -> None:
    enable(empty_database.engine)
    assert empty_database.query(PROTECTED_TABLES) == []
    migrations.upgrade(url=empty_database.url)
    assert len(empty_database.query(PROTECTED_TABLES)) == len(CLIENT_TABLES)
    assert empty_database.query(BARE_TABLES) == []
    assert clients_seen(empty_database, logins.create(ROLES.service), "kpi_summary", 7) == set()
