"""SIGTERM, SIGHUP and Ctrl-C end every command at once: nothing runs on, and the message reports what was changed."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import pytest
from psycopg import sql

from support.commands import PROGRAMS, ROOT, run
from support.legacy_databases import create_legacy_database
from support.operator_guide import Checkout
from support.processes import migration_lock_of, running, wait_for_rows, wait_until
from support.revisions import HEAD
from support.sample_rows import load_rows, row_digests
from support.texts import load_texts
from syntegra_db.backup import create_backup

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from support.servers import Database

STATUSES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
LOCK_WAITS = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
# pg_dump reads this catalog; none of our statements does, and no session that starts, because it has no system cache.
LOCK_PG_DUMP: LiteralString = "LOCK TABLE pg_catalog.pg_init_privs"
# Sessions of tests have the name `syntegra_db` alone.
SESSIONS = "SELECT FROM pg_stat_activity WHERE application_name LIKE 'syntegra_db _%' AND datname = current_database()"
ADVISORY_LOCKS = (
    "SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database "
    "WHERE locktype = 'advisory' AND datname = current_database()"
)
COMMAND_LINES = [("syntegra-db",), ("alembic",), ("python", "-m", "syntegra_db")]
ROWS = 5_000


@contextmanager
def locked(database: Database, statement: LiteralString) -> Iterator[psycopg.Connection[Any]]:
    """Hold the locks of `statement` during the block."""
    with database.connect() as holder:
        holder.autocommit = False
        holder.execute(statement)
        yield holder
        holder.rollback()


def end(process: subprocess.Popen[str], database: Database, number: signal.Signals) -> str:
    """Send a signal, assert that the command ends with its status and leaves no session, and return its last line."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == STATUSES[number], errors
    assert "Traceback" not in errors
    assert "cancel" not in errors
    wait_until(lambda: not database.query(SESSIONS), 5)
    assert not database.query(ADVISORY_LOCKS)
    last = errors.splitlines()[-1]
    assert ("Interrupted." if number == signal.SIGINT else f"Terminated by {number.name}.") in last
    return last


@pytest.mark.parametrize("number", STATUSES)
@pytest.mark.parametrize("program", COMMAND_LINES)
def test_downgrade_that_waits_for_lock_ends_at_signal_and_reports_revision(
    database_003: Database, program: tuple[str, ...], number: signal.Signals
) -> None:
    database = database_003
    with (
        locked(database, "LOCK TABLE data_sources"),
        running(database, *program, "downgrade", "002", cwd=ROOT) as process,
    ):
        wait_for_rows(database, LOCK_WAITS)
        last = end(process, database, number)
    assert last.endswith("The database is at revision 003, and nothing else was changed.")
    assert database.query("SELECT version_num FROM alembic_version") == [("003",)]


@pytest.mark.parametrize(
    ("command", "state"),
    [
        (("rollback", "002"), f"The database is still at revision {HEAD}."),
        (("restore", "before.dump", "--replace"), "No row was restored or deleted."),
    ],
)
def test_command_whose_comparison_waits_for_lock_reports_state(
    database: Database, tmp_path: Path, command: tuple[str, ...], state: str
) -> None:
    url = database.url.render_as_string(hide_password=False)
    assert run("syntegra-db", "backup", "--output", "before.dump", url=url, cwd=tmp_path).returncode == 0
    with (
        locked(database, "LOCK TABLE data_sources"),
        running(database, "syntegra-db", *command, cwd=tmp_path) as process,
    ):
        wait_for_rows(database, LOCK_WAITS)
        last = end(process, database, signal.SIGTERM)
    assert last.endswith(state)


def test_upgrade_in_its_pause_ends_at_signal(empty_database: Database) -> None:
    with (
        locked(empty_database, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)"),
        running(empty_database, "syntegra-db", "upgrade", "--lock-timeout", "0.001") as process,
    ):
        assert process.stderr is not None
        while "trying again in" not in process.stderr.readline():
            assert process.poll() is None
        last = end(process, empty_database, signal.SIGTERM)
    assert last.endswith("The database is at no revision, and nothing else was changed.")


def test_upgrade_that_waits_for_other_migration_ends_at_signal(empty_database: Database) -> None:
    with migration_lock_of(empty_database), running(empty_database, "syntegra-db", "upgrade") as process:
        assert process.stderr is not None
        assert "Waiting for another migration" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 143
    assert errors == "Terminated by SIGTERM. The database is at no revision, and nothing else was changed.\n"


@pytest.mark.parametrize(
    ("command", "state"),
    [
        (("backup",), "No backup was written to"),
        (("rollback", "002"), f"The database is still at revision {HEAD}."),
    ],
)
@pytest.mark.parametrize("number", STATUSES)
def test_command_with_waiting_pg_dump_ends_it_and_leaves_no_file(
    database: Database, tmp_path: Path, command: tuple[str, ...], state: str, number: signal.Signals
) -> None:
    with locked(database, LOCK_PG_DUMP), running(database, "syntegra-db", *command, cwd=tmp_path) as process:
        wait_for_rows(database, LOCK_WAITS)
        assert state in end(process, database, number)
    assert list(Path("backups").iterdir()) == []
    assert database.query("SELECT version_num FROM alembic_version") == [(HEAD,)]


