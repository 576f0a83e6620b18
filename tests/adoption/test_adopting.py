"""Six databases that somebody made by hand become ours, and no row of them changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from support.legacy_databases import TABLES, Rows, create_legacy_database, execute, read_rows
from support.pg_dump import dump
from syntegra_db import adoption, migrations
from syntegra_db.catalog import DriftReport, verify
from syntegra_db.errors import AdoptionFailed
from syntegra_db.migrations import _lock

if TYPE_CHECKING:
    from support.servers import Database

SOURCE_CLIENT = "(SELECT coalesce(s.client_id, 2) FROM data_sources AS s WHERE s.id = processed_data.source_id)"
MADRID = ZoneInfo("Europe/Madrid")


@dataclass(frozen=True)
class Handmade:
    """A file of `databases/`, the revision that it is near, and what a person has to say of it."""

    name: str
    revision: str = "003"
    values: dict[str, str] = field(default_factory=dict)
    timezone: str | None = None

    @property
    def answers(self) -> adoption.AdoptionInput:
        return adoption.AdoptionInput(self.values, self.timezone)


SIX = [
    Handmade("serial_ids"),
    Handmade(
        "times_without_zone",
        values={
            "processed_data.client_id": "7",
            "data_sources.status": "idle",
            "data_sources.updated_at": "created_at",
            "data_sources.config_json": "'{}'",
        },
        timezone="Europe/Madrid",
    ),
    Handmade("shared"),
    Handmade(
        "first_two",
        revision="002",
        values={
            "data_sources.client_id": "2",
            "processed_data.client_id": SOURCE_CLIENT,
            "processed_data.source_type": "service",
        },
    ),
    Handmade("half_run"),
    Handmade("other_names"),
]
each = pytest.mark.parametrize("handmade", SIX, ids=lambda handmade: handmade.name)


def adopt(database: Database, handmade: Handmade) -> adoption.AdoptionResult:
    return adoption.apply(database.url, handmade.answers, backup=False)


def look(database: Database) -> DriftReport:
    with database.engine.connect() as connection:
        return verify(connection)


def look_at_plan(database: Database, answers: adoption.AdoptionInput | None = None) -> adoption.AdoptionPlan:
    with database.engine.connect() as connection:
        return adoption.plan(connection, answers)


def assert_same(before: Rows, after: Rows, filled: dict[str, str]) -> None:
    for (table, column), values in before.items():
        there = after[table, column]
        assert there.keys() == values.keys(), (table, column)
        given = f"{table}.{column}" in filled
        changed = {id_: (value, there[id_]) for id_, value in values.items() if value != there[id_]}
        assert not {id_: pair for id_, pair in changed.items() if not (given and pair[0] is None)}, (table, column)


@each
def test_it_becomes_its_revision_and_no_row_changes(empty_database: Database, handmade: Handmade) -> None:
    create_legacy_database(empty_database, handmade.name)
    before = read_rows(empty_database, MADRID)
    assert before
    adopted = adopt(empty_database, handmade)
    assert adopted.plan.revision == handmade.revision
    assert (look(empty_database).revision, look(empty_database).findings) == (handmade.revision, [])
    assert_same(before, read_rows(empty_database, MADRID), handmade.values)
    assert set(adopted.rows) == {table for table, _ in before}


@each
def test_every_table_of_it_held_rows(empty_database: Database, handmade: Handmade) -> None:
    create_legacy_database(empty_database, handmade.name)
    there = {name for (name,) in empty_database.query("SELECT relname FROM pg_class WHERE relkind = 'r'")}
    assert {table for table, _ in read_rows(empty_database, MADRID)} == there & set(TABLES)


@each
def test_a_second_time_there_is_nothing_to_do(empty_database: Database, handmade: Handmade) -> None:
    create_legacy_database(empty_database, handmade.name)
    adopt(empty_database, handmade)
    adopted = dump(empty_database)
    assert look_at_plan(empty_database).is_empty
    assert adoption.apply(empty_database.url).rows == {}
    assert dump(empty_database) == adopted


@each
def test_a_plan_changes_nothing(empty_database: Database, handmade: Handmade) -> None:
    create_legacy_database(empty_database, handmade.name)
    before = dump(empty_database)
    with empty_database.engine.connect() as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        plan = adoption.plan(connection, handmade.answers)
        assert connection.exec_driver_sql("SHOW TimeZone").scalar_one() != "Europe/Madrid"
        connection.commit()
    assert (plan.is_empty, plan.open_questions) == (False, ())
    assert dump(empty_database) == before


@each
def test_services_write_and_the_next_revision_comes(empty_database: Database, handmade: Handmade) -> None:
    create_legacy_database(empty_database, handmade.name)
    adopt(empty_database, handmade)
    greatest = empty_database.query("SELECT max(id) FROM processed_data")[0][0]
    execute(
        empty_database,
        "INSERT INTO processed_data (client_id, source_id, source_type, data) "
        "SELECT client_id, id, 'retail', '{}' FROM data_sources LIMIT 1",
    )
    assert empty_database.query("SELECT max(id) FROM processed_data")[0][0] > greatest
    assert migrations.upgrade("head", empty_database.url) == "003"
    assert look(empty_database).findings == []


def test_ids_that_were_given_out_and_deleted_do_not_come_back(empty_database: Database) -> None:
    """The sequence, the identity and the shared sequence stood behind rows that are no longer there."""
    for name, given_out in (("serial_ids", 30), ("times_without_zone", 12)):
        execute(empty_database, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
        create_legacy_database(empty_database, name)
        adopt(empty_database, next(handmade for handmade in SIX if handmade.name == name))
        execute(empty_database, "INSERT INTO data_sources (client_id, name, type) VALUES (1, 'new', 'simple_csv')")
        assert empty_database.query("SELECT max(id) FROM data_sources") == [(given_out + 1,)]


def test_what_the_application_has_stays(empty_database: Database) -> None:
    create_legacy_database(empty_database, "shared")
    theirs = """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint
        WHERE conname LIKE 'priority%' OR conrelid IN ('alerts'::regclass, 'clients'::regclass, 'users'::regclass)
           OR confrelid IN ('clients'::regclass, 'users'::regclass) ORDER BY 1, 2
    """
    before = empty_database.query(theirs)
    adopt(empty_database, SIX[2])
    assert empty_database.query(theirs) == before
    assert empty_database.query("SELECT indexdef FROM pg_indexes WHERE indexname = 'data_sources_by_name'")
    notes = {note.object for note in look(empty_database).notes}
    assert {
        "column processed_data.priority",
        "constraint priority_range on processed_data",
        "constraint processed_client on processed_data",
        "column data_sources.created_by",
    } <= notes
    execute(empty_database, "DELETE FROM anomaly_log WHERE id = 1")
    assert empty_database.query("SELECT count(*) FROM alerts WHERE anomaly_id = 1") == [(0,)]


def test_indexes_that_are_equal_are_renamed_and_not_built_again(empty_database: Database) -> None:
    create_legacy_database(empty_database, "other_names")
    before = empty_database.query("SELECT 'kpi_lookup'::regclass::oid, pg_relation_filenode('kpi_lookup')")
    adopt(empty_database, SIX[5])
    name = "idx_kpi_summary_client_kpi_period"
    assert empty_database.query(f"SELECT '{name}'::regclass::oid, pg_relation_filenode('{name}')") == before
    assert empty_database.query("SELECT count(*) FROM pg_indexes WHERE indexname = 'processed_recent'") == [(1,)]


def test_moments_in_utc_are_not_written_again(empty_database: Database) -> None:
    execute(
        empty_database,
        "CREATE TABLE data_sources (id bigserial PRIMARY KEY, client_id bigint NOT NULL, name varchar(255) NOT NULL, "
        "type varchar(50) NOT NULL, created_at timestamp NOT NULL DEFAULT now())",
        "INSERT INTO data_sources (client_id, name, type) VALUES (1, 'till', 'simple_csv')",
    )
    before = empty_database.query("SELECT pg_relation_filenode('data_sources')")
    assert look_at_plan(empty_database, adoption.AdoptionInput({}, "UTC")).rewrites == ()
    adoption.apply(empty_database.url, adoption.AdoptionInput({}, "UTC"), backup=False)
    assert empty_database.query("SELECT pg_relation_filenode('data_sources')") == before
    assert look(empty_database).findings == []


def test_a_conversion_that_changes_a_value_is_taken_back(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from syntegra_db.adoption import _conversions

    def careless(old: str, new: str) -> _conversions.Conversion:
        return _conversions.Conversion(using=f"({{}})::{new} * 1.0000001", before=f"({{}})::{old}::text")

    create_legacy_database(empty_database, "serial_ids")
    before = dump(empty_database)
    monkeypatch.setattr(_conversions, "_to_number", careless)
    with pytest.raises(
        AdoptionFailed, match=r"Values of anomaly_log would have changed in value, .*Nothing was changed"
    ):
        adopt(empty_database, SIX[0])
    assert dump(empty_database) == before


def test_rows_that_a_statement_loses_are_noticed(empty_database: Database) -> None:
    create_legacy_database(empty_database, "half_run")
    before = dump(empty_database)
    execute(
        empty_database,
        "CREATE FUNCTION lose() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN DELETE FROM trend_signals; END$$",
        "CREATE EVENT TRIGGER lose ON ddl_command_end WHEN TAG IN ('CREATE EXTENSION') EXECUTE FUNCTION lose()",
    )
    with pytest.raises(AdoptionFailed, match="Table trend_signals had 1 rows and would have 0"):
        adopt(empty_database, SIX[4])
    execute(empty_database, "DROP EVENT TRIGGER lose", "DROP FUNCTION lose")
    assert dump(empty_database) == before


def test_the_lock_of_migrators_is_given_back(empty_database: Database) -> None:
    create_legacy_database(empty_database, "half_run")
    adopt(empty_database, SIX[4])
    key = _lock.lock_key("alembic_version", "public")
    with empty_database.connect() as connection:
        assert connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone() == (True,)
