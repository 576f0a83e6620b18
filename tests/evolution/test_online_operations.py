"""Revisions with online operations: they run in steps, continue after an interruption, and can be undone."""

from __future__ import annotations

import random
import re
import signal
import time
from typing import TYPE_CHECKING, LiteralString

import pytest
from psycopg import sql

from support.evolutions import EVOLUTIONS, INSERT_KPI, INVALID_INDEXES, UNFINISHED
from support.processes import wait_for_rows, writing
from support.revisions import AFTER_HEAD, HEAD
from support.sample_rows import load_rows, row_digests

if TYPE_CHECKING:
    import subprocess

    from support.checkouts import Checkout
    from support.servers import Database, Server

LABEL_EVOLUTION = "NOT NULL column with values from others"
ROWS = 20_000
KILLS = 4
EXIT_REVISION_ERROR = 8
MAX_INSERT_SECONDS = 0.8
# A backfill of this many rows takes longer than the pause of its test.
SLOW_ROWS = 300_000
# With the object that `verify` reports after each, one after another, and how it is found.
UNEXPLAINED: dict[LiteralString, tuple[str, str]] = {
    "ALTER TABLE kpi_summary SET UNLOGGED": ("table kpi_summary", "unlogged"),
    "ALTER TABLE kpi_summary DROP metadata": ("column kpi_summary.metadata", "no such column"),
    "ALTER TYPE anomaly_severity RENAME VALUE 'low' TO 'least'": ("type anomaly_severity", "least, medium, "),
    "DROP TABLE clusters": ("table clusters", "no such table"),
    "DROP TABLE kpi_summary CASCADE": ("table kpi_summary", "no such table"),
    "DROP TYPE anomaly_severity CASCADE": ("column anomaly_log.severity", "no such column"),
    "ALTER TABLE anomaly_log ADD severity text": ("type anomaly_severity", "no such ENUM type"),
}


@pytest.fixture
def filled(database: Database) -> Database:
    load_rows(database, ROWS)
    return database


def prepare(checkout: Checkout, server: Server, kind: str) -> None:
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS[kind])
    checkout.write_manifests(server)


@pytest.mark.parametrize("kind", EVOLUTIONS)
def test_evolution_goes_up_and_down_without_drift_while_services_write(
    checkout: Checkout, server: Server, filled: Database, kind: str
) -> None:
    prepare(checkout, server, kind)
    before = row_digests(filled)
    for arguments in (("upgrade",), ("downgrade", HEAD), ("upgrade",)):
        result = checkout.run("syntegra-db", *arguments, database=filled)
        assert result.returncode == 0, result.stderr
        assert checkout.run("syntegra-db", "verify", database=filled).returncode == 0
        assert not filled.query(UNFINISHED)
        if arguments[0] == "downgrade" and kind != "dropped column":
            assert row_digests(filled) == before


@pytest.mark.long
@pytest.mark.parametrize(
    "kind", [LABEL_EVOLUTION, "index", "foreign key", "unique constraint", "partitions by month", "second embedding"]
)
def test_killed_upgrade_is_reported_and_continues(
    checkout: Checkout, server: Server, filled: Database, kind: str
) -> None:
    prepare(checkout, server, kind)
    before = row_digests(filled)
    killed = 0
    for step in range(1, KILLS + 1):
        with checkout.running("syntegra-db", "upgrade", database=filled) as process:
            kill_during_step(process, step)
        killed += process.returncode == -signal.SIGKILL
        result = checkout.run("syntegra-db", "verify", database=filled)
        assert result.returncode == 0, result.stdout
        assert checkout.run("syntegra-db", "status", database=filled).returncode == 0
    assert killed
    result = checkout.run("syntegra-db", "upgrade", database=filled)
    assert result.returncode == 0, result.stderr
    assert checkout.run("syntegra-db", "verify", database=filled).returncode == 0
    assert not filled.query(UNFINISHED)
    assert not filled.query(INVALID_INDEXES)
    assert checkout.run("syntegra-db", "downgrade", HEAD, database=filled).returncode == 0
    assert row_digests(filled) == before


