"""Every CHECK, default and ON DELETE, tested with statements on the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database

PERIOD = {"period_start": "2026-01-01Z", "period_end": "2026-02-01Z"}
ROWS: dict[str, dict[str, Any]] = {
    "data_sources": {"client_id": 1, "name": "till", "type": "simple_csv"},
    "processed_data": {"client_id": 1, "source_type": "retail", "data": "{}"},
    "kpi_summary": {"client_id": 1, "kpi_name": "avg_ticket", "kpi_value": "12.5", **PERIOD},
    "text_summary": {"client_id": 1, "text_field": "muy bien"},
    "trend_signals": {"sector": "retail", "term": "lino", **PERIOD},
    "clusters": {"client_id": 1, "cluster_id": 0, "features_json": "{}"},
    "anomaly_log": {"client_id": 1, "kpi_name": "orders", "value": "3"},
}
WITH_SOURCE = ("processed_data", "kpi_summary", "text_summary", "anomaly_log")


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with database.connect() as connection:
        yield connection


def insert(connection: psycopg.Connection[Any], table: str, **values: Any) -> dict[str, Any]:
    """Insert the table's minimal row, updated with `values`, and return the stored row."""
    row = {**ROWS[table], **values}
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING *").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(map(sql.Placeholder, row)),
    )
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        stored = cursor.execute(statement, row).fetchone()
    assert stored is not None
    return stored


@pytest.mark.parametrize(
    ("table", "constraint", "values"),
    [
        ("kpi_summary", "ck_kpi_summary_kpi_value_finite", {"kpi_value": "NaN"}),
        ("kpi_summary", "ck_kpi_summary_kpi_value_finite", {"kpi_value": "Infinity"}),
        ("kpi_summary", "ck_kpi_summary_kpi_value_finite", {"kpi_value": "-Infinity"}),
        ("kpi_summary", "ck_kpi_summary_period_order", {"period_end": "2025-12-31Z"}),
        ("trend_signals", "ck_trend_signals_period_order", {"period_end": "2025-12-31Z"}),
        ("trend_signals", "ck_trend_signals_frequency_not_negative", {"frequency": -1}),
        ("clusters", "ck_clusters_distance_not_negative", {"distance_to_centroid": -0.1}),
        ("clusters", "ck_clusters_silhouette_range", {"silhouette_score": 1.01}),
        ("clusters", "ck_clusters_silhouette_range", {"silhouette_score": -1.01}),
        ("clusters", "ck_clusters_silhouette_range", {"silhouette_score": "NaN"}),
        ("anomaly_log", "ck_anomaly_log_value_finite", {"value": "NaN"}),
        ("anomaly_log", "ck_anomaly_log_value_finite", {"value": "Infinity"}),
        ("anomaly_log", "ck_anomaly_log_expected_value_finite", {"expected_value": "NaN"}),
        ("anomaly_log", "ck_anomaly_log_expected_value_finite", {"expected_value": "-Infinity"}),
    ],
)
def test_check_rejects_violating_row(
    connection: psycopg.Connection[Any], table: str, constraint: str, values: dict[str, Any]
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as rejected:
        insert(connection, table, **values)
    assert rejected.value.diag.constraint_name == constraint


def test_checks_accept_boundary_values(connection: psycopg.Connection[Any]) -> None:
    insert(connection, "kpi_summary", period_end=PERIOD["period_start"])
    insert(connection, "trend_signals", period_end=PERIOD["period_start"], frequency=0)
    insert(connection, "clusters", distance_to_centroid=0, silhouette_score=1)
    insert(connection, "clusters", silhouette_score=-1)
    insert(connection, "anomaly_log", expected_value=None)


def test_every_check_is_tested(connection: psycopg.Connection[Any]) -> None:
    names = {
        name
        for (name,) in connection.execute(
            "SELECT conname FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace"
        )
    }
    tested = {case[1] for case in test_check_rejects_violating_row.pytestmark[0].args[1]}
    assert names == tested


@pytest.mark.parametrize(
    ("table", "defaults"),
    [
        ("data_sources", {"config_json": {}, "status": "idle", "last_run_at": None}),
        ("processed_data", {"source_id": None}),
        ("kpi_summary", {"source_id": None, "metadata": None}),
        ("text_summary", {"language": "es", "sentiment": None, "keywords": None, "embedding": None}),
        ("trend_signals", {"frequency": 0, "status": "stable", "delta_pct": None, "metadata": None}),
        ("clusters", {"cluster_name": None, "centroid": None, "silhouette_score": None}),
        ("anomaly_log", {"severity": "medium", "expected_value": None, "reason": None, "method": None}),
    ],
)
def test_missing_values_get_defaults(connection: psycopg.Connection[Any], table: str, defaults: dict[str, Any]) -> None:
    with connection.transaction():
        row = insert(connection, table)
        ((now,),) = connection.execute("SELECT now()").fetchall()
    assert {name: row[name] for name in defaults} == defaults
    timestamps = row.keys() & {"created_at", "updated_at", "calculated_at", "detected_at"}
    assert timestamps
    assert {row[name] for name in timestamps} == {now}


@pytest.mark.parametrize("table", ROWS)
def test_required_columns_reject_null(connection: psycopg.Connection[Any], table: str) -> None:
    for column in ROWS[table]:
        with pytest.raises(psycopg.errors.NotNullViolation):
            insert(connection, table, **{column: None})


@pytest.mark.parametrize("table", WITH_SOURCE)
def test_deleted_data_source_sets_only_source_id_to_null(connection: psycopg.Connection[Any], table: str) -> None:
    source = insert(connection, "data_sources")
    row = insert(connection, table, source_id=source["id"])
    connection.execute("DELETE FROM data_sources")
    remaining = connection.execute(
        sql.SQL("SELECT id, client_id, source_id FROM {}").format(sql.Identifier(table))
    ).fetchall()
    assert remaining == [(row["id"], row["client_id"], None)]


@pytest.mark.parametrize("table", WITH_SOURCE)
def test_data_source_of_another_client_is_rejected(connection: psycopg.Connection[Any], table: str) -> None:
    source = insert(connection, "data_sources", client_id=2)
    with pytest.raises(psycopg.errors.ForeignKeyViolation) as rejected:
        insert(connection, table, source_id=source["id"])
    assert rejected.value.diag.constraint_name == f"fk_{table}_source"


def test_enum_labels_are_ordered_and_fixed(connection: psycopg.Connection[Any]) -> None:
    for severity in ("critical", "low", "high", "medium"):
        insert(connection, "anomaly_log", severity=severity)
    worst = connection.execute("SELECT severity FROM anomaly_log WHERE severity >= 'high' ORDER BY severity").fetchall()
    assert worst == [("high",), ("critical",)]
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        insert(connection, "anomaly_log", severity="HIGH")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        insert(connection, "trend_signals", status="rising")


def test_embedding_has_384_dimensions(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.DataException, match="expected 384 dimensions"):
        insert(connection, "text_summary", embedding="[1,2,3]")


def test_ids_use_an_owned_bigint_sequence(connection: psycopg.Connection[Any]) -> None:
    for table in ROWS:
        sequences = connection.execute(
            "SELECT sequencename, data_type::text FROM pg_sequences"
            " WHERE format('%%I.%%I', schemaname, sequencename) = pg_get_serial_sequence(%s, 'id')",
            (table,),
        ).fetchall()
        assert sequences == [(f"{table}_id_seq", "bigint")]