def test_adoption_with_waiting_pg_dump_ends_it_and_leaves_no_file(empty_database: Database, tmp_path: Path) -> None:
    create_legacy_database(empty_database, "shared")
    with (
        locked(empty_database, LOCK_PG_DUMP),
        running(empty_database, "syntegra-db", "adopt", "--apply", cwd=tmp_path) as process,
    ):
        wait_for_rows(empty_database, LOCK_WAITS)
        assert "No backup was written to" in end(process, empty_database, signal.SIGTERM)
    assert list(Path("backups").iterdir()) == []


def test_adoption_that_waits_for_lock_keeps_tables(empty_database: Database) -> None:
    create_legacy_database(empty_database, "shared")
    with (
        locked(empty_database, "LOCK TABLE clusters IN ACCESS SHARE MODE"),
        running(empty_database, "syntegra-db", "adopt", "--apply", "--no-backup", "--yes") as process,
    ):
        wait_for_rows(empty_database, LOCK_WAITS)
        assert end(process, empty_database, signal.SIGTERM).endswith("The tables are unchanged.")
    assert empty_database.query("SELECT to_regclass('alembic_version')") == [(None,)]


# In the second case the server waits inside a row, and takes no more of them.
@pytest.mark.parametrize("seconds", ["0.02", "3600"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_restore_in_copy_ends_at_signal_and_keeps_rows(
    database: Database, tmp_path: Path, seconds: str, number: signal.Signals
) -> None:
    load_rows(database, ROWS)
    saved = create_backup(database.engine).path
    before = row_digests(database)
    database.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(tg_argv[0]::float); RETURN NEW; END'"
    )
    trigger = "CREATE TRIGGER wait BEFORE INSERT ON clusters FOR EACH ROW EXECUTE FUNCTION wait({})"
    with database.connect() as connection:
        connection.execute(sql.SQL(trigger).format(seconds))
    with running(database, "syntegra-db", "restore", str(saved), "--replace", cwd=tmp_path) as process:
        wait_for_rows(database, "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        assert end(process, database, number).endswith("No row was restored or deleted.")
        assert row_digests(database) == before


@pytest.mark.parametrize("phase", ["waiting", "calibrating"])
def test_rebuild_ends_at_signal_and_reports_index(database: Database, phase: str) -> None:
    load_texts(database, 2_000, {})
    writer = "UPDATE text_summary SET sentiment = 'mixed' WHERE id = 1" if phase == "waiting" else "SELECT"
    with locked(database, writer), running(database, "syntegra-db", "vectors", "rebuild") as process:
        assert process.stderr is not None
        while phase not in process.stderr.readline():
            assert process.poll() is None
        last = end(process, database, signal.SIGTERM)
    assert "The index idx_text_summary_embedding works, but is not calibrated." in last


def test_vectors_status_ends_at_signal(database: Database) -> None:
    load_texts(database, 2_000, {})
    with running(database, "syntegra-db", "vectors", "status", "--seconds", "600") as process:
        wait_for_rows(
            database, "SELECT FROM pg_stat_activity WHERE application_name = 'syntegra_db' AND pid <> pg_backend_pid()"
        )
        assert end(process, database, signal.SIGTERM) == "Terminated by SIGTERM."
        others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        wait_until(lambda: not database.query(others), 5)


def test_repeated_signal_does_not_interrupt_the_cleanup(database: Database) -> None:
    """A signal to a process group reaches a command twice if its parent, such as make, passes it on."""
    with locked(database, "LOCK TABLE data_sources"), running(database, "syntegra-db", "downgrade", "002") as process:
        wait_for_rows(database, LOCK_WAITS)
        process.send_signal(signal.SIGTERM)
        assert "nothing else was changed" in end(process, database, signal.SIGTERM)


def test_ignored_hangup_stays_ignored(database: Database) -> None:
    with (
        locked(database, "LOCK TABLE data_sources") as holder,
        running(database, "nohup", "syntegra-db", "downgrade", "002") as process,
    ):
        wait_for_rows(database, LOCK_WAITS)
        process.send_signal(signal.SIGHUP)
        holder.rollback()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


@pytest.mark.parametrize(
    "command", ["make --no-print-directory rollback-003", "bash scripts/rollback_migration_003.sh"]
)
def test_make_and_scripts_end_their_command_at_signal(database: Database, tmp_path: Path, command: str) -> None:
    checkout = Checkout(tmp_path / "checkout")
    with (
        locked(database, LOCK_PG_DUMP),
        running(database, *command.split(), cwd=checkout.folder, VENV=sys.prefix) as process,
    ):
        wait_for_rows(database, LOCK_WAITS)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
        wait_until(lambda: not database.query(SESSIONS), 5)
    assert process.returncode not in {0, None}
    assert f"The database is still at revision {HEAD}." in errors
    assert list((checkout.folder / "backups").iterdir()) == []


@pytest.mark.parametrize("command", [("rollback", "002"), ("adopt", "--apply")])
def test_ctrl_c_at_question_exits_130(database: Database, command: tuple[str, ...]) -> None:
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [PROGRAMS / "syntegra-db", *command, "--no-backup"],
        env={**os.environ, "DATABASE_URL": database.environment_url},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509  no thread runs here
    )
    os.close(terminal)
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(controller, 4096)
    os.write(controller, b"\x03")
    assert process.wait(10) == 130
    shown += os.read(controller, 4096)
    os.close(controller)
    assert b"Interrupted. Nothing was changed." in shown
    assert database.query("SELECT version_num FROM alembic_version") == [(HEAD,)]


def take_terminal() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
