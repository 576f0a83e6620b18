"""A restore whose own upgrade drops values, or is committed before the restore is interrupted."""

from __future__ import annotations

import re
import shlex
import signal
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from support.evolutions import EVOLUTIONS
from support.processes import wait_for_rows
from support.revisions import AFTER_HEAD, HEAD
from support.sample_rows import load_rows, row_digests

if TYPE_CHECKING:
    import subprocess

    from support.checkouts import Checkout
    from support.servers import Database, Server

pytestmark = pytest.mark.long

LABEL_UPGRADE, LABEL_DOWNGRADE = map(dedent, EVOLUTIONS["ENUM label"])
ADD = 'op.execute("ALTER TABLE kpi_summary ADD unit text")'
DROP = """
op.execute("UPDATE anomaly_log SET severity = 'high' WHERE severity = 'urgent'")
op.drop_column("kpi_summary", "unit")
"""
WAIT_AT_UPDATE = """
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3600); RETURN NEW; END';
    CREATE TRIGGER wait BEFORE UPDATE ON kpi_summary FOR EACH ROW EXECUTE FUNCTION wait()
"""
TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
REVISION = "SELECT version_num FROM alembic_version"


def roll_back_label(checkout: Checkout, server: Server, database: Database) -> list[str]:
    """Fill a new column and use a new label, roll both back, and return the arguments of the printed restore."""
    load_rows(database, 2_000)
    checkout.add_revision(AFTER_HEAD, f"{ADD}\n{LABEL_UPGRADE}", DROP + LABEL_DOWNGRADE)
    checkout.migrate(server, database)
    database.execute(
        "UPDATE anomaly_log SET severity = 'urgent' WHERE id <= 10; UPDATE kpi_summary SET unit = 'EUR' WHERE id <= 20"
    )
    printed = checkout.succeed("syntegra-db", "rollback", HEAD, database=database).splitlines()[-1]
    return shlex.split(printed)[1:]


def restore_columns(checkout: Checkout, database: Database, errors: str) -> None:
    """Run the last command that `errors` prints, and assert that it brings back the column and the label."""
    *_, command = re.findall(r"syntegra-db (restore .*--replace-column .*)", errors)
    checkout.succeed("syntegra-db", *shlex.split(command), database=database)
    assert database.query("SELECT count(*) FROM anomaly_log WHERE severity = 'urgent'") == [(10,)]
    assert database.query("SELECT count(*) FROM kpi_summary WHERE unit = 'EUR'") == [(20,)]
    checkout.succeed("syntegra-db", "verify", database=database)


@pytest.mark.parametrize(
    ("end", "status"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143), ("backend", 21)],
    ids=["SIGKILL", "SIGTERM", "terminated backend"],
)
def test_restore_interrupted_after_committed_label_prints_command_that_restores_columns(
    checkout: Checkout, server: Server, database: Database, end: signal.Signals | str, status: int
) -> None:
    arguments = roll_back_label(checkout, server, database)
    database.execute(WAIT_AT_UPDATE)
    with checkout.running("syntegra-db", *arguments, database=database) as process:
        wait_for_rows(database, "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        interrupt(process, database, end)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == status, errors
    assert database.query(REVISION) == [(AFTER_HEAD,)]
    if end != signal.SIGKILL:
        assert f"stays at revision {AFTER_HEAD}" in errors.splitlines()[-1]
        assert "--replace-column" in errors.splitlines()[-1]
    database.query(TERMINATE)
    database.execute("DROP TRIGGER wait ON kpi_summary; DROP FUNCTION wait")
    restore_columns(checkout, database, errors)


def interrupt(process: subprocess.Popen[str], database: Database, end: signal.Signals | str) -> None:
    if isinstance(end, signal.Signals):
        process.send_signal(end)
    else:
        database.query(TERMINATE)


def test_restore_interrupted_in_label_upgrade_prints_command_and_revision(
    checkout: Checkout, server: Server, database: Database
) -> None:
    arguments = roll_back_label(checkout, server, database)
    with database.connect() as holder:
        holder.autocommit = False
        holder.execute("LOCK TABLE kpi_summary IN ROW EXCLUSIVE MODE")
        with checkout.running("syntegra-db", *arguments, database=database) as process:
            wait_for_rows(database, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=30)
    assert process.returncode == 143, errors
    assert f"The database is at revision {HEAD}" in errors.splitlines()[-1]
    assert "If the schema was upgraded and the rows were not restored" in errors.splitlines()[-1]
    checkout.succeed("syntegra-db", "upgrade", AFTER_HEAD, database=database)
    restore_columns(checkout, database, errors)


def test_restore_with_replace_and_committed_label_prints_no_command(
    checkout: Checkout, server: Server, database: Database
) -> None:
    _, file, _ = roll_back_label(checkout, server, database)
    result = checkout.run("syntegra-db", "restore", file, "--replace", database=database)
    assert result.returncode == 0, result.stderr
    assert f"Upgrading the schema to revision {AFTER_HEAD} first" in result.stderr
    assert "--replace-column" not in result.stderr


@pytest.mark.parametrize("option", ["--keep", "--replace"])
def test_restore_announces_what_its_upgrade_drops(
    checkout: Checkout, server: Server, database: Database, option: str
) -> None:
    load_rows(database, 2_000)
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS["dropped column"], phase="contract")
    checkout.write_manifests(server)
    checkout.succeed("syntegra-db", "upgrade", "--contract", database=database)
    checkout.succeed("syntegra-db", "backup", "--output", "after.dump", database=database)
    repeated = checkout.run("syntegra-db", "restore", "after.dump", option, database=database)
    assert repeated.returncode == 0, repeated.stderr
    assert "This drops" not in repeated.stderr
    checkout.succeed("syntegra-db", "downgrade", HEAD, database=database)
    database.execute("UPDATE kpi_summary SET metadata = '{}' WHERE id <= 30")
    before = row_digests(database, "clusters")
    result = checkout.run("syntegra-db", "restore", "after.dump", option, database=database)
    assert result.returncode == 0, result.stderr
    [announced] = [line for line in result.stderr.splitlines() if "This drops" in line]
    assert announced.endswith("This drops kpi_summary.metadata (30 rows with a value)")
    assert row_digests(database, "clusters") == before
