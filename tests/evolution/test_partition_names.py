"""The names of partitions: those of detached ones, of long tables, and the same ones in Python and in SQL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, LiteralString

import pytest

from support import psql
from support.evolutions import EVOLUTIONS, INSERT_KPI
from support.revisions import AFTER_HEAD, HEAD, revision_of
from support.sample_rows import load_rows, row_digests
from syntegra_db.catalog import Month, month_name_expression

if TYPE_CHECKING:
    from pathlib import Path

    from support.checkouts import Checkout
    from support.servers import Database, Server

pytestmark = pytest.mark.long

EXIT_MIGRATION_FAILED = 11
EXIT_PSQL_ERROR = 3
RELATIONS: LiteralString = "SELECT relname, relkind::text FROM pg_class WHERE relname LIKE '%kpi_summary%' ORDER BY 1"
MONTHS: LiteralString = """SELECT inhrelid::regclass::text FROM pg_inherits
    WHERE inhparent = 'kpi_summary'::regclass AND inhrelid::regclass::text ~ '[0-9]$' ORDER BY 1"""
MAX_TABLE_BYTES = 55
# Indexes whose names differ only at their ends.
LONG_TABLE = """
    op.create_table(
        "{table}",
        sa.Column("id", sa.BigInteger(), primary_key=True), sa.Column("at :hour", sa.{type}(), nullable=False),
        sa.Column("one", sa.Integer()), sa.Column("two", sa.Integer()),
    )
    op.execute("INSERT INTO {table} SELECT n, date '2024-01-01' + n FROM generate_series(1, 500) AS n")
    op.create_index("{index}_one", "{table}", ["one"])
    op.create_index("{index}_two", "{table}", ["two"])
    op.partition_by_month("{table}", "at :hour")
