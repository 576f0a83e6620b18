"""Rollback to an older revision without losing a row."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from support.commands import PROGRAMS, ROOT, run, succeed
from support.revisions import AFTER_HEAD, HEAD, REVISIONS
from support.sample_rows import load_rows, row_digests
from syntegra_db import backup as backups
from syntegra_db import migrations
from syntegra_db.backup import _dump, _pg_restore, _rollback, rollback
from syntegra_db.catalog import verify
from syntegra_db.errors import ClientProgramNotFound, InvalidBackup, LockTimeout, RevisionError
from syntegra_db.migrations import MigrationOptions

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

ROWS = 2_000
ANALYTICS = ("kpi_summary", "text_summary", "trend_signals", "clusters", "anomaly_log")


def revision(database: Database) -> str | None:
    with database.engine.connect() as connection:
        assert verify(connection).findings == []
        return migrations.current_revision(connection)


def test_rollback_command_prints_working_restore_command(database: Database, tmp_path: Path) -> None:
    load_rows(database, ROWS)
    before = row_digests(database)
    output = succeed("syntegra-db", "rollback", "002", url=database.environment_url, cwd=tmp_path)
    assert revision(database) == "002"
    assert ", verified: backups/" in output
    line = shlex.split(output.splitlines()[-1])
    succeed(*line, url=database.environment_url, cwd=tmp_path)
    assert row_digests(database) == before
    assert revision(database) == HEAD


@pytest.mark.parametrize(
    ("target", "reached"), [("base", None), (f"-{len(REVISIONS) - 1}", "001"), (f"-{len(REVISIONS) - 2}", "002")]
)
def test_rollback_accepts_base_and_relative_targets(database: Database, target: str, reached: str | None) -> None:
    load_rows(database, ROWS)
    before = row_digests(database)
    result = rollback(target, database.engine)
    assert revision(database) == result.revision == reached
    existing_rows = (
        backups.ExistingRows.KEEP if result.restore_command.endswith(" --keep") else backups.ExistingRows.REFUSE
    )
    backups.restore(result.backup.path, database.engine, existing_rows)
    assert row_digests(database) == before


def test_restore_after_rollback_keeps_rows_of_remaining_tables(database: Database) -> None:
    load_rows(database, ROWS)
    before = row_digests(database)
    result = rollback("002", database.engine)
    database.execute("INSERT INTO processed_data (client_id, source_type, data) VALUES (1, 'new', '{}')")
    assert result.restore_command.endswith(" --keep")
    backups.restore(result.backup.path, database.engine, backups.ExistingRows.KEEP)
    assert database.query("SELECT count(*) FROM processed_data WHERE source_type = 'new'") == [(1,)]
    assert row_digests(database, *ANALYTICS) == {name: before[name] for name in ANALYTICS}


def test_rollback_backup_contains_every_acknowledged_row(database: Database) -> None:
    load_rows(database, ROWS)
    acknowledged: list[int] = []
    thread = threading.Thread(target=write_until_table_is_dropped, args=(database, acknowledged))
    thread.start()
    while len(acknowledged) < 100:
        time.sleep(0.01)
    result = rollback("002", database.engine)
    thread.join()
    backups.restore(result.backup.path, database.engine, backups.ExistingRows.KEEP)
    restored = {row[0] for row in database.query("SELECT id FROM clusters")}
    assert set(acknowledged) <= restored


def write_until_table_is_dropped(database: Database, acknowledged: list[int]) -> None:
    statement = "INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (1, 1, '{}') RETURNING id"
    with database.connect() as connection:
        while True:
            try:
                row = connection.execute(statement).fetchone()
            except psycopg.errors.UndefinedTable:
                return
            assert row is not None
            acknowledged.append(row[0])


@pytest.mark.parametrize("target", [HEAD, AFTER_HEAD, "nonsense"])
def test_rollback_to_invalid_target_writes_nothing(database: Database, tmp_path: Path, target: str) -> None:
    with pytest.raises(RevisionError):
        rollback(target, database.engine)
    assert list(tmp_path.iterdir()) == []


def test_rollback_with_incomplete_backup_stops_before_downgrade(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_rows(database, ROWS)
    before = row_digests(database)
    count = _pg_restore.count_archived_rows
    monkeypatch.setattr(_dump, "count_archived_rows", lambda *arguments: {**count(*arguments), "clusters": 199})
    with pytest.raises(InvalidBackup, match="contains 199 rows of clusters, but the table had 200"):
        rollback("002", database.engine)
    assert row_digests(database) == before


def test_rollback_with_stale_backup_stops_before_downgrade(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    load_rows(database, ROWS)
    stale = backups.create_backup(database.engine)
    database.execute("INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (1, 1, '{}')")
    before = row_digests(database)
    monkeypatch.setattr(_rollback, "create_backup", lambda *_, **__: stale)
    with pytest.raises(InvalidBackup, match="contains 200 rows of clusters, but the table has 201"):
        rollback("002", database.engine)
    assert row_digests(database) == before


def test_rollback_without_pg_dump_changes_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from syntegra_db import client_programs

    monkeypatch.setattr(client_programs, "_candidate_paths", lambda _: iter(()))
    monkeypatch.setattr(client_programs, "COMPOSE", ())
    with pytest.raises(ClientProgramNotFound):
        rollback("002", database.engine)
    assert revision(database) == HEAD


def test_rollback_behind_reader_times_out_and_changes_nothing(database: Database) -> None:
    load_rows(database, ROWS)
    before = row_digests(database)
    short_timeouts = MigrationOptions(lock_timeout=0.1, lock_retry_timeout=0.5)
    with database.connect() as reader:
        reader.autocommit = False
        reader.execute("SET application_name = 'month-end report'")
        reader.execute("SELECT count(*) FROM clusters")
        with pytest.raises(LockTimeout, match="month-end report"):
            rollback("002", database.engine, options=short_timeouts)
    assert row_digests(database) == before
    assert revision(database) == HEAD


def test_rollback_without_backup_needs_confirmation(database: Database, tmp_path: Path) -> None:
    load_rows(database, ROWS)
    arguments = ("syntegra-db", "rollback", "002", "--no-backup")
    unconfirmed = run(*arguments, url=database.environment_url, cwd=tmp_path)
    assert unconfirmed.returncode == 22
    assert re.search(r"permanently loses .*clusters \(200 rows\)", unconfirmed.stderr)
    assert revision(database) == HEAD
    succeed(*arguments, "--yes", url=database.environment_url, cwd=tmp_path)
    assert revision(database) == "002"
    assert list(tmp_path.iterdir()) == []


def test_rollback_script_makes_backup(database: Database) -> None:
    load_rows(database, ROWS)
    before = row_digests(database)
    script = str(ROOT / "scripts/rollback_migration_003.sh")
    environment = {**os.environ, "DATABASE_URL": database.environment_url, "VENV": str(PROGRAMS.parent)}
    process = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    (path,) = re.findall(r"backups/\S+\.dump", process.stdout.splitlines()[-1])
    try:
        succeed("syntegra-db", "restore", path, "--keep", url=database.environment_url)
        assert row_digests(database) == before
    finally:
        (ROOT / path).unlink()
