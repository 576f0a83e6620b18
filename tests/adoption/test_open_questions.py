"""Questions that only a person can decide, with their rows; and the values that are supplied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.drift import drift_report
from support.legacy_databases import create_legacy_database, execute
from support.pg_dump import dump
from syntegra_db import adoption
from syntegra_db.catalog.conversions import find_conversion
from syntegra_db.errors import DecisionRequired

if TYPE_CHECKING:
    from support.servers import Database

NO_CLIENT = "column processed_data.client_id"


def open_questions(database: Database, **supplied: str) -> dict[str, adoption.OpenQuestion]:
    timezone = supplied.pop("timezone", None)
    values = {name.replace("__", "."): value for name, value in supplied.items()}
    with database.engine.connect() as connection:
        found = adoption.plan(connection, adoption.AdoptionInput(values, timezone)).open_questions
    return {question.object: question for question in found}


def test_missing_required_column_is_asked_for(empty_database: Database) -> None:
    create_legacy_database(empty_database, "first_two")
    found = open_questions(empty_database)
    assert (found[NO_CLIENT].count, found[NO_CLIENT].ids) == (9, (10, 11, 12, 13, 14, 15, 16, 17, 18))
    assert "--set processed_data.client_id=VALUE" in found[NO_CLIENT].advice
    assert found["column data_sources.client_id"].ids == (5,)
    before = dump(empty_database)
    with pytest.raises(
        DecisionRequired, match=r"processed_data.client_id is required but missing \(9 rows, id 10, 11,"
    ):
        adoption.apply(empty_database.engine)
    assert dump(empty_database) == before


def test_supplied_value_that_is_null_is_asked_for(empty_database: Database) -> None:
    create_legacy_database(empty_database, "first_two")
    found = open_questions(empty_database, processed_data__client_id="nullif(source_id, 3)")
    assert (found[NO_CLIENT].count, found[NO_CLIENT].ids) == (1, (12,))


def test_missing_column_of_empty_table_needs_no_value(empty_database: Database) -> None:
    create_legacy_database(empty_database, "first_two")
    execute(empty_database, "DELETE FROM processed_data")
    assert NO_CLIENT not in open_questions(empty_database)


def test_values_that_are_no_label_are_listed_by_id(empty_database: Database) -> None:
    create_legacy_database(empty_database, "serial_ids")
    execute(empty_database, "UPDATE anomaly_log SET severity = 'fatal' WHERE id <= 12")
    found = open_questions(empty_database)["column anomaly_log.severity"]
    assert (found.count, found.ids) == (12, tuple(range(1, 11)))
    assert "none of low, medium, high, critical" in found.reason
    assert "fatal" not in f"{found}"


def test_check_violations_are_listed(empty_database: Database) -> None:
    create_legacy_database(empty_database, "serial_ids")
    execute(
        empty_database,
        "UPDATE kpi_summary SET kpi_value = 'NaN' WHERE id = 3",
        "UPDATE clusters SET distance_to_centroid = -1 WHERE id IN (4, 5)",
    )
    found = open_questions(empty_database)
    assert found["constraint ck_kpi_summary_kpi_value_finite on kpi_summary"].ids == (3,)
    assert found["constraint ck_clusters_distance_not_negative on clusters"].ids == (4, 5)


def test_references_to_missing_or_foreign_source_are_listed(empty_database: Database) -> None:
    create_legacy_database(empty_database, "half_run")
    execute(
        empty_database,
        "ALTER TABLE kpi_summary ALTER source_id TYPE integer",
        "UPDATE kpi_summary SET source_id = 2 WHERE id = 1",
        "UPDATE kpi_summary SET source_id = 77 WHERE id = 50",
    )
    assert open_questions(empty_database)["constraint fk_kpi_summary_source on kpi_summary"].ids == (1, 50)


def test_duplicate_ids_are_listed(empty_database: Database) -> None:
    create_legacy_database(empty_database, "first_two")
    execute(empty_database, "INSERT INTO processed_data (id, data) VALUES (10, '{}')")
    found = open_questions(empty_database)["constraint pk_processed_data on processed_data"]
    assert (found.count, found.ids) == (2, (10, 10))


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE data_sources SET config_json = '{path}' WHERE id = 2", "column data_sources.config_json"),
        (
            """ALTER TABLE data_sources ALTER name TYPE text;
               UPDATE data_sources SET name = repeat('a', 256) WHERE id = 2""",
            "column data_sources.name",
        ),
        (
            """ALTER TABLE data_sources ALTER created_at TYPE timestamp;
               UPDATE data_sources SET created_at = '2024-03-31 02:30' WHERE id = 2""",
            "column data_sources.created_at",
        ),
    ],
    ids=["invalid JSON", "too long", "nonexistent time"],
)
def test_unconvertible_values_are_listed(empty_database: Database, statement: str, named: str) -> None:
    create_legacy_database(empty_database, "first_two")
    execute(
        empty_database,
        "ALTER TABLE data_sources ADD created_at timestamptz NOT NULL DEFAULT '2024-01-01'",
        *statement.split(";"),
    )
    found = open_questions(empty_database, timezone="Europe/Madrid", data_sources__client_id="2")
    assert found[named].ids[:1] == (2,)


def test_digits_beyond_double_precision_are_listed(empty_database: Database) -> None:
    create_legacy_database(empty_database, "serial_ids")
    execute(empty_database, "UPDATE anomaly_log SET deviation = 0.12345678901234567891 WHERE id = 6")
    assert open_questions(empty_database)["column anomaly_log.deviation"].ids == (6,)


NOT_NULL_VALUE = "CHECK (VALUE IS NOT NULL) NOT VALID"
REFERENCES_NAMES = "FOREIGN KEY (cluster_id) REFERENCES names NOT VALID"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE UNIQUE INDEX once ON clusters (client_id, cluster_id)",
        "ALTER TABLE clusters ADD CONSTRAINT once UNIQUE (client_id, cluster_id)",
        "ALTER TABLE clusters ADD CONSTRAINT once CHECK (cluster_id < 1000)",
        "ALTER TABLE clusters ADD CONSTRAINT once CHECK (false) NOT VALID",
        "ALTER TABLE clusters ADD code text, ADD CONSTRAINT once CHECK (code IS NOT NULL) NOT VALID",
        "CREATE INDEX once ON clusters ((1 / cluster_id))",
        f"CREATE TABLE names (id bigint PRIMARY KEY); ALTER TABLE clusters ADD CONSTRAINT once {REFERENCES_NAMES}",
        f"CREATE DOMAIN word AS text; ALTER TABLE clusters ADD once word; ALTER DOMAIN word ADD {NOT_NULL_VALUE}",
    ],
    ids=[
        "unique index",
        "unique constraint",
        "check",
        "check of no column",
        "check of a column",
        "index",
        "key",
        "domain",
    ],
)
def test_constraint_that_rejects_valid_rows_is_asked_about(empty_database: Database, statement: str) -> None:
    create_legacy_database(empty_database, "other_names")
    execute(empty_database, *statement.split(";"))
    (question,) = open_questions(empty_database).values()
    assert "once" in question.object
    assert question.reason.endswith(" rejects rows that the models write")
    assert ("DROP" if "domain" not in statement.lower() else "TYPE text") in question.advice
    execute(empty_database, question.advice.removeprefix("If it is not needed: "))
    assert open_questions(empty_database) == {}


def test_keys_of_an_application_that_accept_each_insert_are_kept(empty_database: Database) -> None:
    create_legacy_database(empty_database, "other_names")
    execute(
        empty_database,
        "ALTER TABLE clusters ADD code text UNIQUE, ADD parent bigint, ADD label text",
        "ALTER TABLE clusters ADD CONSTRAINT app_parent FOREIGN KEY (parent) REFERENCES clusters",
        "CREATE UNIQUE INDEX app_label ON clusters (client_id, lower(label))",
    )
    assert open_questions(empty_database) == {}
    adoption.apply(empty_database.engine)
    report = drift_report(empty_database)
    assert report.findings == []
    assert {"constraint app_parent on clusters", "constraint clusters_code_key on clusters", "index app_label"} <= {
        note.object for note in report.notes
    }


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("service", "service"),
        ("2024-01-15", "2024-01-15"),
        ("'it''s'", "it's"),
        ("data::text", '{"total": 9.90}'),
        ("CASE WHEN id > 10 THEN 'a:b' ELSE '100 %' END", "a:b"),
        ("substr('x' || id, 1, 2)", "x1"),
    ],
)
def test_supplied_value_is_constant_or_expression(empty_database: Database, value: str, stored: str) -> None:
    create_legacy_database(empty_database, "first_two")
    values = {
        "data_sources.client_id": "2",
        "processed_data.client_id": "2",
        "processed_data.source_type": value,
    }
    execute(
        empty_database,
        "UPDATE data_sources SET client_id = 2",
        "DELETE FROM processed_data WHERE source_type IS NOT NULL OR id < 14",
    )
    adoption.apply(empty_database.engine, adoption.AdoptionInput(values), backup=False)
    assert set(empty_database.query("SELECT source_type FROM processed_data")) == {(stored,)}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("processed_data.client_id", "seven(", "neither a value of type bigint nor an SQL expression"),
        ("processed_data.client_id", "'x'", "neither a value of type bigint nor an SQL expression"),
        ("processed_data.colour", "1", "no such column of revision 002"),
        ("clients.id", "1", "no such column of revision 002"),
        ("processed_data.source_id", "1", "is nullable"),
    ],
)
def test_invalid_value_is_rejected(empty_database: Database, name: str, value: str, reason: str) -> None:
    create_legacy_database(empty_database, "first_two")
    with empty_database.engine.connect() as connection, pytest.raises(DecisionRequired, match=reason):
        adoption.plan(connection, adoption.AdoptionInput({name: value}))


def test_assignments_are_parsed() -> None:
    assert adoption.parse_assignments(["a.b=7", "a.c=x = 'y'"]) == {"a.b": "7", "a.c": "x = 'y'"}
    for invalid in ("a.b", "a.b=", "b=7"):
        with pytest.raises(ValueError, match=r"TABLE\.COLUMN=VALUE"):
            adoption.parse_assignments([invalid])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("uuid", "bigint"),
        ("numeric", "bigint"),
        ("double precision[]", "vector(384)"),
        ("integer", "jsonb"),
        ("boolean", "character varying(50)"),
        ("text", "timestamp with time zone"),
        ("integer", "level"),
    ],
)
def test_lossy_conversion_is_not_offered(found: str, expected: str) -> None:
    assert find_conversion(found, expected, {"level": ("low", "high")}, "UTC") is None
