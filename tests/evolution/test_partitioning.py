"""`op.partition_by_month` and `op.merge_partitions`: what they keep, refuse and undo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from support.checkouts import Checkout
from support.evolutions import EVOLUTIONS, INSERT_KPI
from support.processes import writing
from support.revisions import AFTER_HEAD, HEAD, revision_of
from support.sample_rows import load_rows, row_digests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server

pytestmark = pytest.mark.long

EXIT_MIGRATION_FAILED = 11
MAX_INSERT_SECONDS = 0.8
READER = "syntegra_test_kpi_reader"
RELATIONS: LiteralString = "SELECT relname, relkind::text FROM pg_class WHERE relname LIKE '%kpi_summary%' ORDER BY 1"
# What would belong to the first partition, and what drops it.
DEPENDENTS: dict[str, tuple[LiteralString, LiteralString, str]] = {
    "view": ("CREATE VIEW reader AS SELECT id FROM kpi_summary", "DROP VIEW reader", "view reader reads it"),
    "materialized view": (
        "CREATE MATERIALIZED VIEW sums AS SELECT sum(kpi_value) FROM kpi_summary",
        "DROP MATERIALIZED VIEW sums",
        "materialized view sums reads it",
    ),
    "foreign key": (
        "CREATE TABLE notes (kpi bigint REFERENCES kpi_summary)",
        "DROP TABLE notes",
        "foreign key notes_kpi_fkey of notes references it",
    ),
    "function": (
        "CREATE FUNCTION kpis() RETURNS SETOF kpi_summary LANGUAGE sql AS 'SELECT * FROM kpi_summary'",
        "DROP FUNCTION kpis()",
        "function kpis() uses its row type",
    ),
    "function with a body": (
        "CREATE FUNCTION total() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM kpi_summary; END",
        "DROP FUNCTION total()",
        "function total() reads it",
    ),
    "policy of another table": (
        "CREATE POLICY known ON clusters USING (EXISTS (SELECT FROM kpi_summary AS k WHERE k.client_id = cluster_id))",
        "DROP POLICY known ON clusters",
        "policy known on table clusters reads it",
    ),
    "trigger": (
        """CREATE TRIGGER tidy BEFORE UPDATE ON kpi_summary FOR EACH ROW
        EXECUTE FUNCTION suppress_redundant_updates_trigger()""",
        "DROP TRIGGER tidy ON kpi_summary",
        "trigger tidy is on it",
    ),
    "unique index": (
        "CREATE UNIQUE INDEX one ON kpi_summary (id, client_id)",
        "DROP INDEX one",
        "unique index one has no column period_start",
    ),
    "publication": (
        "SET client_min_messages = error; CREATE PUBLICATION kpis FOR TABLE kpi_summary",
        "DROP PUBLICATION kpis",
        "publication kpis has it",
    ),
    "row-level security": (
        "ALTER TABLE kpi_summary FORCE ROW LEVEL SECURITY",
        "ALTER TABLE kpi_summary DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;",
        "row-level security is on it: ALTER TABLE kpi_summary DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;",
    ),
}
# What a downgrade would drop with the partitioned table.
OWN_PARTS = ("trigger", "publication", "row-level security")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("partitioning") / "checkout")
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS["partitions by month"])
    checkout.write_manifests(server)
    return checkout


@pytest.fixture
def filled(database: Database) -> Iterator[Database]:
    load_rows(database, 2_000)
    yield database
    database.execute("DROP PUBLICATION IF EXISTS kpis")


def migrate(checkout: Checkout, database: Database, *command: str, status: int = 0) -> str:
    result = checkout.run("syntegra-db", *command, database=database)
    assert result.returncode == status, result.stderr
    return result.stderr


def description(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the applications of a table depend on, apart from its constraints and indexes."""
    return {
        "privileges": database.query(
            "SELECT grantee, privilege_type, is_grantable FROM information_schema.role_table_grants "
            "WHERE table_name = 'kpi_summary' ORDER BY 1, 2"
        ),
        "columns": database.query(
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull, attacl::text, attstorage::text, "
            "pg_get_expr(adbin, adrelid), col_description(attrelid, attnum) FROM pg_attribute LEFT JOIN pg_attrdef "
            "ON adrelid = attrelid AND adnum = attnum WHERE attrelid = 'kpi_summary'::regclass AND attnum > 0 "
            "ORDER BY attnum"
        ),
        "table": database.query(
            "SELECT relowner::regrole::text, obj_description(oid, 'pg_class'), "
            "pg_get_serial_sequence('kpi_summary', 'id') FROM pg_class WHERE oid = 'kpi_summary'::regclass"
        ),
    }


def test_partitioned_table_keeps_privileges_columns_comments_and_sequence(
    checkout: Checkout, server: Server, filled: Database
) -> None:
    with server.role(READER):
        filled.execute(
            f"GRANT SELECT, UPDATE ON kpi_summary TO {READER}; GRANT INSERT (kpi_name) ON kpi_summary TO {READER};"
            "ALTER TABLE kpi_summary ADD label text DEFAULT 'none', ADD CONSTRAINT ck_label CHECK (label <> '');"
            "COMMENT ON COLUMN kpi_summary.label IS 'of the application';"
            "CREATE INDEX app_label ON kpi_summary (label)"
        )
        before, rows = description(filled), row_digests(filled)
        for command in (("upgrade",), ("downgrade", HEAD)):
            migrate(checkout, filled, *command)
            assert description(filled) == before
            assert row_digests(filled) == rows
            assert filled.query("SELECT FROM pg_indexes WHERE tablename = 'kpi_summary' AND indexname = 'app_label'")
        filled.execute(f"DROP OWNED BY {READER}")


