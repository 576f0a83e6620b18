"""`syntegra-db partitions` creates the partitions of the next months while services read and write."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, LiteralString, cast

import pytest
from psycopg import sql

from support.checkouts import Checkout
from support.evolutions import EVOLUTIONS, INSERT_KPI
from support.processes import blocking, wait_for_rows, writing
from support.revisions import AFTER_HEAD
from support.sample_rows import load_rows, row_digests
from syntegra_db.catalog import Month

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server

pytestmark = pytest.mark.long

EXIT_CONNECTION_FAILED = 4
EXIT_MIGRATION_FAILED = 11
EXIT_LOCK_TIMEOUT = 15
MAX_INSERT_SECONDS = 0.8
ATTACHED: LiteralString = "SELECT FROM pg_inherits WHERE inhrelid = to_regclass('{}')"
WAITS: LiteralString = "SELECT {} FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
CREATE = ("syntegra-db", "partitions", "create")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("months") / "checkout")
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS["partitions by month"])
    return checkout


@pytest.fixture(scope="module")
def template(checkout: Checkout, server: Server, migrated_template: str) -> Iterator[str]:
    with server.database(migrated_template, "syntegra_test_months") as database:
        load_rows(database, 1_000)
        checkout.migrate(server, database)
        yield database.name


def month_ahead(months: int) -> Month:
    return Month.containing(datetime.now(UTC)).later(months)


def name_ahead(months: int) -> str:
    return month_ahead(months).partition_name("kpi_summary")


def insert_in(database: Database, month: Month, rows: int) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end) "
            "SELECT 1, 'later', n, %s, 'infinity' FROM generate_series(1, %s) AS n",
            (month.start, rows),
        )


def is_attached(database: Database, name: str) -> bool:
    return bool(database.query(ATTACHED.replace("{}", name)))


def relation_exists(database: Database, name: str) -> bool:
    with database.connect() as connection:
        return connection.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone() == (True,)


def test_months_are_created_once_with_everything_of_the_table(checkout: Checkout, partitioned: Database) -> None:
    before = row_digests(partitioned)
    printed = checkout.succeed(*CREATE, "--months", "8", database=partitioned)
    assert f"kpi_summary: created {name_ahead(4)}, " in printed
    assert name_ahead(8) in printed
    assert "the partitions of all these months exist" in checkout.succeed(
        *CREATE, "--months", "8", database=partitioned
    )
    listed = checkout.succeed("syntegra-db", "partitions", "list", database=partitioned)
    assert f"{name_ahead(8)}  {month_ahead(8).start:%Y-%m-%d}  {month_ahead(9).start:%Y-%m-%d}" in listed
    checkout.succeed("syntegra-db", "verify", database=partitioned)
    assert row_digests(partitioned) == before
    insert_in(partitioned, month_ahead(8), 3)
    [(count,)] = partitioned.query(f"SELECT count(*) FROM {name_ahead(8)}")
    assert count == 3
    # The two have the same indexes, constraints and defaults, and no other CHECK.
    parts = [
        partitioned.query(
            "SELECT count(*), count(*) FILTER (WHERE contype = 'c'), count(*) FILTER (WHERE contype = 'f') "
            f"FROM pg_constraint WHERE conrelid = '{name}'::regclass AND contype <> 'n'"
        )
        for name in (name_ahead(8), "kpi_summary")
    ]
    assert parts[0] == parts[1]


def test_rows_in_the_default_partition_are_moved_on_request_only(checkout: Checkout, partitioned: Database) -> None:
    insert_in(partitioned, month_ahead(5), 7)
    before = row_digests(partitioned)
    result = checkout.run(*CREATE, "--months", "6", database=partitioned)
    assert result.returncode == EXIT_MIGRATION_FAILED, result.stderr
    assert f"7 rows of {month_ahead(5)} of kpi_summary are in kpi_summary_default" in result.stderr
    assert result.stderr.strip().endswith("syntegra-db partitions create --move-rows")
    assert is_attached(partitioned, name_ahead(4))
    assert not is_attached(partitioned, name_ahead(5))
    printed = checkout.succeed(*CREATE, "--months", "6", "--move-rows", database=partitioned)
    assert "7 rows moved" in printed
    assert partitioned.query("SELECT count(*) FROM kpi_summary_default") == [(0,)]
    assert row_digests(partitioned) == before
    checkout.succeed("syntegra-db", "verify", database=partitioned)


def test_services_write_while_months_are_created(checkout: Checkout, partitioned: Database) -> None:
    with writing(partitioned, INSERT_KPI) as inserts:
        checkout.succeed(*CREATE, "--months", "20", database=partitioned)
    assert max(inserts) < MAX_INSERT_SECONDS


def test_lock_is_tried_again_and_then_reported(
    checkout: Checkout, partitioned: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTEGRA_LOCK_RETRY_TIMEOUT", "2")
    with partitioned.connect() as blocker:
        blocker.execute("BEGIN")
        blocker.execute("LOCK TABLE kpi_summary_default IN ACCESS SHARE MODE")
        result = checkout.run(*CREATE, "--months", "5", database=partitioned)
        assert result.returncode == EXIT_LOCK_TIMEOUT, result.stderr
        assert "Nothing was changed." in result.stderr
        monkeypatch.setenv("SYNTEGRA_LOCK_RETRY_TIMEOUT", "60")
        with checkout.running(*CREATE, "--months", "5", database=partitioned) as process:
            wait_for_rows(partitioned, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            blocker.execute("COMMIT")
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


@pytest.mark.parametrize("signal", ["pg_cancel_backend", "pg_terminate_backend"])
def test_interrupted_partition_leaves_nothing_and_the_next_run_creates_it(
    checkout: Checkout, partitioned: Database, monkeypatch: pytest.MonkeyPatch, signal: LiteralString
) -> None:
    monkeypatch.setenv("SYNTEGRA_LOCK_TIMEOUT", "30")
    with partitioned.connect() as blocker:
        blocker.execute("BEGIN")
        blocker.execute("LOCK TABLE kpi_summary_default IN ACCESS SHARE MODE")
        with checkout.running(*CREATE, "--months", "5", database=partitioned) as process:
            wait_for_rows(partitioned, WAITS.format("pid"))
            partitioned.query(WAITS.format(f"{signal}(pid)"))
            _, errors = process.communicate(timeout=60)
        blocker.execute("COMMIT")
    is_lost = signal == "pg_terminate_backend"
    assert process.returncode == (EXIT_CONNECTION_FAILED if is_lost else EXIT_MIGRATION_FAILED), errors
    message = errors.splitlines()[-1]
    assert message.startswith(f"Error: The partition {name_ahead(4)} was not created: ")
    assert "Nothing was changed." in message
    assert not relation_exists(partitioned, name_ahead(4))
    checkout.succeed(*CREATE, "--months", "5", database=partitioned)
    assert is_attached(partitioned, name_ahead(5))
    checkout.succeed("syntegra-db", "verify", database=partitioned)


def test_statement_timeout_of_the_database_does_not_end_the_wait_for_a_lock(
    checkout: Checkout, partitioned: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTEGRA_LOCK_TIMEOUT", "30")
    partitioned.execute(
        sql.SQL("ALTER DATABASE {} SET statement_timeout = '500ms'").format(sql.Identifier(partitioned.name))
    )
    with (
        blocking(partitioned, 2, "LOCK TABLE kpi_summary_default IN ACCESS SHARE MODE"),
        checkout.running(*CREATE, "--months", "4", database=partitioned) as process,
    ):
        wait_for_rows(partitioned, WAITS.format("pid"))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert is_attached(partitioned, name_ahead(4))


# What creates an object with the name of a month, and how the message calls it.
OBSTACLES: dict[str, tuple[LiteralString, str]] = {
    "table": ("CREATE TABLE {} (LIKE kpi_summary INCLUDING ALL)", "table"),
    "view": ("CREATE VIEW {} AS SELECT 1 AS one", "view"),
    "materialized view": ("CREATE MATERIALIZED VIEW {} AS SELECT 1 AS one", "materialized view"),
    "sequence": ("CREATE SEQUENCE {}", "sequence"),
    "index": ("CREATE INDEX {} ON clusters (cluster_id)", "index"),
    "row type": ("CREATE TYPE {} AS (one int)", "composite type"),
    "type": ("CREATE TYPE {} AS ENUM ('one')", "type"),
    "domain": ("CREATE DOMAIN {} AS text", "type"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_object_with_the_name_of_a_month_is_reported_with_its_kind(
    checkout: Checkout, partitioned: Database, obstacle: str
) -> None:
    create, kind = OBSTACLES[obstacle]
    partitioned.execute(create.replace("{}", name_ahead(4)).encode())  # type: ignore[arg-type]  # its name has a date
    result = checkout.run(*CREATE, "--months", "4", database=partitioned)
    assert result.returncode == EXIT_MIGRATION_FAILED, result.stderr
    assert f"Error: The {kind} public.{name_ahead(4)} exists, but is no partition of kpi_summary" in result.stderr
    assert result.stderr.count("\n") == 1
    assert ("ATTACH PARTITION" in result.stderr) == (obstacle == "table")
    if obstacle == "table":
        statement = result.stderr.strip().rpartition(f"rows of {month_ahead(4)}: ")[2]
        partitioned.execute(statement.encode())  # type: ignore[arg-type]  # printed
        checkout.succeed(*CREATE, "--months", "4", database=partitioned)


@pytest.mark.parametrize(("first", "last", "rests"), [(1, 8, 1), (8, 15, 2), (20, 28, 2)])
def test_month_that_is_in_part_in_another_partition_gets_the_printed_rests(
    checkout: Checkout, partitioned: Database, first: int, last: int, rests: int
) -> None:
    month = f"{month_ahead(4).start:%Y-%m}"
    partitioned.execute(
        f"CREATE TABLE week PARTITION OF kpi_summary FOR VALUES FROM ('{month}-{first}') TO ('{month}-{last}')"
    )
    result = checkout.run(*CREATE, "--months", "4", database=partitioned)
    assert result.returncode == EXIT_MIGRATION_FAILED, result.stderr
    assert "is in part in the partition week" in result.stderr
    assert result.stderr.count("\n") == 1
    statements = re.findall(r"CREATE TABLE [^;]+;", result.stderr)
    assert len(statements) == rests
    for statement in statements:
        partitioned.execute(cast("LiteralString", statement))
    checkout.succeed(*CREATE, "--months", "4", database=partitioned)
    insert_in(partitioned, month_ahead(4), 1)
    assert not partitioned.query("SELECT FROM kpi_summary_default")


@pytest.mark.parametrize(
    ("bounds", "shown"),
    [
        ("FROM ('10000-01-01') TO ('10000-02-01')", "after year 9999  after year 9999"),
        ("FROM ('infinity') TO (MAXVALUE)", "after year 9999  no limit"),
        ("FROM (MINVALUE) TO ('0044-03-15 BC')", "no limit  before year 1"),
        ("FROM (MINVALUE) TO ('-infinity')", "no limit  before year 1"),
    ],
)
def test_partition_beyond_the_years_of_python_is_listed_and_has_no_month(
    checkout: Checkout, partitioned: Database, bounds: LiteralString, shown: str
) -> None:
    partitioned.execute("ALTER TABLE kpi_summary DETACH PARTITION kpi_summary_past")
    partitioned.execute(f"CREATE TABLE remote PARTITION OF kpi_summary FOR VALUES {bounds}")
    listed = checkout.succeed("syntegra-db", "partitions", "list", database=partitioned)
    assert " ".join(shown.split()) in " ".join(listed.split())
    checkout.succeed(*CREATE, database=partitioned)
    assert is_attached(partitioned, name_ahead(0))
    for command in ("status", "verify"):
        checkout.succeed("syntegra-db", command, database=partitioned)


def test_revision_without_partitions_has_nothing_to_do(checkout: Checkout, database: Database) -> None:
    for command in ("create", "list"):
        printed = checkout.succeed("syntegra-db", "partitions", command, database=database)
        assert (
            printed == "No table is partitioned by month at the revision of this database, so there is nothing to do.\n"
        )


def test_plain_table_of_the_revision_is_reported(checkout: Checkout, partitioned: Database) -> None:
    partitioned.execute("DROP TABLE kpi_summary; CREATE TABLE kpi_summary (id bigint)")
    result = checkout.run(*CREATE, database=partitioned)
    assert result.returncode == EXIT_MIGRATION_FAILED
    assert "kpi_summary of the" in result.stderr
    assert "syntegra-db verify" in result.stderr