"""


@pytest.fixture
def filled(checkout: Checkout, server: Server, database: Database) -> Database:
    """Return a database with rows, before the revision of `checkout`."""
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS["partitions by month"])
    checkout.write_manifests(server)
    load_rows(database, 1_000)
    return database


def migrate(checkout: Checkout, database: Database, *command: str, status: int = 0) -> str:
    result = checkout.run("syntegra-db", *command, database=database)
    assert result.returncode == status, result.stderr
    return result.stderr


def run_printed(database: Database, errors: str, after: str) -> None:
    """Execute the statements that a message has at its end."""
    statements = errors.strip().rpartition(after)[2]
    assert statements.endswith(";"), errors
    with database.connect() as connection:
        for statement in statements.removesuffix(";").split("; "):
            connection.execute(statement.encode())


def test_detached_first_partition_stops_the_downgrade_until_it_is_renamed(checkout: Checkout, filled: Database) -> None:
    migrate(checkout, filled, "upgrade")
    filled.execute("ALTER TABLE kpi_summary DETACH PARTITION kpi_summary_past")
    filled.execute(INSERT_KPI)
    before, relations = row_digests(filled, "kpi_summary"), filled.query(RELATIONS)
    errors = migrate(checkout, filled, "downgrade", HEAD, status=EXIT_MIGRATION_FAILED)
    assert "table kpi_summary_past exists, but is no partition of table kpi_summary." in errors
    assert filled.query(RELATIONS) == relations
    run_printed(filled, errors, "To rename it: ")
    migrate(checkout, filled, "downgrade", HEAD)
    assert row_digests(filled, "kpi_summary") == before
    assert filled.query("SELECT count(*) > 100 FROM kpi_summary_detached") == [(True,)]
    checkout.succeed("syntegra-db", "verify", database=filled)
    # Its indexes still have the names of the first partition's.
    errors = migrate(checkout, filled, "upgrade", status=EXIT_MIGRATION_FAILED)
    assert "the names of its partitions are in use: index idx_kpi_summary_past_client_id, " in errors
    run_printed(filled, errors, "to another schema: ")
    migrate(checkout, filled, "upgrade")
    assert filled.query("SELECT count(*) > 100 FROM detached.kpi_summary_detached") == [(True,)]
    checkout.succeed("syntegra-db", "verify", database=filled)


def test_first_partition_that_is_attached_again_is_merged(checkout: Checkout, filled: Database) -> None:
    migrate(checkout, filled, "upgrade")
    before = row_digests(filled)
    [(bound,)] = filled.query("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'kpi_summary_past'")
    filled.execute("ALTER TABLE kpi_summary DETACH PARTITION kpi_summary_past")
    migrate(checkout, filled, "downgrade", HEAD, status=EXIT_MIGRATION_FAILED)
    filled.execute(f"ALTER TABLE kpi_summary ATTACH PARTITION kpi_summary_past {bound}".encode())  # type: ignore[arg-type]
    migrate(checkout, filled, "downgrade", HEAD)
    assert row_digests(filled) == before
    checkout.succeed("syntegra-db", "verify", database=filled)


def test_detached_months_are_kept_and_stop_only_an_upgrade_that_needs_their_names(
    checkout: Checkout, filled: Database
) -> None:
    migrate(checkout, filled, "upgrade")
    months = [name for (name,) in filled.query(MONTHS)]
    for name in months:
        filled.execute(f"ALTER TABLE kpi_summary DETACH PARTITION {name}".encode())  # type: ignore[arg-type]
    migrate(checkout, filled, "downgrade", HEAD)
    checkout.succeed("syntegra-db", "verify", database=filled)
    relations = filled.query(RELATIONS)
    errors = migrate(checkout, filled, "upgrade", status=EXIT_MIGRATION_FAILED)
    assert f"are in use: {', '.join(f'table {name}' for name in months)}." in errors
    assert filled.query(RELATIONS) == relations
    run_printed(filled, errors, "to another schema: ")
    migrate(checkout, filled, "upgrade")
    assert [name for (name,) in filled.query(MONTHS)] == months
    checkout.succeed("syntegra-db", "verify", database=filled)


OBSTACLES: dict[str, tuple[LiteralString, LiteralString]] = {
    "view": ("CREATE VIEW kpi_summary_default AS SELECT 1 AS one", "DROP VIEW kpi_summary_default"),
    "type": ("CREATE TYPE kpi_summary_past AS ENUM ('one')", "DROP TYPE kpi_summary_past"),
    "sequence": ("CREATE SEQUENCE kpi_summary_past_pkey", "DROP SEQUENCE kpi_summary_past_pkey"),
}


@pytest.mark.parametrize("kind", OBSTACLES)
def test_object_with_the_name_of_a_partition_stops_the_upgrade(checkout: Checkout, filled: Database, kind: str) -> None:
    create, drop = OBSTACLES[kind]
    filled.execute(create)
    errors = migrate(checkout, filled, "upgrade", status=EXIT_MIGRATION_FAILED)
    assert f"the names of its partitions are in use: {kind} {create.split()[2]}." in errors
    assert "ALTER TABLE" not in errors
    filled.execute(drop)
    migrate(checkout, filled, "upgrade")


@pytest.mark.parametrize("rollback", [False, True], ids=["upgrade", "downgrade"])
def test_missing_table_is_named(checkout: Checkout, filled: Database, tmp_path: Path, *, rollback: bool) -> None:
    if rollback:
        migrate(checkout, filled, "upgrade")
    filled.execute("DROP TABLE kpi_summary")
    option = ("--rollback",) if rollback else ()
    script = checkout.succeed("syntegra-db", "sql", AFTER_HEAD, *option)
    result = psql.feed(filled.url, script, tmp_path)
    assert result.returncode == EXIT_PSQL_ERROR
    assert re.search("ERROR:  schema public has no table kpi_summary$", result.stderr, re.MULTILINE)
    command = ("downgrade", HEAD) if rollback else ("upgrade",)
    assert "schema public has no table kpi_summary." in migrate(
        checkout, filled, *command, status=EXIT_MIGRATION_FAILED
    )


def test_table_that_disappears_after_the_first_steps_is_named(checkout: Checkout, filled: Database) -> None:
    filled.execute("UPDATE kpi_summary SET period_start = 'infinity', period_end = 'infinity' WHERE id = 5")
    migrate(checkout, filled, "upgrade", status=EXIT_MIGRATION_FAILED)
    filled.execute("ALTER TABLE kpi_summary RENAME TO kpis")
    errors = migrate(checkout, filled, "upgrade", status=EXIT_MIGRATION_FAILED)
    assert "schema public has no table kpi_summary." in errors
    filled.execute("ALTER TABLE kpis RENAME TO kpi_summary; DELETE FROM kpi_summary WHERE id = 5")
    migrate(checkout, filled, "upgrade")
    checkout.succeed("syntegra-db", "verify", database=filled)


@pytest.mark.parametrize("type_", ["Date", "DateTime"])
def test_longest_table_is_partitioned_and_gets_months(
    checkout: Checkout, server: Server, database: Database, type_: str
) -> None:
    table = "t".ljust(MAX_TABLE_BYTES, "x")
    body = LONG_TABLE.format(table=table, index=table, type=type_)
    checkout.add_revision(AFTER_HEAD, body, f'op.merge_partitions("{table}", "at :hour")\nop.drop_table("{table}")')
    checkout.write_manifests(server)
    migrate(checkout, database, "upgrade")
    with database.connect() as connection:
        rows = "SELECT n, now() AT TIME ZONE 'UTC' + interval '6 months' FROM generate_series(1001, 1007) AS n"
        connection.execute(f"INSERT INTO {table} {rows}".encode())
    printed = checkout.succeed("syntegra-db", "partitions", "create", "--months", "8", "--move-rows", database=database)
    assert "7 rows moved" in printed
    checkout.succeed("syntegra-db", "verify", database=database)
    migrate(checkout, database, "downgrade", HEAD)
    assert revision_of(database) == HEAD


@pytest.mark.parametrize("operation", ["partition_by_month", "merge_partitions"])
def test_longer_table_is_refused(checkout: Checkout, operation: str) -> None:
    table = "t".ljust(MAX_TABLE_BYTES + 1, "x")
    checkout.add_revision(AFTER_HEAD, f'op.{operation}("{table}", "day")')
    result = checkout.run("syntegra-db", "sql", AFTER_HEAD)
    assert result.returncode == EXIT_MIGRATION_FAILED, result.stderr
    assert f"The table {table} cannot be partitioned by month: its name has more than 55 bytes" in result.stderr


@pytest.mark.parametrize(
    "table", ["kpi_summary", "a", 'with "quotes"', "back\\slash", "YYYY_MM", "it's", "Ü" * 20, "%s", ":name", "{0}"]
)
def test_name_of_a_month_is_the_same_in_sql_and_python(database: Database, table: str) -> None:
    months = [Month(year, number) for year in (1, 99, 999, 1970, 2026, 9999) for number in range(1, 13)]
    starts = [month.start.replace(tzinfo=None) for month in months]
    with database.connect() as connection:
        expression = month_name_expression(table, "month").replace("%", "%%")
        query = f"SELECT {expression} FROM unnest(%s::timestamp[]) WITH ORDINALITY AS months (month, n) ORDER BY n"
        names = [name for (name,) in connection.execute(query.encode(), (starts,))]
    assert names == [month.partition_name(table) for month in months]
