"""A command that is stopped (SIGSTOP, Ctrl-Z) in a transaction: its locks do not last longer than documented."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from support.commands import ROOT, succeed
from support.legacy_databases import create_legacy_database, execute
from support.processes import PAUSE, PAUSED, running, wait_for_rows
from support.revisions import HEAD
from support.sample_rows import load_rows
from syntegra_db import migrations
from syntegra_db.backup import create_backup
from syntegra_db.client_programs import find_program
from syntegra_db.connections import conninfo
from syntegra_db.network import IDLE_IN_TRANSACTION_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

pytestmark = pytest.mark.long

ROWS = 200
LIMIT_SECONDS = 1 + IDLE_IN_TRANSACTION_SECONDS + 2
SOURCE = "INSERT INTO data_sources (client_id, name, type) VALUES (1, 'till', 'simple_csv')"
CLUSTERS = "UPDATE clusters SET cluster_name = cluster_name"
BLOCKED_WRITES = "SELECT FROM pg_locks WHERE relation = 'clusters'::regclass AND mode = 'ShareRowExclusiveLock'"
COMMANDS = {
    "upgrade": ("002", "syntegra-db", "upgrade", "003"),
    "alembic": ("002", "alembic", "-c", str(ROOT / "alembic.ini"), "upgrade", "head"),
    "downgrade": ("003", "syntegra-db", "downgrade", "002"),
    "rollback": (HEAD, "syntegra-db", "rollback", "002"),
    "restore": ("002", "syntegra-db", "restore", "--keep", "rows.dump"),
}


def seconds_to_write(database: Database, statement: str = SOURCE) -> float:
    began = time.monotonic()
    execute(database, "SET lock_timeout = '20s'", statement)
    return time.monotonic() - began


def prepare(database: Database, revision: str, folder: Path) -> None:
    """Bring the database to `revision`, with a backup of its rows at the newest in `folder`."""
    load_rows(database, ROWS)
    create_backup(database.engine, folder / "rows.dump")
    migrations.downgrade(revision, database.url)
    execute(database, *PAUSE)


def current_revision(database: Database) -> str | None:
    with database.engine.connect() as connection:
        return migrations.current_revision(connection)


@pytest.mark.parametrize("name", COMMANDS)
def test_stopped_command_lets_writers_continue_and_changes_nothing(
    database: Database, tmp_path: Path, name: str
) -> None:
    revision, *command = COMMANDS[name]
    prepare(database, revision, tmp_path)
    with running(database, *command, cwd=tmp_path) as process:
        wait_for_rows(database, PAUSED)
        process.send_signal(signal.SIGSTOP)
        assert seconds_to_write(database) < LIMIT_SECONDS
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode not in {0, 1}
    assert "Traceback" not in errors
    assert current_revision(database) == revision
    succeed(*command, url=database.environment_url, cwd=tmp_path)


def test_stopped_adoption_lets_writers_continue_and_changes_nothing(empty_database: Database, tmp_path: Path) -> None:
    create_legacy_database(empty_database, "shared")
    execute(empty_database, *PAUSE)
    with running(empty_database, "syntegra-db", "adopt", "--apply", cwd=tmp_path) as process:
        wait_for_rows(empty_database, PAUSED)
        process.send_signal(signal.SIGSTOP)
        assert seconds_to_write(empty_database, CLUSTERS) < LIMIT_SECONDS
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=30)
    assert process.returncode not in {0, 1}
    succeed("syntegra-db", "adopt", "--apply", url=empty_database.environment_url, cwd=tmp_path)


def test_stopped_psql_with_sql_file_lets_writers_continue(database: Database, tmp_path: Path) -> None:
    prepare(database, "002", tmp_path)
    script = ROOT / "migrations" / "003_create_analytics_tables.sql"
    with running(database, str(find_program("psql")), conninfo(database.url), "-f", str(script)) as process:
        wait_for_rows(database, PAUSED)
        process.send_signal(signal.SIGSTOP)
        assert seconds_to_write(database) < LIMIT_SECONDS


@pytest.mark.usefixtures("slow_pg_dump")
def test_long_backup_keeps_its_transaction(database: Database, tmp_path: Path) -> None:
    load_rows(database, ROWS)
    succeed("syntegra-db", "rollback", "002", url=database.environment_url, cwd=tmp_path)


@pytest.mark.usefixtures("slow_pg_dump")
def test_rollback_stopped_with_its_children_lets_writers_continue(database: Database, tmp_path: Path) -> None:
    load_rows(database, ROWS)
    with running(database, "syntegra-db", "rollback", "002", cwd=tmp_path) as process:
        wait_for_rows(database, BLOCKED_WRITES)
        os.killpg(process.pid, signal.SIGSTOP)
        assert seconds_to_write(database, CLUSTERS) < LIMIT_SECONDS
        os.killpg(process.pid, signal.SIGCONT)
        process.communicate(timeout=60)
    assert process.returncode not in {0, 1}
    assert current_revision(database) == HEAD


@pytest.mark.parametrize("setting", ["statement_timeout = '100ms'", "idle_session_timeout = '100ms'"])
def test_small_limits_of_the_database_do_not_end_a_migration(database: Database, setting: str) -> None:
    migrations.downgrade("002", database.url)
    execute(database, *PAUSE, f"ALTER DATABASE {database.name} SET {setting}", SOURCE)
    with psycopg.connect(conninfo(database.url)) as blocker:
        blocker.execute("UPDATE data_sources SET status = 'processing'")
        timer = threading.Timer(2, blocker.rollback)
        timer.start()
        assert migrations.upgrade("head", database.url) == HEAD
        timer.join()
