"""The fix for the type of a column loses nothing: it fails while a value does not fit, and the report counts them."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from support.drift import drift_report, fix_statements, run

if TYPE_CHECKING:
    from support.servers import Database

INSERTS = {
    "text_summary": "INSERT INTO text_summary (client_id, text_field, {column}) VALUES (1, 'x', {value})",
    "clusters": "INSERT INTO clusters (client_id, cluster_id, features_json, {column}) VALUES (1, 1, '{{}}', {value})",
    "anomaly_log": "INSERT INTO anomaly_log (client_id, kpi_name, value, {column}) VALUES (1, 'k', 1, {value})",
}


@pytest.mark.parametrize(
    ("table", "column", "installed", "fitting", "others"),
    [
        ("text_summary", "language", "varchar(20)", "'português'", ["'español antiguo'", "'es' || repeat(' ', 15)"]),
        ("text_summary", "language", "text", "'es' || repeat(' ', 8)", ["repeat('ñ', 11)"]),
        ("anomaly_log", "method", "char(120)", "'iqr'", ["repeat('x', 101)"]),
        ("clusters", "cluster_name", "jsonb", """'"a"'""", ["""to_jsonb(repeat('a', 300))"""]),
        ("text_summary", "sentiment_score", "numeric", "0.1", ["0.12345678901234567891", "1e400", "-1e-400"]),
        ("anomaly_log", "deviation", "bigint", "-1024", ["9007199254740993", "9223372036854775807"]),
        ("anomaly_log", "deviation", "bigint", "-9223372036854775808", ["-9223372036854775807"]),
        ("anomaly_log", "deviation", "numeric", "4611686018427388928", ["4611686018427388929"]),
    ],
)
def test_fix_of_a_type_fails_while_a_value_does_not_fit(  # noqa: PLR0913, PLR0917  a case
    database: Database, table: str, column: str, installed: str, fitting: str, others: list[str]
) -> None:
    run(database, f"ALTER TABLE {table} ALTER {column} DROP DEFAULT, ALTER {column} TYPE {installed} USING NULL")
    insert = INSERTS[table]
    run(database, *(insert.format(column=column, value=value) for value in [fitting, *others]))
    before = rows(database, table, column)
    report = drift_report(database)
    finding = next(finding for finding in report.findings if finding.expected not in {"", "no default"})
    assert finding.object == f"column {table}.{column}"
    assert finding.impact.endswith(f"Rows that do not fit {finding.expected}: {len(others)}.")
    with pytest.raises(psycopg.DataError):
        run(database, *fix_statements(report))
    assert rows(database, table, column) == before
    run(database, f"DELETE FROM {table} WHERE id > 1", *fix_statements(report))
    assert drift_report(database).findings == []
    ((value,),) = rows(database, table, column)
    assert value == before[0][0] or float(value) == Decimal(before[0][0])


def rows(database: Database, table: str, column: str) -> list[tuple[Any, ...]]:
    with database.connect() as connection:
        query: Any = f"SELECT rtrim({column}::text, ' ') FROM {table} ORDER BY id"
        return connection.execute(query).fetchall()
