"""The end of the first partition: rows that services write while a table is partitioned, and rows without a month."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, LiteralString

import pytest
from psycopg.errors import CheckViolation

from support.processes import wait_for_rows
from support.revisions import AFTER_HEAD, revision_of
from support.sample_rows import load_rows

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    import psycopg

    from support.checkouts import Checkout
    from support.servers import Database

pytestmark = pytest.mark.long

EXIT_MIGRATION_FAILED = 11
INSERT: LiteralString = (
    "INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end) "
    "VALUES (1, 'written', 1, {}, 'infinity')"
)
# So many months after the month of the latest row.
LATER: LiteralString = (
    "date_trunc('month', greatest(now(), (SELECT max(period_start) FROM kpi_summary)), 'UTC') + interval '{} months'"
)
WAITS: LiteralString = (
    "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DO %' AND datname = current_database()"
)
WRITTEN: LiteralString = (
    "SELECT tableoid::regclass::text FROM kpi_summary WHERE kpi_name = 'written' ORDER BY period_start"
)


@contextmanager
def upgrade_that_waits(
    checkout: Checkout, database: Database
) -> Iterator[tuple[psycopg.Connection[tuple[Any, ...]], subprocess.Popen[str]]]:
    """Yield an upgrade that has read the limit and waits to add its CHECK, and the transaction for which it waits."""
    load_rows(database, 2_000)
    with database.connect() as writer:
        writer.execute("BEGIN")
        # CREATE INDEX CONCURRENTLY does not wait for it, and the same transaction can still write.
        writer.execute("LOCK TABLE kpi_summary IN ACCESS SHARE MODE")
        with checkout.running("syntegra-db", "upgrade", database=database) as process:
            wait_for_rows(database, WAITS)
            yield writer, process


@pytest.fixture(autouse=True)
def long_lock_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTEGRA_LOCK_TIMEOUT", "30")


@pytest.mark.parametrize("months", ["2", "3", "30"])
def test_row_written_after_the_limit_was_read_raises_it(
    checkout: Checkout, database: Database, months: LiteralString
) -> None:
    with upgrade_that_waits(checkout, database) as (writer, process):
        writer.execute(INSERT.format(LATER.format(months)))
        writer.execute("COMMIT")
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert database.query(WRITTEN) == [("kpi_summary_past",)]
    checkout.succeed("syntegra-db", "verify", database=database)


def test_row_without_a_month_written_after_the_limit_was_read_is_named(checkout: Checkout, database: Database) -> None:
    with upgrade_that_waits(checkout, database) as (writer, process):
        writer.execute(INSERT.format("'infinity'"))
        writer.execute("COMMIT")
        _, errors = process.communicate(timeout=120)
    assert process.returncode == EXIT_MIGRATION_FAILED, errors
    query = errors.partition("run this again: ")[2].partition(";")[0]
    found: LiteralString = "SELECT kpi_name FROM ({}) AS found"
    assert database.query(found.replace("{}", query).encode()) == [("written",)]  # type: ignore[arg-type]  # printed
    database.execute("DELETE FROM kpi_summary WHERE kpi_name = 'written'")
    checkout.succeed("syntegra-db", "upgrade", database=database)
    assert revision_of(database) == AFTER_HEAD


def test_only_rows_more_than_a_month_later_are_rejected_until_the_table_is_partitioned(
    checkout: Checkout, database: Database
) -> None:
    with upgrade_that_waits(checkout, database) as (writer, process):
        # The last step before the table is partitioned finds it.
        writer.execute("CREATE VIEW reader AS SELECT id FROM kpi_summary")
        writer.execute("COMMIT")
        _, errors = process.communicate(timeout=120)
    assert process.returncode == EXIT_MIGRATION_FAILED
    assert "view reader reads it" in errors
    later = f"{LATER.format('2')}"
    with pytest.raises(CheckViolation, match="ck_kpi_summary_past"):
        database.execute(INSERT.format(later))
    database.execute(INSERT.format(f"{later} - interval '1 second'"))
    database.execute("DROP VIEW reader")
    checkout.succeed("syntegra-db", "upgrade", database=database)
    database.execute(INSERT.format(LATER.format("9")))
    assert [name for (name,) in database.query(WRITTEN)] == ["kpi_summary_past", "kpi_summary_default"]
    checkout.succeed("syntegra-db", "verify", database=database)


def test_first_and_last_moments_with_a_month_are_partitioned_and_shown(checkout: Checkout, database: Database) -> None:
    for moment in ("'-infinity'", "'0044-03-15 BC'", "'9999-12-31 23:59:59+00'"):
        database.execute(INSERT.format(moment))
    checkout.succeed("syntegra-db", "upgrade", database=database)
    assert database.query(WRITTEN) == [("kpi_summary_past",)] * 3
    listed = checkout.succeed("syntegra-db", "partitions", "list", database=database)
    assert "kpi_summary_past     no limit  after year 9999" in listed
    for command in (("partitions", "create"), ("partitions", "list", "--json"), ("status",), ("verify",)):
        checkout.succeed("syntegra-db", *command, database=database)
