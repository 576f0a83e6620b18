"""Migrating a live database: together, behind others' locks, and killed at any moment."""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from support.forked_processes import MigrationProcess
from support.processes import wait_until, writing
from support.revisions import HEAD
from syntegra_db import migrations
from syntegra_db.catalog import verify
from syntegra_db.connections import conninfo
from syntegra_db.errors import LockTimeout, MigrationFailed
from syntegra_db.migrations import MigrationOptions, _lock, render_sql_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.servers import Database, Server

SOURCE = "INSERT INTO data_sources (client_id, name, type) VALUES (1, 'till', 'simple_csv')"
ANALYTICS_TABLES = ("kpi_summary", "text_summary", "trend_signals", "clusters", "anomaly_log")
BLOCKER_SECONDS = 8
LOCK_TIMEOUT = 0.5
GRACE = 0.3
MIGRATION_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'syntegra_db migration'"
END_MIGRATIONS = "SELECT pg_terminate_backend(pid, 5000) FROM (" + MIGRATION_BACKENDS + ") AS backends"


def assert_clean(database: Database, revision: str | None = HEAD) -> None:
    with database.engine.connect() as connection:
        assert migrations.current_revision(connection) == revision
        assert verify(connection).findings == []
    assert database.query("SELECT pid FROM pg_locks WHERE locktype = 'advisory'") == []


@pytest.mark.long
@pytest.mark.slow
def test_eight_concurrent_migrations_all_succeed(server: Server, tmp_path: Path) -> None:
    for number in range(20):
        with server.database() as database:
            together = [
                MigrationProcess(database, tmp_path / f"{number}-{process}", "upgrade", "head").start()
                for process in range(8)
            ]
            assert [migration.wait() for migration in together] == [0] * 8, [
                migration.output_text for migration in together
            ]
            assert_clean(database)


@contextmanager
def open_transaction(database: Database, seconds: float) -> Iterator[None]:
    """A transaction that holds a row of data_sources for `seconds`."""
    connection = psycopg.connect(conninfo(database.url), application_name="month-end report")
    connection.execute("UPDATE data_sources SET status = 'processing'")
    timer = threading.Timer(seconds, connection.rollback)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(("begin", "command"), [("002", ("upgrade", "003")), ("003", ("downgrade", "002"))])
def test_writer_during_blocked_migration_waits_at_most_lock_timeout(
    empty_database: Database, tmp_path: Path, begin: str, command: tuple[str, str]
) -> None:
    migrations.upgrade(begin, empty_database.url)
    empty_database.execute(SOURCE)
    with open_transaction(empty_database, BLOCKER_SECONDS), writing(empty_database, SOURCE) as waits:
        migration = MigrationProcess(empty_database, tmp_path / "output", *command).start()
        assert migration.wait() == 0, migration.output_text
    assert max(waits) < LOCK_TIMEOUT + GRACE
    assert "month-end report" in migration.output_text
    assert "UPDATE data_sources SET status = '…'" in migration.output_text
    assert_clean(empty_database, command[1])


@contextmanager
def readers(database: Database) -> Iterator[None]:
    """One session a table of 003 that reads it again and again, 0.4 s at a time."""
    done = threading.Event()

    def read(table: str) -> None:
        # Until the downgrade has dropped it.
        with database.connect() as connection, suppress(psycopg.errors.UndefinedTable):
            while not done.is_set():
                connection.execute(f"SELECT pg_sleep(0.4) FROM (SELECT count(*) FROM {table}) AS rows".encode())

    threads = [threading.Thread(target=read, args=(table,)) for table in ANALYTICS_TABLES]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_writer_during_downgrade_with_readers_waits_at_most_lock_timeout(database: Database, tmp_path: Path) -> None:
    with readers(database), writing(database, SOURCE) as waits:
        migration = MigrationProcess(database, tmp_path / "output", "downgrade", "002").start()
        assert migration.wait() == 0, migration.output_text
    assert max(waits) < LOCK_TIMEOUT + GRACE


def test_lock_timeout_names_blocker_and_changes_nothing(database_003: Database) -> None:
    database = database_003
    database.execute(SOURCE)
    impatient = MigrationOptions(lock_timeout=0.1, lock_retry_timeout=1)
    with open_transaction(database, 3), pytest.raises(LockTimeout) as ended:
        migrations.downgrade("002", database.url, impatient)
    assert "month-end report" in str(ended.value)
    assert "at revision 003, and nothing else was changed" in str(ended.value)
    assert_clean(database, "003")


