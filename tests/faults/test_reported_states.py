"""The last line of an interrupted command says what state is left, in every phase."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.commands import PROGRAMS
from support.processes import DEFAULT_SIGNALS, lock_after, migration_lock_of, running, wait_for_rows, wait_until
from support.revisions import HEAD
from support.sample_rows import load_rows
from syntegra_db.backup import create_backup

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

COMPARISON_WAITS = (
    "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'syntegra_db _%'"
)
UNCHANGED = {
    "downgrade 002": f"The database is at revision {HEAD}, and nothing else was changed.",
    "rollback 002": "Nothing was changed.",
    "restore before.dump --replace": "No row was restored or deleted.",
    "adopt --apply": "The tables are unchanged.",
    "partitions create": "Nothing was changed.",
    "tenancy enable": "Nothing was changed.",
    "tenancy bind login 7": "Nothing was changed.",
}


@pytest.mark.parametrize("command", UNCHANGED)
def test_command_that_waits_for_other_migration_reports_that_nothing_changed(
    database: Database, tmp_path: Path, command: str
) -> None:
    create_backup(database.engine, tmp_path / "before.dump")
    with (
        migration_lock_of(database),
        running(database, "syntegra-db", *command.split(), cwd=tmp_path) as process,
    ):
        assert process.stderr is not None
        while "Waiting for another migration" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (130, f"Interrupted. {UNCHANGED[command]}\n")


@pytest.mark.parametrize(
    ("command", "state"),
    [
        ("backup", "No backup was written."),
        ("upgrade", "Nothing was changed."),
        ("vectors rebuild", "The index is unchanged."),
        ("restore before.dump", "No row was restored or deleted."),
    ],
)
def test_command_that_waits_for_the_server_reports_that_nothing_changed(
    database: Database, tmp_path: Path, command: str, state: str
) -> None:
    create_backup(database.engine, tmp_path / "before.dump")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://user@127.0.0.1:{silent.getsockname()[1]}/database"
        with (
            running(database, "syntegra-db", *command.split(), cwd=tmp_path, DATABASE_URL=url) as process,
            silent.accept()[0],
        ):
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (143, f"Terminated by SIGTERM. {state}\n")


@pytest.mark.embedded
def test_interrupted_start_of_embedded_server_reports_what_was_created(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*DEFAULT_SIGNALS, PROGRAMS / "syntegra-db", "local", "start"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith(("DATABASE", "POSTGRES"))},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: any(tmp_path.glob(".postgres/.*.initdb/*")))
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert errors == f"Terminated by SIGTERM. No data was created in {tmp_path.resolve() / '.postgres' / '18'}.\n"
    assert not list(tmp_path.glob(".postgres/*/*"))


@pytest.mark.parametrize(
    ("command", "table", "state"),
    [
        ("restore before.dump --replace", "clusters", "The rows of before.dump are restored."),
        ("rollback 002", "data_sources", "The database is back at revision 002, and the rows are in backups/"),
        ("downgrade 002", "data_sources", "The database is at revision 002, and nothing else was changed."),
    ],
)
def test_command_interrupted_after_its_commit_reports_what_is_committed(
    database: Database, tmp_path: Path, command: str, table: str, state: str
) -> None:
    load_rows(database, 500)
    create_backup(database.engine, tmp_path / "before.dump")
    with (
        lock_after(database, table),
        running(database, "syntegra-db", *command.split(), cwd=tmp_path) as process,
    ):
        wait_for_rows(database, COMPARISON_WAITS)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 143, errors
    assert f"Terminated by SIGTERM. {state}" in errors.splitlines()[-1]