def test_services_write_during_upgrade(checkout: Checkout, filled: Database) -> None:
    with writing(filled, INSERT_KPI) as inserts:
        migrate(checkout, filled, "upgrade")
    assert max(inserts) < MAX_INSERT_SECONDS


@pytest.mark.parametrize("kind", DEPENDENTS)
def test_what_would_belong_to_the_first_partition_is_listed(checkout: Checkout, filled: Database, kind: str) -> None:
    create, drop, reason = DEPENDENTS[kind]
    before = filled.query(RELATIONS)
    filled.execute(create)
    errors = migrate(checkout, filled, "upgrade", status=EXIT_MIGRATION_FAILED)
    assert f"table kpi_summary cannot be partitioned in place: {reason}" in errors
    filled.execute(drop)
    assert filled.query(RELATIONS) == before
    migrate(checkout, filled, "upgrade")
    assert revision_of(filled) == AFTER_HEAD


@pytest.mark.parametrize("kind", OWN_PARTS)
def test_what_a_downgrade_would_drop_is_listed(checkout: Checkout, filled: Database, kind: str) -> None:
    create, drop, reason = DEPENDENTS[kind]
    before = row_digests(filled)
    migrate(checkout, filled, "upgrade")
    filled.execute(create)
    errors = migrate(checkout, filled, "downgrade", HEAD, status=EXIT_MIGRATION_FAILED)
    assert f"the partitions of table kpi_summary cannot be merged: {reason}" in errors
    filled.execute(drop)
    migrate(checkout, filled, "downgrade", HEAD)
    assert row_digests(filled) == before


def test_downgrade_keeps_rows_of_an_interrupted_detach(checkout: Checkout, filled: Database) -> None:
    migrate(checkout, filled, "upgrade")
    filled.execute(INSERT_KPI)
    before = row_digests(filled)
    # As DETACH CONCURRENTLY leaves it, which is rejected next to a default partition.
    filled.execute(
        "SET allow_system_table_mods = on;"
        "UPDATE pg_inherits SET inhdetachpending = true WHERE inhrelid = 'kpi_summary_past'::regclass"
    )
    errors = migrate(checkout, filled, "downgrade", HEAD, status=EXIT_MIGRATION_FAILED)
    fix = errors.partition("a DETACH is not finished: ")[2].partition(";")[0]
    [(bound,)] = filled.query("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'kpi_summary_past'")
    for statement in (fix, f"ALTER TABLE kpi_summary ATTACH PARTITION kpi_summary_past {bound}"):
        filled.execute(statement.encode())  # type: ignore[arg-type]  # printed
    migrate(checkout, filled, "downgrade", HEAD)
    assert row_digests(filled) == before


@pytest.mark.parametrize("moment", ["infinity", "10000-01-01", "294276-12-31"])
def test_row_without_a_month_is_named_and_the_upgrade_finished_or_undone(
    checkout: Checkout, filled: Database, moment: LiteralString
) -> None:
    before, relations = row_digests(filled), filled.query(RELATIONS)
    filled.execute(f"UPDATE kpi_summary SET period_start = '{moment}', period_end = 'infinity' WHERE id = 5")
    errors = migrate(checkout, filled, "upgrade", status=EXIT_MIGRATION_FAILED)
    assert "rows of table kpi_summary are later than the year 9999" in errors
    query = errors.partition("run this again: ")[2].partition(";")[0]
    # The driver reads no infinity.
    assert filled.query(f"SELECT id FROM ({query}) AS found".encode()) == [(5,)]  # type: ignore[arg-type]  # printed
    assert checkout.run("syntegra-db", "verify", database=filled).returncode == 0
    migrate(checkout, filled, "downgrade", "-1")
    assert filled.query(RELATIONS) == relations
    checkout.succeed("syntegra-db", "verify", database=filled)
    filled.execute("DELETE FROM kpi_summary WHERE id = 5")
    migrate(checkout, filled, "upgrade")
    checkout.succeed("syntegra-db", "verify", database=filled)
    assert row_digests(filled)["anomaly_log"] == before["anomaly_log"]


@pytest.mark.parametrize("end", ["upgrade", "downgrade"])
def test_interrupted_downgrade_is_finished_or_undone(checkout: Checkout, filled: Database, end: str) -> None:
    before = row_digests(filled)
    migrate(checkout, filled, "upgrade")
    relations = filled.query(RELATIONS)
    filled.execute("CREATE VIEW reader AS SELECT id FROM kpi_summary")
    errors = migrate(checkout, filled, "downgrade", HEAD, status=EXIT_MIGRATION_FAILED)
    assert "reader" in errors
    assert checkout.run("syntegra-db", "verify", database=filled).returncode == 0
    if end == "downgrade":
        filled.execute("DROP VIEW reader")
        migrate(checkout, filled, "downgrade", HEAD)
    else:
        migrate(checkout, filled, "upgrade")
        assert filled.query(RELATIONS) == relations
        filled.execute("DROP VIEW reader")
    checkout.succeed("syntegra-db", "verify", database=filled)
    assert row_digests(filled) == before


def test_downgrade_after_the_first_partition_was_dropped_keeps_the_rest(checkout: Checkout, filled: Database) -> None:
    migrate(checkout, filled, "upgrade")
    filled.execute("DROP TABLE kpi_summary_past")
    filled.execute(INSERT_KPI)
    before = row_digests(filled, "kpi_summary")
    migrate(checkout, filled, "downgrade", HEAD)
    assert row_digests(filled, "kpi_summary") == before
    checkout.succeed("syntegra-db", "verify", database=filled)
