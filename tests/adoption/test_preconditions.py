"""Databases that cannot be adopted: the error has the reason, and nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.commands import run as run_command
from support.legacy_databases import create_legacy_database, execute
from support.pg_dump import dump
from support.servers import Database
from syntegra_db import adoption
from syntegra_db.connections import unpooled_engine
from syntegra_db.errors import AdoptionNotPossible, DatabaseAhead, ExtensionUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Server

SERIAL, NAMED = "serial_ids", "other_names"
# By name: the database, the statements that change it, and the reason in the error.
NOT_ADOPTABLE = {
    "history of the application": (
        SERIAL,
        ["CREATE TABLE alembic_version (version_num text)", "INSERT INTO alembic_version VALUES ('a81c2f')"],
        r"alembic_version contains a81c2f, .* cannot share one version table.*version_table='application_version'",
    ),
    "view on a column that has to change": (
        SERIAL,
        ["CREATE VIEW kpi_report AS SELECT client_id, kpi_value FROM kpi_summary"],
        r"view kpi_report depends on column kpi_summary.kpi_value, which must change from double precision to numeric",
    ),
    "materialized view": (
        SERIAL,
        ["CREATE MATERIALIZED VIEW per_client AS SELECT client_id, count(*) FROM clusters GROUP BY 1"],
        r"materialized view per_client depends on column clusters.client_id",
    ),
    "generated column": (
        SERIAL,
        ["ALTER TABLE clusters ADD near boolean GENERATED ALWAYS AS (distance_to_centroid < 1) STORED"],
        r"column near of table clusters depends on column clusters.distance_to_centroid",
    ),
    "partitioned table": (
        NAMED,
        [
            "DROP TABLE clusters",
            "CREATE TABLE clusters (id bigint, client_id bigint) PARTITION BY HASH (client_id)",
            "CREATE TABLE clusters_0 PARTITION OF clusters FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        ],
        r"clusters is a partitioned table",
    ),
    "foreign table": (
        NAMED,
        [
            "DROP TABLE clusters",
            "CREATE FOREIGN DATA WRAPPER elsewhere",
            "CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere",
            "CREATE FOREIGN TABLE clusters (id bigint, client_id bigint) SERVER elsewhere",
        ],
        r"clusters is a foreign table",
    ),
    "inherited table": (
        NAMED,
        ["CREATE TABLE old_clusters () INHERITS (clusters)"],
        r"table clusters has child tables \(old_clusters\)",
    ),
    "view in place of a table": (
        NAMED,
        ["ALTER TABLE clusters RENAME TO groups", "CREATE VIEW clusters AS SELECT * FROM groups"],
        r"clusters is a view",
    ),
    "another primary key": (
        NAMED,
        ["ALTER TABLE clusters DROP CONSTRAINT clusters_pkey, ADD PRIMARY KEY (client_id, cluster_id)"],
        r"the primary key of table clusters is \(client_id, cluster_id\), not \(id\)",
    ),
    "no id": (
        NAMED,
        ["ALTER TABLE clusters DROP COLUMN id"],
        r"table clusters has no column id",
    ),
    "ids that are not numbers": (
        NAMED,
        [
            "ALTER TABLE clusters ALTER id DROP DEFAULT, ALTER id TYPE uuid USING md5(id::text)::uuid",
            "ALTER TABLE clusters ALTER id SET DEFAULT gen_random_uuid()",
        ],
        r"column clusters.id is uuid, and no conversion to bigint keeps every value",
    ),
    "trigger": (
        NAMED,
        [
            """CREATE TRIGGER touch BEFORE UPDATE ON clusters FOR EACH ROW
               EXECUTE FUNCTION suppress_redundant_updates_trigger()""",
        ],
        r"trigger touch on clusters can change or hide rows: if it is not needed, run DROP TRIGGER touch ON clusters",
    ),
    "row-level security": (
        NAMED,
        ["ALTER TABLE clusters ENABLE ROW LEVEL SECURITY"],
        r"table clusters has row-level security",
    ),
    "foreign key that another type breaks": (
        SERIAL,
        [
            "CREATE TABLE levels (name varchar(20) PRIMARY KEY)",
            "INSERT INTO levels VALUES ('high')",
            "ALTER TABLE anomaly_log ADD CONSTRAINT of_level FOREIGN KEY (severity) REFERENCES levels",
        ],
        r"foreign key of_level of anomaly_log to levels depends on the type of column anomaly_log.severity",
    ),
    "type that the application uses too": (
        "times_without_zone",
        ["CREATE TABLE alarms (severity anomaly_severity)"],
        r"type anomaly_severity has other labels, and column alarms.severity of the application also uses it",
    ),
    "extension out of reach": (
        NAMED,
        ["CREATE SCHEMA extensions", "ALTER EXTENSION vector SET SCHEMA extensions"],
        r"in schema extensions, which is not on the search_path",
    ),
}


def read_plan(database: Database, supplied: adoption.AdoptionInput | None = None) -> adoption.AdoptionPlan:
    with database.engine.connect() as connection:
        return adoption.plan(connection, supplied)


@pytest.mark.parametrize(("base", "statements", "reason"), NOT_ADOPTABLE.values(), ids=NOT_ADOPTABLE)
def test_adoption_fails_with_reason_and_changes_nothing(
    empty_database: Database, base: str, statements: list[str], reason: str
) -> None:
    create_legacy_database(empty_database, base)
    execute(empty_database, *statements)
    before = dump(empty_database)
    with pytest.raises(AdoptionNotPossible, match=reason):
        read_plan(empty_database)
    with pytest.raises(AdoptionNotPossible, match=reason):
        adoption.apply(empty_database.engine)
    assert dump(empty_database) == before


def test_command_failure_prints_one_line(empty_database: Database, tmp_path: Path) -> None:
    base, statements, _ = NOT_ADOPTABLE["view on a column that has to change"]
    create_legacy_database(empty_database, base)
    execute(empty_database, *statements)
    before = dump(empty_database)
    for arguments in ((), ("--apply",)):
        result = run_command("syntegra-db", "adopt", *arguments, url=empty_database.environment_url, cwd=tmp_path)
        assert (result.returncode, result.stderr.count("\n")) == (23, 1), result.stderr
        assert "view kpi_report" in result.stderr
    assert dump(empty_database) == before
    assert list(tmp_path.iterdir()) == []


def test_error_has_all_reasons(empty_database: Database) -> None:
    create_legacy_database(empty_database, NAMED)
    for name in ("trigger", "another primary key"):
        execute(empty_database, *NOT_ADOPTABLE[name][1])
    with pytest.raises(AdoptionNotPossible, match=r"the primary key of table clusters.*trigger touch on clusters"):
        read_plan(empty_database)


def test_adoption_by_other_role_names_the_owner(server: Server, empty_database: Database) -> None:
    create_legacy_database(empty_database, NAMED)
    before = dump(empty_database)
    with server.role("syntegra_test_guest") as guest:
        with empty_database.connect() as connection:
            owner = connection.info.user
        with pytest.raises(AdoptionNotPossible) as error:
            adoption.apply(unpooled_engine(empty_database.url_as(guest)))
        assert "role syntegra_test_guest cannot create objects in schema public" in str(error.value)
        assert f"does not own table clusters: run this as its owner, {owner}" in str(error.value)
    assert dump(empty_database) == before


def test_missing_privilege_for_extension_asks_administrator(server: Server, empty_database: Database) -> None:
    with server.role("syntegra_test_maker") as maker:
        execute(empty_database, f"GRANT CREATE ON SCHEMA public TO {maker}")
        role_database = Database(empty_database.url_as(maker))
        create_legacy_database(role_database, "half_run")
        before = dump(empty_database)
        with pytest.raises(ExtensionUnavailable, match=r"CREATE EXTENSION vector; Nothing was changed"):
            adoption.apply(role_database.engine, backup=False)
        assert dump(empty_database) == before
        execute(empty_database, "CREATE EXTENSION vector")
        assert adoption.apply(role_database.engine, backup=False).plan.revision == "003"
        execute(empty_database, f"DROP OWNED BY {maker}")


def test_database_without_managed_tables_has_nothing_to_adopt(empty_database: Database) -> None:
    execute(empty_database, "CREATE TABLE clients (id serial PRIMARY KEY)")
    with pytest.raises(AdoptionNotPossible, match=r"nothing to adopt.*syntegra-db upgrade"):
        read_plan(empty_database)


def test_newer_revision_is_reported_as_such(database: Database) -> None:
    execute(database, "UPDATE alembic_version SET version_num = '999'")
    with pytest.raises(DatabaseAhead, match="999"):
        read_plan(database)


def test_unknown_time_zone_is_rejected(empty_database: Database) -> None:
    create_legacy_database(empty_database, NAMED)
    with pytest.raises(AdoptionNotPossible, match="does not know the time zone Atlantis/Capital"):
        read_plan(empty_database, adoption.AdoptionInput(timezone="Atlantis/Capital"))