def test_migration_waiting_for_another_names_it(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    key = _lock.lock_key("alembic_version", "public")
    with psycopg.connect(conninfo(database.url), application_name="the other one") as other:
        other.execute("SELECT pg_advisory_lock(%s)", (key,))
        other.commit()
        pid = other.info.backend_pid
        caplog.set_level("INFO", logger="syntegra_db")
        with pytest.raises(LockTimeout, match="still running after 1 s"):
            migrations.upgrade("head", database.url, MigrationOptions(migration_lock_timeout=1))
        (line,) = [record.getMessage() for record in caplog.records if "Waiting" in record.getMessage()]
        assert f"pid {pid}, the other one, connected since 20" in line
    migrations.upgrade("head", database.url)


def test_sql_script_during_migration_is_rejected(empty_database: Database) -> None:
    statements = render_sql_script("001").text.partition("BEGIN;")[2].partition("COMMIT;")[0]
    key = _lock.lock_key("alembic_version", "public")
    with empty_database.connect() as other, empty_database.connect() as connection:
        other.execute("SELECT pg_advisory_lock(%s)", (key,))
        with pytest.raises(psycopg.errors.RaiseException, match="another migration is running"):
            connection.execute(statements.encode())


@pytest.mark.long
@pytest.mark.slow
def test_run_after_killed_migration_reaches_head(server: Server, tmp_path: Path) -> None:
    moments = random.Random(3)
    halfway = 0
    for number in range(30):
        with server.database() as database:
            migration = MigrationProcess(database, tmp_path / str(number), "upgrade", "head").start()
            wait_for_backend(database)
            time.sleep(moments.uniform(0, 0.25))
            halfway += migration.process.is_alive()
            migration.kill()
            migrations.upgrade("head", database.url)
            assert_clean(database)
    assert halfway >= 10


def wait_for_backend(database: Database) -> None:
    deadline = time.monotonic() + 10
    while not database.query(MIGRATION_BACKENDS) and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.slow
def test_run_after_killed_server_process_reaches_head(server: Server, tmp_path: Path) -> None:
    moments = random.Random(10)
    ended = 0
    for number in range(10):
        with server.database() as database:
            migration = MigrationProcess(database, tmp_path / str(number), "upgrade", "head").start()
            wait_for_backend(database)
            time.sleep(moments.uniform(0, 0.1))
            ended += len(database.query(END_MIGRATIONS))
            status = migration.wait()
            assert status in {0, 4, 11}, migration.output_text
            assert "Traceback" not in migration.output_text
            migrations.upgrade("head", database.url)
            assert_clean(database)
    assert ended


def test_server_process_of_killed_migration_releases_its_lock(empty_database: Database, tmp_path: Path) -> None:
    migrations.upgrade("002", empty_database.url)
    with empty_database.connect() as blocker:
        blocker.autocommit = False
        blocker.execute("LOCK TABLE data_sources IN EXCLUSIVE MODE")
        orphan = MigrationProcess(
            empty_database, tmp_path / "orphan", "upgrade", "head", SYNTEGRA_LOCK_TIMEOUT="60"
        ).start()
        wait_until_blocked(empty_database)
        orphan.kill()
        wait_until(lambda: not empty_database.query("SELECT FROM pg_locks WHERE locktype = 'advisory'"), 10)
    migrations.upgrade("head", empty_database.url)
    assert_clean(empty_database)


def wait_until_blocked(database: Database) -> None:
    deadline = time.monotonic() + 20
    while not database.query("SELECT pid FROM pg_locks WHERE NOT granted AND locktype = 'relation'"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_threads_migrate_two_databases(server: Server) -> None:
    failures: list[BaseException] = []

    def migrate(database: Database) -> None:
        try:
            for revision in ("head", "base", "head"):
                (migrations.downgrade if revision == "base" else migrations.upgrade)(revision, database.url)
        except Exception as error:  # noqa: BLE001  shown by the assertion below
            failures.append(error)

    with server.database() as one, server.database() as two:
        threads = [threading.Thread(target=migrate, args=(database,)) for database in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert_clean(one)
        assert_clean(two)


def test_stamp_changed_by_another_program_is_reported(empty_database: Database) -> None:
    empty_database.execute(
        "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);"
        "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;"
        "CREATE TRIGGER forget BEFORE INSERT ON alembic_version FOR EACH ROW EXECUTE FUNCTION forget()"
    )
    with pytest.raises(MigrationFailed, match="finds the database at no revision instead of revision 001"):
        migrations.upgrade("001", empty_database.url)


@pytest.mark.parametrize("label", ["anomaly_severity", "trend_status"])
def test_downgrade_with_missing_type_gives_no_advice_about_the_search_path(database: Database, label: str) -> None:
    table, column = {"anomaly_severity": ("anomaly_log", "severity"), "trend_status": ("trend_signals", "status")}[
        label
    ]
    with database.connect() as connection:
        names = dict(zip(("table", "column", "type"), map(sql.Identifier, (table, column, label)), strict=True))
        connection.execute(
            sql.SQL(
                "ALTER TABLE {table} ALTER {column} DROP DEFAULT, ALTER {column} TYPE text USING {column}::text;"
                "DROP TYPE {type}"
            ).format(**names)
        )
    with pytest.raises(MigrationFailed, match=f'type "{label}" does not exist') as failed:
        migrations.downgrade("002", database.url)
    assert "search_path" not in str(failed.value)


def test_upgrade_during_create_index_concurrently_succeeds(empty_database: Database) -> None:
    """A waiting migration must not keep CREATE INDEX CONCURRENTLY from ending, nor leave its index invalid."""
    migrations.upgrade("002", empty_database.url)
    key = _lock.lock_key("alembic_version", "public")
    with empty_database.connect() as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (key,))
        waiting = threading.Thread(target=migrations.upgrade, args=("head", empty_database.url))
        waiting.start()
        time.sleep(0.5)
        holder.execute("SET statement_timeout = '20s'")
        holder.execute("CREATE INDEX CONCURRENTLY foreign_index ON processed_data (client_id, created_at)")
    waiting.join()
    assert empty_database.query("SELECT indisvalid FROM pg_index WHERE indexrelid = 'foreign_index'::regclass") == [
        (True,)
    ]
    assert_clean(empty_database)
