"""What applications, `status`, `alembic check` and `adopt` do with a table that is partitioned by month."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from support.partitions import PARTITIONS
from support.revisions import AFTER_HEAD, HEAD
from support.sample_rows import row_digests
from syntegra_db.bulk import copy_rows, upsert_rows
from syntegra_db.database import session_factory
from syntegra_db.models import KpiSummary

if TYPE_CHECKING:
    from support.checkouts import Checkout
    from support.servers import Database

MOMENT = datetime(2026, 1, 15, tzinfo=UTC)


def test_partitions_are_not_in_the_manifest(checkout: Checkout, partitioned: Database) -> None:
    assert len(partitioned.query(PARTITIONS)) > 3
    manifest = (checkout.manifests / f"{AFTER_HEAD}.json").read_text(encoding="utf-8")
    assert '"partition_key": "RANGE (period_start)"' in manifest
    assert "kpi_summary_" not in manifest.replace("kpi_summary_id_seq", "").replace("idx_kpi_summary_", "").replace(
        "ck_kpi_summary_", ""
    ).replace("fk_kpi_summary_", "")
    assert "partition" not in (checkout.manifests / f"{HEAD}.json").read_text(encoding="utf-8")


def test_status_counts_rows_and_bytes_of_all_partitions(checkout: Checkout, partitioned: Database) -> None:
    partitioned.execute("ANALYZE kpi_summary")
    report = json.loads(checkout.succeed("syntegra-db", "status", "--json", database=partitioned))
    [table] = [table for table in report["tables"] if table["name"] == "kpi_summary"]
    assert (table["estimated_rows"],) == partitioned.query("SELECT count(*) FROM kpi_summary")[0]
    [(total,)] = partitioned.query(
        "SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_partition_tree('kpi_summary')"
    )
    assert table["total_bytes"] == total
    assert table["last_analyze"] is not None
    [by_month] = report["by_month"]
    assert [by_month["partitions"], by_month["missing_months"]] == [
        [name for (name,) in partitioned.query(PARTITIONS)],
        [],
    ]
    assert by_month["default_rows"] > 0


def test_partitioned_table_created_outside_migrations_is_adopted(checkout: Checkout, partitioned: Database) -> None:
    before = row_digests(partitioned)
    partitioned.execute(
        "DROP TABLE alembic_version; COMMENT ON COLUMN kpi_summary.kpi_name IS NULL;"
        "ALTER INDEX idx_kpi_summary_client_id RENAME TO by_client; DROP INDEX idx_kpi_summary_source_id;"
        "ALTER TABLE kpi_summary RENAME CONSTRAINT pk_kpi_summary TO kpi_summary_pkey1;"
        "ALTER TABLE kpi_summary DROP CONSTRAINT fk_kpi_summary_source"
    )
    checkout.succeed("syntegra-db", "adopt", "--apply", database=partitioned)
    checkout.succeed("syntegra-db", "verify", database=partitioned)
    assert partitioned.query("SELECT version_num FROM alembic_version") == [(AFTER_HEAD,)]
    # The sequence is set to the same next value in another way.
    assert row_digests(partitioned)["kpi_summary"][:2] == before["kpi_summary"][:2]


def test_table_partitioned_by_another_column_is_not_adopted(checkout: Checkout, partitioned: Database) -> None:
    partitioned.execute(
        "DROP TABLE alembic_version; CREATE TABLE copied (LIKE kpi_summary INCLUDING ALL EXCLUDING INDEXES) "
        "PARTITION BY LIST (client_id); ALTER SEQUENCE kpi_summary_id_seq OWNED BY copied.id;"
        "DROP TABLE kpi_summary; ALTER TABLE copied RENAME TO kpi_summary"
    )
    result = checkout.run("syntegra-db", "adopt", database=partitioned)
    assert result.returncode != 0
    assert "kpi_summary is a partitioned table by LIST (client_id), not a" in result.stderr


def test_comparison_with_the_models_ignores_partitions(checkout: Checkout, partitioned: Database) -> None:
    checkout.succeed("alembic", "check", database=partitioned)


def test_models_read_and_write_partitioned_table_by_id(partitioned: Database) -> None:
    with session_factory(partitioned.engine)() as session:
        first = KpiSummary(client_id=1, kpi_name="orm", kpi_value=Decimal(1), period_start=MOMENT, period_end=MOMENT)
        session.add(first)
        session.commit()
        first.kpi_value = Decimal(2)
        # To another partition.
        first.period_start = MOMENT.replace(year=2000)
        session.commit()
        session.expunge_all()
        loaded = session.get_one(KpiSummary, first.id)
        assert (loaded.kpi_value, loaded.period_start.year) == (Decimal(2), 2000)
        session.delete(loaded)
        session.commit()
        assert session.get(KpiSummary, first.id) is None


@pytest.mark.parametrize("key", [("client_id", "kpi_name", "period_start", "period_end"), ("id",)])
def test_bulk_loads_reach_partitions(partitioned: Database, key: tuple[str, ...]) -> None:
    rows = [
        {
            "id": 1_000_000 + number,
            "client_id": 1,
            "kpi_name": f"bulk {number}",
            "kpi_value": number,
            "period_start": MOMENT.replace(month=number),
            "period_end": MOMENT.replace(year=2030),
        }
        for number in range(1, 13)
    ]
    with session_factory(partitioned.engine)() as session:
        assert copy_rows(session, KpiSummary, rows) == 12
        changed = [{**row, "kpi_value": 7} for row in rows]
        upsert_rows(session, KpiSummary, changed, key=key)
        session.commit()
        values = session.scalars(select(KpiSummary.kpi_value).where(KpiSummary.id > 1_000_000)).all()
    assert values == [Decimal(7)] * 12
