"""A revision that partitions kpi_summary by month: what verify, status, backup and restore do with its partitions."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, LiteralString

import pytest
from sqlalchemy import select

from support import psql
from support.checkouts import Checkout
from support.evolutions import EVOLUTIONS
from support.revisions import AFTER_HEAD, HEAD
from support.sample_rows import load_rows, row_digests
from syntegra_db.bulk import copy_rows, upsert_rows
from syntegra_db.database import session_factory
from syntegra_db.models import KpiSummary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.servers import Database, Server

EXIT_PSQL_ERROR = 3
MOMENT = datetime(2026, 1, 15, tzinfo=UTC)
KIND = "partitions by month"
# Past months, the current one, the next ones, and months that have no partition.
MANY_MONTHS: LiteralString = """
    INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end)
    SELECT n % 10, 'kpi_' || n, n, date_trunc('month', now()) + n * interval '16 days', 'infinity'
    FROM generate_series(-40, 40) AS n
"""
PARTITIONS: LiteralString = """
    SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'kpi_summary'::regclass ORDER BY 1
"""
CURRENT_MONTH: LiteralString = "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("partitions") / "checkout", "tools")
    program = "from tools.verify_script import render\nprint(render(), end='')\n"
    (checkout.folder / "render_script.py").write_text(program, encoding="utf-8")
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS[KIND])
    return checkout


@pytest.fixture(scope="module")
def template(checkout: Checkout, server: Server, migrated_template: str) -> Iterator[str]:
    """A database whose kpi_summary is partitioned, with rows in all partitions."""
    with server.database(migrated_template, "syntegra_test_partitions") as database:
        load_rows(database, 2_000)
        checkout.migrate(server, database)
        database.execute(MANY_MONTHS)
        yield database.name


def backup_file(checkout: Checkout, database: Database, folder: Path) -> str:
    path = str(folder / "saved.dump")
    checkout.succeed("syntegra-db", "backup", "--output", path, database=database)
    return path


def test_partitions_are_not_in_the_manifest(checkout: Checkout, partitioned: Database) -> None:
    assert len(partitioned.query(PARTITIONS)) > 3
    manifest = (checkout.manifests / f"{AFTER_HEAD}.json").read_text(encoding="utf-8")
    assert '"partition_key": "RANGE (period_start)"' in manifest
    assert "kpi_summary_" not in manifest.replace("kpi_summary_id_seq", "").replace("idx_kpi_summary_", "").replace(
        "ck_kpi_summary_", ""
    ).replace("fk_kpi_summary_", "")
    assert "partition" not in (checkout.manifests / f"{HEAD}.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("mode", ["--replace", "--keep", "empty database"])
def test_backup_has_rows_of_all_partitions_and_restore_loads_them(
    checkout: Checkout, server: Server, partitioned: Database, tmp_path: Path, mode: str
) -> None:
    before = row_digests(partitioned)
    path = backup_file(checkout, partitioned, tmp_path)
    if mode == "empty database":
        with server.database() as empty:
            checkout.succeed("syntegra-db", "restore", path, database=empty)
            assert row_digests(empty) == before
            checkout.succeed("syntegra-db", "verify", database=empty)
            assert empty.query("SELECT count(*) > 0 FROM kpi_summary_default") == [(True,)]
        return
    partitioned.execute("DELETE FROM kpi_summary")
    if mode == "--replace":
        partitioned.execute(MANY_MONTHS)
        partitioned.execute("SELECT setval('kpi_summary_id_seq', 1)")
    checkout.succeed("syntegra-db", "restore", path, mode, database=partitioned)
    after = row_digests(partitioned)
    assert after["kpi_summary"][:2] == before["kpi_summary"][:2]
    checkout.succeed("syntegra-db", "verify", database=partitioned)


def test_restore_loads_rows_into_the_partitions_that_exist(
    checkout: Checkout, partitioned: Database, tmp_path: Path
) -> None:
    before = row_digests(partitioned)
    path = backup_file(checkout, partitioned, tmp_path)
    [(month,)] = partitioned.query(
        "SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = "
        "'kpi_summary'::regclass AND inhrelid::regclass::text ~ '[0-9]$'"
    )
    partitioned.execute(f"DROP TABLE {month}")
    checkout.succeed("syntegra-db", "restore", path, "--replace", database=partitioned)
    assert row_digests(partitioned) == before


@pytest.mark.parametrize("target", [HEAD, "002"])
def test_printed_restore_after_rollback_brings_all_rows_back(
    checkout: Checkout, partitioned: Database, tmp_path: Path, target: str
) -> None:
    before = row_digests(partitioned)
    path = str(tmp_path / "saved.dump")
    printed = checkout.succeed("syntegra-db", "rollback", target, "--output", path, database=partitioned).splitlines()[
        -1
    ]
    if target == HEAD:
        assert row_digests(partitioned) == before
        assert partitioned.query("SELECT relkind::text FROM pg_class WHERE relname = 'kpi_summary'") == [("r",)]
        assert not partitioned.query("SELECT FROM pg_class WHERE relname LIKE 'kpi_summary_past%'")
    checkout.succeed("syntegra-db", "verify", database=partitioned)
    program, *arguments = shlex.split(printed)
    checkout.succeed(program, *arguments, database=partitioned)
    assert row_digests(partitioned) == before
    assert partitioned.query("SELECT relkind::text FROM pg_class WHERE relname = 'kpi_summary'") == [("p",)]
    checkout.succeed("syntegra-db", "verify", database=partitioned)


@pytest.mark.parametrize(
    "create",
    [
        "CREATE TABLE other.kpi_extra (LIKE kpi_summary INCLUDING ALL)",
        (
            "CREATE FOREIGN TABLE kpi_extra (id bigint NOT NULL, client_id bigint NOT NULL, source_id bigint, "
            "kpi_name varchar(255) NOT NULL, kpi_value numeric NOT NULL, period_start timestamptz NOT NULL, "
            "period_end timestamptz NOT NULL, calculated_at timestamptz NOT NULL, metadata jsonb, "
            "CONSTRAINT ck_kpi_summary_kpi_value_finite CHECK (kpi_value > '-Infinity' AND kpi_value < 'Infinity'), "
            "CONSTRAINT ck_kpi_summary_period_order CHECK (period_end >= period_start)) SERVER far"
        ),
    ],
    ids=["other schema", "foreign"],
)
def test_partition_that_no_backup_has_is_drift_and_refused(
    checkout: Checkout, partitioned: Database, tmp_path: Path, create: LiteralString
) -> None:
    partitioned.execute(
        "CREATE SCHEMA other; CREATE FOREIGN DATA WRAPPER none; CREATE SERVER far FOREIGN DATA WRAPPER none"
    )
    partitioned.execute(create)
    if "FOREIGN" in create:
        # A foreign table has no key.
        partitioned.execute(
            "ALTER TABLE kpi_summary DROP CONSTRAINT pk_kpi_summary, DROP CONSTRAINT fk_kpi_summary_source"
        )
    partitioned.execute(
        f"ALTER TABLE kpi_summary ATTACH PARTITION {'other.' if 'other' in create else ''}kpi_extra "
        "FOR VALUES FROM ('2090-01-01') TO ('2090-02-01')"
    )
    printed = checkout.succeed("syntegra-db", "verify", database=partitioned, status=1)
    assert "partition kpi_extra of kpi_summary" in printed
    result = checkout.run("syntegra-db", "backup", "--output", str(tmp_path / "saved.dump"), database=partitioned)
    assert result.returncode != 0
    statement = result.stderr.strip().rpartition("again: ")[2]
    partitioned.execute(statement.encode())  # type: ignore[arg-type]  # printed
    backup_file(checkout, partitioned, tmp_path)


def test_partition_that_has_partitions_is_in_backups_and_no_drift(
    checkout: Checkout, server: Server, partitioned: Database, tmp_path: Path
) -> None:
    partitioned.execute(
        "CREATE TABLE kpi_year PARTITION OF kpi_summary FOR VALUES FROM ('2090-01-01') TO ('2091-01-01') "
        "PARTITION BY RANGE (period_start); CREATE TABLE kpi_rest PARTITION OF kpi_year DEFAULT;"
        "INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end) "
        "VALUES (1, 'later', 1, '2090-05-01', '2090-06-01')"
    )
    before = row_digests(partitioned)
    checkout.succeed("syntegra-db", "verify", database=partitioned)
    path = backup_file(checkout, partitioned, tmp_path)
    with server.database() as empty:
        checkout.succeed("syntegra-db", "restore", path, database=empty)
        assert row_digests(empty) == before


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
