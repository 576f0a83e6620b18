"""`alembic`, as an operator types it in a checkout."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from alembic import command

from support.commands import run, succeed
from support.revisions import HEAD, REVISIONS
from syntegra_db.catalog import DataLoss, load_manifest, verify
from syntegra_db.connections import conninfo
from syntegra_db.errors import SchemaDrift
from syntegra_db.migrations import alembic_config, describe_data_loss, require_head
from syntegra_db.migrations._config import MigrationRequest
from syntegra_db.revisions import VERSION_TABLE

if TYPE_CHECKING:
    from support.servers import Database, Server

MANAGED_TABLES = {VERSION_TABLE, *load_manifest(HEAD).tables}
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"


def tables(database: Database) -> set[str]:
    return {name for (name,) in database.query(TABLES)}


@pytest.mark.long
def test_upgrade_and_downgrade_of_every_revision_succeed(empty_database: Database) -> None:
    url = empty_database.environment_url
    succeed("alembic", "upgrade", "head", url=url)
    assert tables(empty_database) == MANAGED_TABLES
    assert succeed("alembic", "current", url=url).startswith(f"{HEAD} (head)")
    assert "No new upgrade operations detected" in succeed("alembic", "check", url=url)
    succeed("alembic", "downgrade", "002", url=url)
    assert tables(empty_database) == {"alembic_version", "data_sources", "processed_data"}
    succeed("alembic", "downgrade", "-1", url=url)
    succeed("alembic", "downgrade", "base", url=url)
    assert tables(empty_database) == {"alembic_version"}
    succeed("alembic", "upgrade", "heads", url=url)
    succeed("alembic", "downgrade", "base", url=url)
    succeed("alembic", "upgrade", "+2", url=url)
    assert empty_database.query("SELECT version_num FROM alembic_version") == [("002",)]


def test_offline_sql_creates_same_schema(empty_database: Database) -> None:
    script = succeed("alembic", "upgrade", "head", "--sql")
    with empty_database.connect() as connection:
        connection.execute(script.encode())
    with empty_database.engine.connect() as connection:
        require_head(connection)
        assert verify(connection).findings == []


def test_check_after_manual_change_fails(database: Database) -> None:
    database.execute("ALTER TABLE clusters DROP COLUMN centroid")
    result = run("alembic", "check", url=database.environment_url)
    assert result.returncode != 0
    assert "centroid" in result.stderr


def test_check_that_alembic_cannot_run_names_verify(database: Database) -> None:
    database.execute("ALTER TYPE trend_status RENAME VALUE 'stable' TO 'flat'")
    result = run("alembic", "check", url=database.environment_url)
    assert (result.returncode, result.stderr.count("Traceback")) == (11, 0), result.stderr
    assert "`syntegra-db verify` names what differs" in result.stderr
    result = run("syntegra-db", "verify", url=database.environment_url)
    assert result.returncode == 1
    assert "type trend_status" in result.stdout


def test_application_tables_are_not_reported_or_changed(empty_database: Database) -> None:
    empty_database.execute(
        "CREATE TABLE clients (id bigint PRIMARY KEY); CREATE TYPE mood AS ENUM ('a'); INSERT INTO clients VALUES (7);"
        "CREATE SEQUENCE clients_number; CREATE VIEW all_clients AS SELECT * FROM clients"
    )
    url = empty_database.environment_url
    succeed("alembic", "upgrade", "head", url=url)
    assert "No new upgrade operations detected" in succeed("alembic", "check", url=url)
    succeed("alembic", "downgrade", "base", url=url)
    assert tables(empty_database) == {"alembic_version", "clients"}
    assert empty_database.query("SELECT id FROM all_clients") == [(7,)]


@pytest.mark.long
def test_other_schema_on_search_path_is_unchanged(empty_database: Database) -> None:
    empty_database.execute(
        "CREATE EXTENSION vector; CREATE TABLE clusters (name text); INSERT INTO clusters VALUES ('foreign');"
        "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('foreign');"
        "CREATE SCHEMA syntegra"
    )
    with psycopg.connect(conninfo(empty_database.url), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {empty_database.name} SET search_path = syntegra, public".encode())
    url = empty_database.environment_url
    succeed("alembic", "upgrade", "head", url=url)
    assert "No new upgrade operations detected" in succeed("alembic", "check", url=url)
    managed = empty_database.query("SELECT tablename FROM pg_tables WHERE schemaname = 'syntegra'")
    assert {name for (name,) in managed} == MANAGED_TABLES
    require_head(empty_database.engine)
    succeed("alembic", "downgrade", "base", url=url)
    assert tables(empty_database) == {"alembic_version", "clusters"}
    assert empty_database.query("SELECT * FROM public.alembic_version, public.clusters") == [("foreign", "foreign")]


def test_upgrade_as_owner_without_superuser_succeeds(empty_database: Database, server: Server) -> None:
    with server.role("syntegra_owner") as role:
        try:
            empty_database.execute("CREATE EXTENSION vector; GRANT ALL ON SCHEMA public TO syntegra_owner")
            url = empty_database.url_as(role).render_as_string(hide_password=False)
            succeed("alembic", "upgrade", "head", url=url)
            owners = empty_database.query("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
            assert owners == [(role,)]
            assert "No new upgrade operations detected" in succeed("alembic", "check", url=url)
            succeed("alembic", "downgrade", "base", url=url)
        finally:
            empty_database.execute("DROP OWNED BY syntegra_owner")


def test_upgrade_of_newer_database_exits_10(database: Database) -> None:
    database.execute("UPDATE alembic_version SET version_num = '999'")
    for arguments in (("alembic", "upgrade", "head"), ("syntegra-db", "upgrade"), ("syntegra-db", "downgrade", "002")):
        result = run(*arguments, url=database.environment_url)
        assert (result.returncode, result.stderr.count("\n")) == (10, 1), result.stderr
        assert "revision 999, which this package does not know" in result.stderr


def test_version_table_with_two_rows_is_explained(database: Database) -> None:
    database.execute("INSERT INTO alembic_version VALUES ('002')")
    result = run("alembic", "upgrade", "head", url=database.environment_url)
    assert result.returncode == 8
    assert f"holds 002 and {HEAD}, which happens when a dump is restored over a migrated database" in result.stderr


def test_missing_schema_is_named(empty_database: Database) -> None:
    url = empty_database.url.update_query_dict({"options": "-c search_path=nowhere"})
    result = run("alembic", "upgrade", "head", url=url.render_as_string(hide_password=False))
    assert result.returncode == 11
    assert "No schema of the search_path (nowhere) exists" in result.stderr


@pytest.mark.parametrize("arguments", [("alembic", "upgrade", "head"), ("syntegra-db", "upgrade")])
def test_upgrade_with_existing_table_changes_nothing(empty_database: Database, arguments: tuple[str, ...]) -> None:
    empty_database.execute("CREATE TABLE anomaly_log (id integer)")
    result = run(*arguments, url=empty_database.environment_url)
    assert result.returncode == 11
    assert 'relation "anomaly_log" already exists' in result.stderr
    assert "The database is at revision 002" in result.stderr
    assert "Traceback" not in result.stderr
    assert tables(empty_database) == {"alembic_version", "data_sources", "processed_data", "anomaly_log"}


@pytest.mark.parametrize("target", ["002", "-1", "003-1", f"head-{len(REVISIONS) - 2}"])
def test_downgrade_logs_rows_of_each_table_first(database_003: Database, target: str) -> None:
    database = database_003
    database.execute(
        "INSERT INTO clusters (client_id, cluster_id, features_json) SELECT 1, number, '{}'"
        " FROM generate_series(1, 1200) AS number;"
        "INSERT INTO data_sources (client_id, name, type) VALUES (1, 'a', 'b')"
    )
    result = run("alembic", "downgrade", target, url=database.environment_url)
    assert result.returncode == 0, result.stderr
    before, _, after = result.stderr.partition("Running downgrade")
    assert "This drops anomaly_log (0 rows), clusters (1,200 rows), kpi_summary (0 rows), text_summary" in before
    assert "data_sources" not in before
    assert "This drops" not in after


def test_downgrade_with_dependent_view_names_and_keeps_it(database: Database) -> None:
    database.execute("CREATE VIEW big_clusters AS SELECT cluster_id FROM clusters")
    result = run("alembic", "downgrade", "002", url=database.environment_url)
    assert result.returncode == 11
    assert "view big_clusters depends on table clusters" in result.stderr
    assert "CASCADE" not in result.stderr
    assert tables(database) == MANAGED_TABLES


def test_upgrade_of_sql_ascii_database_succeeds(server: Server) -> None:
    options = "ENCODING SQL_ASCII LC_COLLATE 'C' LC_CTYPE 'C'"
    with server.database(options=options) as database:
        succeed("alembic", "upgrade", "head", url=database.environment_url)


def test_rows_not_counted_in_time_are_estimated(database: Database) -> None:
    database.execute(
        "INSERT INTO clusters (client_id, cluster_id, features_json) SELECT 1, number, '{}'"
        " FROM generate_series(1, 1200) AS number; ANALYZE clusters"
    )
    with database.connect() as holder, database.engine.connect() as connection:
        holder.autocommit = False
        holder.execute("LOCK TABLE clusters")
        assert describe_data_loss(connection, [DataLoss("clusters", "clusters")]) == "clusters (about 1,200 rows)"


def test_stamp_of_wrong_revision_drops_nothing_and_exits_16(database: Database) -> None:
    result = run("alembic", "stamp", "002", url=database.environment_url)
    assert result.returncode == 16
    assert "This drops" not in result.stderr
    assert "at revision 002, but the schema of the database" in result.stderr
    assert tables(database) == MANAGED_TABLES
    succeed("alembic", "stamp", HEAD, url=database.environment_url)


@pytest.mark.parametrize("arguments", [("downgrade", "002"), ("upgrade", "head"), ("stamp", HEAD)])
def test_migration_with_earlier_drift_warns_and_succeeds(database: Database, arguments: tuple[str, ...]) -> None:
    database.execute("ALTER TABLE data_sources DISABLE TRIGGER ALL; DROP INDEX idx_data_sources_status")
    result = run("alembic", *arguments, url=database.environment_url)
    assert result.returncode == 0
    assert "already differed from the declared one before this command: index idx_data_sources_st" in result.stderr
    assert "`syntegra-db verify` prints how to fix it" in result.stderr


def test_migration_that_causes_drift_exits_16_and_names_only_that(database: Database) -> None:
    database.execute(
        "DROP INDEX idx_data_sources_status;"
        "CREATE FUNCTION change() RETURNS event_trigger LANGUAGE plpgsql AS"
        " $$BEGIN ALTER TABLE data_sources ALTER name DROP NOT NULL; END$$;"
        "CREATE EVENT TRIGGER change ON ddl_command_end WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION change()"
    )
    result = run("alembic", "downgrade", "002", url=database.environment_url)
    database.execute("DROP EVENT TRIGGER change")
    assert result.returncode == 16, result.stderr
    assert "but the schema of the database" in result.stderr
    assert "differs from the declared one: column data_sources.name. `syntegra-db verify`" in result.stderr


@pytest.mark.parametrize(
    ("statement", "target", "has_drift"),
    [
        ("UPDATE alembic_version SET version_num = '999'", "head", False),
        ("INSERT INTO alembic_version VALUES ('002')", HEAD, False),
        ("DELETE FROM alembic_version", HEAD, False),
        ("SELECT", HEAD, False),
        ("INSERT INTO alembic_version VALUES ('foreign')", "base", False),
        ("SELECT", "base", True),
        ("UPDATE alembic_version SET version_num = '999'", "002", True),
    ],
)
def test_stamp_with_purge_replaces_what_the_version_table_holds(
    database: Database, statement: LiteralString, target: str, *, has_drift: bool
) -> None:
    database.execute(statement)
    config = alembic_config(MigrationRequest(database.url))
    with pytest.raises(SchemaDrift) if has_drift else nullcontext():
        command.stamp(config, target, purge=True)
    expected = {"base": [], "head": [(HEAD,)]}.get(target, [(target,)])
    assert database.query("SELECT version_num FROM alembic_version") == expected
    assert tables(database) == MANAGED_TABLES


@pytest.mark.long
def test_alembic_stamp_with_purge_succeeds_where_it_is_refused_without(database: Database) -> None:
    database.execute("UPDATE alembic_version SET version_num = '999'")
    assert run("alembic", "stamp", HEAD, url=database.environment_url).returncode == 10
    succeed("alembic", "stamp", "--purge", HEAD, url=database.environment_url)
    assert database.query("SELECT version_num FROM alembic_version") == [(HEAD,)]
    database.execute("UPDATE alembic_version SET version_num = '999'")
    succeed("alembic", "stamp", "--purge", "base", url=database.environment_url)
    assert database.query("SELECT version_num FROM alembic_version") == []


def test_stamp_with_purge_that_fails_keeps_the_version_table(database: Database) -> None:
    database.execute(
        "UPDATE alembic_version SET version_num = '999';ALTER TABLE alembic_version ADD CHECK (version_num = '999')"
    )
    result = run("alembic", "stamp", "--purge", HEAD, url=database.environment_url)
    assert (result.returncode, "Traceback" in result.stderr) == (11, False), result.stderr
    assert database.query("SELECT version_num FROM alembic_version") == [("999",)]