def kill_during_step(process: subprocess.Popen[str], step: int) -> None:
    """Kill `process` up to 50 ms after it has logged that it begins `step`, or let it end before that."""
    assert process.stderr is not None
    for line in process.stderr:
        if f"step {step} of" in line:
            time.sleep(random.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.long
def test_killed_backfill_continues_after_its_last_batch(checkout: Checkout, server: Server, database: Database) -> None:
    load_rows(database, SLOW_ROWS)
    prepare(checkout, server, LABEL_EVOLUTION)
    with checkout.running("syntegra-db", "upgrade", database=database) as process:
        wait_for_rows(database, "SELECT FROM pg_class WHERE relname = 'alembic_version_steps'")
        wait_for_rows(database, "SELECT FROM alembic_version_steps WHERE changed_rows BETWEEN 1000 AND 60000")
        process.send_signal(signal.SIGKILL)
    [(changed, last_id)] = database.query("SELECT changed_rows, last_id FROM alembic_version_steps WHERE last_id > 0")
    status = checkout.run("syntegra-db", "status", database=database).stdout
    assert f"the upgrade of revision {AFTER_HEAD} is unfinished: step 2 of 5, backfill kpi_summary.label (" in status
    verified = checkout.run("syntegra-db", "verify", database=database)
    assert verified.returncode == 0, verified.stdout
    assert "The schema is between two revisions" in verified.stdout
    for command in (f"upgrade {HEAD}", f"rollback {HEAD}", "adopt"):
        rejected = checkout.run("syntegra-db", *command.split(), database=database)
        assert rejected.returncode == EXIT_REVISION_ERROR, rejected.stderr
        assert (
            f"To finish it: syntegra-db upgrade {AFTER_HEAD}; to undo it: syntegra-db downgrade {HEAD}"
            in rejected.stderr
        )
    assert checkout.run("syntegra-db", "backup", database=database).returncode == 0
    database.execute(sql.SQL("UPDATE kpi_summary SET label = 'kept' WHERE id <= {}").format(last_id))
    assert checkout.run("syntegra-db", "upgrade", database=database).returncode == 0
    assert database.query("SELECT count(*) FROM kpi_summary WHERE label = 'kept'") == [(changed,)]
    assert database.query("SELECT count(*) FROM kpi_summary WHERE label <> upper(kpi_name) AND label <> 'kept'") == [
        (0,)
    ]
    assert checkout.run("syntegra-db", "verify", database=database).returncode == 0


@pytest.mark.long
def test_index_waits_for_older_transaction_and_keeps_writers_going(
    checkout: Checkout, server: Server, filled: Database
) -> None:
    prepare(checkout, server, "index")
    with filled.connect() as blocker, writing(filled, INSERT_KPI) as inserts:
        blocker.execute("BEGIN")
        blocker.execute(INSERT_KPI)
        with checkout.running("syntegra-db", "upgrade", database=filled) as process:
            wait_for_rows(filled, "SELECT FROM pg_stat_activity WHERE wait_event = 'virtualxid'")
            time.sleep(3)
            blocker.execute("COMMIT")
            _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "Waiting for pid" in errors
    assert max(inserts) < MAX_INSERT_SECONDS


def test_locked_row_is_tried_again_with_its_batch_only(checkout: Checkout, server: Server, filled: Database) -> None:
    checkout.add_revision(AFTER_HEAD, """op.backfill("kpi_summary", {"metadata": "'{}'"}, "metadata IS NULL")""")
    checkout.write_manifests(server)
    with filled.connect() as blocker, checkout.running("syntegra-db", "upgrade", database=filled) as process:
        blocker.execute("BEGIN")
        blocker.execute("SELECT FROM kpi_summary WHERE id = 4000 FOR UPDATE")
        wait_for_rows(filled, "SELECT FROM pg_stat_activity WHERE wait_event = 'transactionid'")
        time.sleep(3)
        blocker.execute("COMMIT")
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "trying again" in errors
    assert filled.query("SELECT DISTINCT metadata FROM kpi_summary") == [({},)]


@pytest.mark.long
def test_duplicate_rows_are_named_and_leave_no_index(checkout: Checkout, server: Server, filled: Database) -> None:
    checkout.add_revision(
        AFTER_HEAD,
        """
        op.add_column("kpi_summary", sa.Column("unit", sa.String(10)))
        op.create_index_online("idx_kpi_summary_name", "kpi_summary", ["kpi_name"], unique=True)
        """,
        """
        op.drop_index_online("idx_kpi_summary_name", "kpi_summary")
        op.drop_column("kpi_summary", "unit")
        """,
    )
    checkout.write_manifests(server)
    before = row_digests(filled)
    result = checkout.run("syntegra-db", "upgrade", database=filled)
    assert result.returncode == 11, result.stderr
    assert "step 2 of 2, create index idx_kpi_summary_name" in result.stderr
    assert "nothing else was changed" not in result.stderr
    query = result.stderr.partition("run this again: ")[2].strip()
    assert filled.query(query.encode())  # type: ignore[arg-type]  # printed
    assert not filled.query("SELECT FROM pg_class WHERE relname = 'idx_kpi_summary_name'")
    undone = checkout.run("syntegra-db", "downgrade", "-1", database=filled)
    assert undone.returncode == 0, undone.stderr
    assert checkout.run("syntegra-db", "verify", database=filled).returncode == 0
    assert row_digests(filled) == before
    assert not filled.query(UNFINISHED)


@pytest.mark.long
def test_verify_during_unfinished_revision_reports_what_no_step_explains(
    checkout: Checkout, server: Server, filled: Database
) -> None:
    checkout.add_revision(
        AFTER_HEAD,
        """
        op.add_enum_label("anomaly_severity", "urgent", after="high")
        op.backfill("kpi_summary", {"metadata": "'{}'"}, "metadata IS NULL")
        op.create_check_constraint_online("ck_kpi_summary_value", "kpi_summary", "kpi_value IS NULL")
        op.add_enum_label("anomaly_severity", "worst", after="critical")
        """,
    )
    checkout.write_manifests(server)
    result = checkout.run("syntegra-db", "upgrade", database=filled)
    assert result.returncode == 11, result.stderr
    assert "check the rows of kpi_summary for ck_kpi_summary_value" in result.stderr
    verified = checkout.run("syntegra-db", "verify", database=filled)
    assert verified.returncode == 0, verified.stdout
    for statement, (label, found) in UNEXPLAINED.items():
        filled.execute(statement)
        verified = checkout.run("syntegra-db", "verify", database=filled)
        assert verified.returncode == 1, verified.stdout
        reported = re.findall(
            rf"^  {re.escape(label)}\n    expected .*\n    found     (.*)$", verified.stdout, re.MULTILINE
        )
        assert any(line.startswith(found) for line in reported), verified.stdout
