"""What `verify` and its script report of a table that is partitioned by month."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from support import psql

if TYPE_CHECKING:
    from pathlib import Path

    from support.checkouts import Checkout
    from support.servers import Database

EXIT_PSQL_ERROR = 3
CURRENT_MONTH: LiteralString = "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')"
DRIFT: dict[str, tuple[LiteralString, str]] = {
    "plain": (
        (
            "CREATE TABLE copied (LIKE kpi_summary INCLUDING ALL);"
            "ALTER SEQUENCE kpi_summary_id_seq OWNED BY copied.id;"
            "DROP TABLE kpi_summary; ALTER TABLE copied RENAME TO kpi_summary"
        ),
        "expected  partitioned table by RANGE (period_start)\n    found     table\n",
    ),
    "other key": (
        (
            "CREATE TABLE copied (LIKE kpi_summary INCLUDING ALL) PARTITION BY RANGE (period_start, id);"
            "ALTER SEQUENCE kpi_summary_id_seq OWNED BY copied.id;"
            "DROP TABLE kpi_summary; ALTER TABLE copied RENAME TO kpi_summary"
        ),
        "found     partitioned table by RANGE (period_start, id)",
    ),
    "index": ("DROP INDEX idx_kpi_summary_client_id", "index idx_kpi_summary_client_id"),
    "foreign key": ("ALTER TABLE kpi_summary DROP CONSTRAINT fk_kpi_summary_source", "fk_kpi_summary_source"),
    "check": ("ALTER TABLE kpi_summary DROP CONSTRAINT ck_kpi_summary_period_order", "ck_kpi_summary_period_order"),
    "key": ("ALTER TABLE kpi_summary DROP CONSTRAINT pk_kpi_summary", "pk_kpi_summary"),
    "invalid index": (
        "DROP INDEX idx_kpi_summary_client_id; CREATE INDEX idx_kpi_summary_client_id ON ONLY kpi_summary (client_id)",
        "INVALID",
    ),
    "unique index": ("CREATE UNIQUE INDEX extra ON kpi_summary (period_start, client_id, id)", "index extra"),
}


@pytest.mark.parametrize("kind", DRIFT)
def test_drift_of_partitioned_table_is_reported_and_fixed(checkout: Checkout, partitioned: Database, kind: str) -> None:
    statement, expected = DRIFT[kind]
    partitioned.execute(statement)
    printed = checkout.succeed("syntegra-db", "verify", database=partitioned, status=1)
    assert expected in printed
    fixes = [line.strip().removeprefix("fix").strip() for line in printed.partition("\nNotes")[0].splitlines()]
    statements = [line for line in fixes if line.endswith(";") and not line.startswith("--")]
    if kind in {"plain", "other key"}:
        assert "No statement converts it" in printed
        return
    with partitioned.connect() as connection:
        for fix in statements:
            connection.execute(fix.encode())
    checkout.succeed("syntegra-db", "verify", database=partitioned)


def test_missing_months_are_a_warning_and_a_note_or_drift_without_default(
    checkout: Checkout, partitioned: Database
) -> None:
    partitioned.execute("ALTER TABLE kpi_summary DETACH PARTITION kpi_summary_past")
    months = [month.replace("_", "-") for (month,) in partitioned.query(CURRENT_MONTH)]
    printed = checkout.succeed("syntegra-db", "verify", database=partitioned)
    assert f"no partition for {months[0]}" in printed
    assert "syntegra-db partitions create" in printed
    warned = checkout.succeed("syntegra-db", "status", database=partitioned)
    assert f"Warning: kpi_summary has no partition for {months[0]}" in warned
    partitioned.execute("DROP TABLE kpi_summary_default")
    printed = checkout.succeed("syntegra-db", "verify", database=partitioned, status=1)
    assert "An insert of a row of this month fails." in printed


def test_verification_script_compares_the_partition_key(
    checkout: Checkout, partitioned: Database, tmp_path: Path
) -> None:
    script = checkout.succeed("render_script")
    result = psql.feed(partitioned.url, script, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "9 columns, partitioned by RANGE (period_start)" in result.stdout
    partitioned.execute(DRIFT["plain"][0])
    result = psql.feed(partitioned.url, script, tmp_path)
    assert result.returncode == EXIT_PSQL_ERROR
    assert "expected: 9 columns, partitioned by RANGE (period_start)" in result.stdout
