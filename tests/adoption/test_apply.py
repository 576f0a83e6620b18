"""Adoption of six databases whose tables were created outside migrations: no row changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from support.legacy_databases import TABLES, Rows, create_legacy_database, execute, read_rows
from support.pg_dump import dump
from support.revisions import HEAD
from syntegra_db import adoption, migrations
from syntegra_db.adoption import _apply
from syntegra_db.backup import dump_database
from syntegra_db.catalog import DriftReport, verify
from syntegra_db.errors import AdoptionFailed
from syntegra_db.migrations import _lock

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from support.servers import Database

SOURCE_CLIENT = "(SELECT coalesce(s.client_id, 2) FROM data_sources AS s WHERE s.id = processed_data.source_id)"
MADRID = ZoneInfo("Europe/Madrid")


@dataclass(frozen=True)
class LegacyDatabase:
    """A file of `databases/`, the revision that it is closest to, and the input that it needs."""

    name: str
    revision: str = "003"
    values: dict[str, str] = field(default_factory=dict)
    timezone: str | None = None

    @property
    def supplied(self) -> adoption.AdoptionInput:
        return adoption.AdoptionInput(self.values, self.timezone)


LEGACY = [
    LegacyDatabase("serial_ids"),
    LegacyDatabase(
        "times_without_zone",
        values={
            "processed_data.client_id": "7",
            "data_sources.status": "idle",
            "data_sources.updated_at": "created_at",
            "data_sources.config_json": "'{}'",
        },
        timezone="Europe/Madrid",
    ),
    LegacyDatabase("shared"),
    LegacyDatabase(
        "first_two",
        revision="002",
        values={
            "data_sources.client_id": "2",
            "processed_data.client_id": SOURCE_CLIENT,
            "processed_data.source_type": "service",
        },
    ),
    LegacyDatabase("half_run"),
    LegacyDatabase("other_names"),
]
every_database = pytest.mark.parametrize("legacy", LEGACY, ids=lambda legacy: legacy.name)


def adopt(database: Database, legacy: LegacyDatabase) -> adoption.AdoptionResult:
    return adoption.apply(database.engine, legacy.supplied, backup=False)


def read_drift(database: Database) -> DriftReport:
    with database.engine.connect() as connection:
        return verify(connection)


def read_plan(database: Database, supplied: adoption.AdoptionInput | None = None) -> adoption.AdoptionPlan:
    with database.engine.connect() as connection:
        return adoption.plan(connection, supplied)


def assert_same(before: Rows, after: Rows, supplied: dict[str, str]) -> None:
    for (table, column), values in before.items():
        found = after[table, column]
        assert found.keys() == values.keys(), (table, column)
        is_supplied = f"{table}.{column}" in supplied
        changed = {id_: (value, found[id_]) for id_, value in values.items() if value != found[id_]}
        assert not {id_: pair for id_, pair in changed.items() if not (is_supplied and pair[0] is None)}, (
            table,
            column,
        )


@every_database
def test_adoption_reaches_revision_and_changes_no_row(empty_database: Database, legacy: LegacyDatabase) -> None:
    create_legacy_database(empty_database, legacy.name)
    before = read_rows(empty_database, MADRID)
    assert before
    adopted = adopt(empty_database, legacy)
    assert adopted.plan.revision == legacy.revision
    assert (read_drift(empty_database).revision, read_drift(empty_database).findings) == (legacy.revision, [])
    assert_same(before, read_rows(empty_database, MADRID), legacy.values)
    assert set(adopted.rows) == {table for table, _ in before}


@every_database
def test_legacy_database_has_rows_in_every_table(empty_database: Database, legacy: LegacyDatabase) -> None:
    create_legacy_database(empty_database, legacy.name)
    installed = {name for (name,) in empty_database.query("SELECT relname FROM pg_class WHERE relkind = 'r'")}
    assert {table for table, _ in read_rows(empty_database, MADRID)} == installed & set(TABLES)


@every_database
def test_second_adoption_has_nothing_to_do(empty_database: Database, legacy: LegacyDatabase) -> None:
    create_legacy_database(empty_database, legacy.name)
    adopt(empty_database, legacy)
    adopted = dump(empty_database)
    assert read_plan(empty_database).is_empty
    assert adoption.apply(empty_database.engine).rows == {}
    assert dump(empty_database) == adopted


@every_database
def test_plan_changes_nothing(empty_database: Database, legacy: LegacyDatabase) -> None:
    create_legacy_database(empty_database, legacy.name)
    before = dump(empty_database)
    with empty_database.engine.connect() as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        plan = adoption.plan(connection, legacy.supplied)
        assert connection.exec_driver_sql("SHOW TimeZone").scalar_one() != "Europe/Madrid"
        connection.commit()
    assert (plan.is_empty, plan.open_questions) == (False, ())
    assert dump(empty_database) == before


@every_database
def test_adopted_database_accepts_rows_and_upgrades(empty_database: Database, legacy: LegacyDatabase) -> None:
    create_legacy_database(empty_database, legacy.name)
    adopt(empty_database, legacy)
    greatest = empty_database.query("SELECT max(id) FROM processed_data")[0][0]
    execute(
        empty_database,
        "INSERT INTO processed_data (client_id, source_id, source_type, data) "
        "SELECT client_id, id, 'retail', '{}' FROM data_sources LIMIT 1",
    )
    assert empty_database.query("SELECT max(id) FROM processed_data")[0][0] > greatest
    assert migrations.upgrade("head", empty_database.url) == HEAD
    assert read_drift(empty_database).findings == []


def test_ids_of_deleted_rows_are_not_reused(empty_database: Database) -> None:
    """The sequence, the identity and the shared sequence are past the ids of deleted rows."""
    for name, last_id in (("serial_ids", 30), ("times_without_zone", 12)):
        execute(empty_database, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
        create_legacy_database(empty_database, name)
        adopt(empty_database, next(legacy for legacy in LEGACY if legacy.name == name))
        execute(empty_database, "INSERT INTO data_sources (client_id, name, type) VALUES (1, 'new', 'simple_csv')")
        assert empty_database.query("SELECT max(id) FROM data_sources") == [(last_id + 1,)]


def test_objects_of_the_application_are_kept(empty_database: Database) -> None:
    create_legacy_database(empty_database, "shared")
    constraints = """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint
        WHERE conname LIKE 'priority%' OR conrelid IN ('alerts'::regclass, 'clients'::regclass, 'users'::regclass)
           OR confrelid IN ('clients'::regclass, 'users'::regclass) ORDER BY 1, 2
    """
    before = empty_database.query(constraints)
    adopt(empty_database, LEGACY[2])
    assert empty_database.query(constraints) == before
    assert empty_database.query("SELECT indexdef FROM pg_indexes WHERE indexname = 'data_sources_by_name'")
    notes = {note.object for note in read_drift(empty_database).notes}
    assert {
        "column processed_data.priority",
        "constraint priority_range on processed_data",
        "constraint processed_client on processed_data",
        "column data_sources.created_by",
    } <= notes
    execute(empty_database, "DELETE FROM anomaly_log WHERE id = 1")
    assert empty_database.query("SELECT count(*) FROM alerts WHERE anomaly_id = 1") == [(0,)]


def test_equal_indexes_are_renamed_not_rebuilt(empty_database: Database) -> None:
    create_legacy_database(empty_database, "other_names")
    before = empty_database.query("SELECT 'kpi_lookup'::regclass::oid, pg_relation_filenode('kpi_lookup')")
    adopt(empty_database, LEGACY[5])
    name = "idx_kpi_summary_client_kpi_period"
    assert empty_database.query(f"SELECT '{name}'::regclass::oid, pg_relation_filenode('{name}')") == before
    assert empty_database.query("SELECT count(*) FROM pg_indexes WHERE indexname = 'processed_recent'") == [(1,)]


def test_naive_timestamps_in_utc_are_not_rewritten(empty_database: Database) -> None:
    execute(
        empty_database,
        "CREATE TABLE data_sources (id bigserial PRIMARY KEY, client_id bigint NOT NULL, name varchar(255) NOT NULL, "
        "type varchar(50) NOT NULL, created_at timestamp NOT NULL DEFAULT now())",
        "INSERT INTO data_sources (client_id, name, type) VALUES (1, 'till', 'simple_csv')",
    )
    before = empty_database.query("SELECT pg_relation_filenode('data_sources')")
    assert read_plan(empty_database, adoption.AdoptionInput({}, "UTC")).rewrites == ()
    adoption.apply(empty_database.engine, adoption.AdoptionInput({}, "UTC"), backup=False)
    assert empty_database.query("SELECT pg_relation_filenode('data_sources')") == before
    assert read_drift(empty_database).findings == []


def test_conversion_that_changes_values_is_rolled_back(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from syntegra_db.catalog import conversions

    def careless(old: str, new: str) -> conversions.Conversion:
        return conversions.Conversion(using=f"({{}})::{new} * 1.0000001", before=f"({{}})::{old}::text")

    create_legacy_database(empty_database, "serial_ids")
    before = dump(empty_database)
    monkeypatch.setattr(conversions, "_to_number", careless)
    with pytest.raises(
        AdoptionFailed, match=r"Values of anomaly_log would have changed in value, .*Nothing was changed"
    ):
        adopt(empty_database, LEGACY[0])
    assert dump(empty_database) == before


def test_adoption_that_deletes_rows_is_rolled_back(empty_database: Database) -> None:
    create_legacy_database(empty_database, "half_run")
    before = dump(empty_database)
    execute(
        empty_database,
        "CREATE FUNCTION lose() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN DELETE FROM trend_signals; END$$",
        "CREATE EVENT TRIGGER lose ON ddl_command_end WHEN TAG IN ('CREATE EXTENSION') EXECUTE FUNCTION lose()",
    )
    with pytest.raises(AdoptionFailed, match="Table trend_signals had 1 row and would have 0"):
        adopt(empty_database, LEGACY[4])
    execute(empty_database, "DROP EVENT TRIGGER lose", "DROP FUNCTION lose")
    assert dump(empty_database) == before


def test_migration_lock_is_released(empty_database: Database) -> None:
    create_legacy_database(empty_database, "half_run")
    adopt(empty_database, LEGACY[4])
    key = _lock.lock_key("alembic_version", "public")
    with empty_database.connect() as connection:
        assert connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone() == (True,)


def test_adoption_plans_before_backup_and_under_table_locks(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_legacy_database(empty_database, "half_run")
    steps = []
    plan = adoption.plan

    def record_plan(connection: Connection, supplied: adoption.AdoptionInput) -> adoption.AdoptionPlan:
        locks = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND pid = pg_backend_pid()"
        steps.append("plan under locks" if connection.exec_driver_sql(locks).scalar_one() else "plan")
        return plan(connection, supplied)

    def record_backup(connection: Connection) -> Path:
        steps.append("backup")
        return dump_database(connection)

    monkeypatch.setattr(_apply, "plan", record_plan)
    monkeypatch.setattr(_apply, "dump_database", record_backup)
    adoption.apply(empty_database.engine)
    assert steps == ["plan", "backup", "plan under locks"]


def test_table_created_during_backup_stops_adoption(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    create_legacy_database(empty_database, "half_run")
    before = empty_database.query("SELECT version_num FROM alembic_version")

    def create_table(_: Connection) -> Path:
        execute(empty_database, "CREATE TABLE clusters (id bigserial PRIMARY KEY)")
        return Path("backups/x.pgdump")

    monkeypatch.setattr(_apply, "dump_database", create_table)
    with pytest.raises(AdoptionFailed, match="created or dropped during the backup"):
        adoption.apply(empty_database.engine)
    assert empty_database.query("SELECT version_num FROM alembic_version") == before
