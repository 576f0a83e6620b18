"""A command that is stopped (SIGSTOP, Ctrl-Z) in a transaction: its locks do not last longer than documented."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
import pytest

from support.commands import PROGRAMS, ROOT, succeed
from support.legacy_databases import create_legacy_database, execute
from support.sample_rows import load_rows
from syntegra_db import migrations
from syntegra_db.backup import create_backup
from syntegra_db.client_programs import find_program, find_program_for_server
from syntegra_db.connections import conninfo
from syntegra_db.network import IDLE_IN_TRANSACTION_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.servers import Database

ROWS = 200
GRACE_SECONDS = 2
SOURCE = "INSERT INTO data_sources (client_id, name, type) VALUES (1, 'till', 'simple_csv')"
# The first index or drop of each command gives the test a second to stop it.
PAUSE = (
    """
    CREATE FUNCTION pause() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF coalesce(current_setting('syntegra_test.paused', true), '') = '' THEN
        PERFORM pg_sleep(1), set_config('syntegra_test.paused', 'yes', false);
      END IF;
    END$$
    """,
    """
    CREATE EVENT TRIGGER pause ON ddl_command_end WHEN TAG IN ('CREATE INDEX', 'DROP TABLE', 'ALTER INDEX')
    EXECUTE FUNCTION pause()
    """,
)
PAUSED = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


@contextmanager
def running(database: Database, folder: Path, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A command in its own process group, which is continued and killed at the end."""
    environment = {**os.environ, "DATABASE_URL": database.environment_url, "NO_COLOR": "1", "COLUMNS": "200"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(database: Database, query: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    with database.connect() as connection:
        while connection.execute(query.encode()).fetchone() == (0,):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)


def seconds_to_write(database: Database, statement: str = SOURCE) -> float:
    began = time.monotonic()
    execute(database, "SET lock_timeout = '20s'", statement)
    return time.monotonic() - began


def prepare(database: Database, revision: str, folder: Path) -> Path:
    """Bring the database to `revision`, and return a backup of its rows at 003."""
    load_rows(database, ROWS)
    path = folder / "rows.dump"
    create_backup(database.engine, path)
    migrations.downgrade(revision, database.url)
    execute(database, *PAUSE)
    return path


COMMANDS = {
    "upgrade": ("002", "syntegra-db upgrade 003"),
    "alembic": ("002", f"alembic -c {ROOT}/alembic.ini upgrade head"),
    "downgrade": ("003", "syntegra-db downgrade 002"),
    "rollback": ("003", "syntegra-db rollback 002"),
    "restore": ("002", "syntegra-db restore --keep rows.dump"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_stopped_command_lets_writers_continue_and_changes_nothing(
    database: Database, tmp_path: Path, name: str
) -> None:
    revision, line = COMMANDS[name]
    prepare(database, revision, tmp_path)
    program, *arguments = shlex.split(line)
    with running(database, tmp_path, str(PROGRAMS / program), *arguments) as process:
        wait_for(database, PAUSED, process)
        process.send_signal(signal.SIGSTOP)
        waited = seconds_to_write(database)
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=30)
    assert waited < 1 + IDLE_IN_TRANSACTION_SECONDS + GRACE_SECONDS
    assert process.returncode not in {0, 1}
    assert "Traceback" not in errors
    with database.engine.connect() as connection:
        assert migrations.current_revision(connection) == revision
    succeed(program, *arguments, url=database.environment_url, cwd=tmp_path)


def test_stopped_adoption_lets_writers_continue_and_changes_nothing(empty_database: Database, tmp_path: Path) -> None:
    create_legacy_database(empty_database, "shared")
    execute(empty_database, *PAUSE)
    with running(empty_database, tmp_path, str(PROGRAMS / "syntegra-db"), "adopt", "--apply") as process:
        wait_for(empty_database, PAUSED, process)
        process.send_signal(signal.SIGSTOP)
        waited = seconds_to_write(empty_database, "UPDATE clusters SET cluster_name = cluster_name")
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=30)
    assert waited < 1 + IDLE_IN_TRANSACTION_SECONDS + GRACE_SECONDS
    assert process.returncode not in {0, 1}
    succeed("syntegra-db", "adopt", "--apply", url=empty_database.environment_url, cwd=tmp_path)


def test_stopped_psql_with_sql_file_lets_writers_continue(database: Database, tmp_path: Path) -> None:
    prepare(database, "002", tmp_path)
    script = ROOT / "migrations" / "003_create_analytics_tables.sql"
    command = [str(find_program("psql")), conninfo(database.url), "-f", str(script)]
    with running(database, tmp_path, *command) as process:
        wait_for(database, PAUSED, process)
        process.send_signal(signal.SIGSTOP)
        waited = seconds_to_write(database)
    assert waited < 1 + IDLE_IN_TRANSACTION_SECONDS + GRACE_SECONDS


@pytest.fixture
def slow_pg_dump(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pg_dump that takes longer than the server lets a transaction be idle."""
    with database.connect() as connection:
        version = connection.info.server_version // 10_000
    program = shlex.join(find_program_for_server("pg_dump", version).command)
    script = tmp_path / "bin" / "pg_dump"
    script.parent.mkdir()
    seconds = IDLE_IN_TRANSACTION_SECONDS + 2
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] || sleep {seconds}\nexec {program} "$@"\n')
    script.chmod(0o700)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")


@pytest.mark.usefixtures("slow_pg_dump")
def test_long_backup_keeps_its_transaction(database: Database, tmp_path: Path) -> None:
    load_rows(database, ROWS)
    succeed("syntegra-db", "rollback", "002", url=database.environment_url, cwd=tmp_path)


@pytest.mark.usefixtures("slow_pg_dump")
def test_rollback_stopped_with_its_children_lets_writers_continue(database: Database, tmp_path: Path) -> None:
    load_rows(database, ROWS)
    holds_lock = (
        "SELECT count(*) FROM pg_locks WHERE relation = 'clusters'::regclass AND mode = 'ShareRowExclusiveLock'"
    )
    with running(database, tmp_path, str(PROGRAMS / "syntegra-db"), "rollback", "002") as process:
        wait_for(database, holds_lock, process)
        os.killpg(process.pid, signal.SIGSTOP)
        waited = seconds_to_write(database, "UPDATE clusters SET cluster_name = cluster_name")
        os.killpg(process.pid, signal.SIGCONT)
        _, errors = process.communicate(timeout=60)
    assert waited < IDLE_IN_TRANSACTION_SECONDS + GRACE_SECONDS
    assert process.returncode not in {0, 1}, errors
    with database.engine.connect() as connection:
        assert migrations.current_revision(connection) == "003"


@pytest.mark.parametrize("setting", ["statement_timeout = '100ms'", "idle_session_timeout = '100ms'"])
def test_small_limits_of_the_database_do_not_end_a_migration(database: Database, setting: str) -> None:
    migrations.downgrade("002", database.url)
    execute(database, *PAUSE, f"ALTER DATABASE {database.name} SET {setting}", SOURCE)
    with psycopg.connect(conninfo(database.url)) as blocker:
        blocker.execute("UPDATE data_sources SET status = 'processing'")
        timer = threading.Timer(2, blocker.rollback)
        timer.start()
        assert migrations.upgrade("head", database.url) == "003"
        timer.join()
