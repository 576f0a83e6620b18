"""What `backup`, `restore` and `rollback` do with the rows of all partitions."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, LiteralString

import pytest

from support.partitions import MANY_MONTHS
from support.revisions import HEAD
from support.sample_rows import row_digests

if TYPE_CHECKING:
    from pathlib import Path

    from support.checkouts import Checkout
    from support.servers import Database, Server

pytestmark = pytest.mark.long


def backup_file(checkout: Checkout, database: Database, folder: Path) -> str:
    path = str(folder / "saved.dump")
    checkout.succeed("syntegra-db", "backup", "--output", path, database=database)
    return path


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
