"""Going back to an older revision without losing a row."""

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


def test_the_command_ends_with_the_line_that_restores_everything(database: Database, tmp_path: Path) -> None:
    load_rows(database, ROWS)
    before = row_digests(database)
    said = succeed("syntegra-db", "rollback", "002", url=database.environment_url, cwd=tmp_path)
    assert revision(database) == "002"
    assert "read back and counted" in said
    line = shlex.split(said.splitlines()[-1])
    succeed(*line, url=database.environment_url, cwd=tmp_path)
    assert row_digests(database) == before
    assert revision(database) == "003"


@pytest.mark.parametrize(("target", "reached"), [("base", None), ("-2", "001"), ("-1", "002")])
def test_other_ways_to_name_the_revision(database: Database, target: str, reached: str | None) -> None:
    load_rows(database, ROWS)
    before = row_digests(database)
    done = rollback(target, database.url)
    assert revision(database) == done.revision == reached
    occupied = backups.ExistingRows.KEEP if done.restore_command.endswith(" --keep") else backups.ExistingRows.REFUSE
    backups.restore(done.backup.path, database.url, occupied)
    assert row_digests(database) == before


def test_rows_of_the_tables_that_stay_are_not_touched_by_the_restore(database: Database) -> None:
    load_rows(database, ROWS)
    before = row_digests(database)
    done = rollback("002", database.url)
    database.execute("INSERT INTO processed_data (client_id, source_type, data) VALUES (1, 'new', '{}')")
    assert done.restore_command.endswith(" --keep")
    backups.restore(done.backup.path, database.url, backups.ExistingRows.KEEP)
    assert database.query("SELECT count(*) FROM processed_data WHERE source_type = 'new'") == [(1,)]
    assert row_digests(database, *ANALYTICS) == {name: before[name] for name in ANALYTICS}


def test_a_row_that_was_acknowledged_at_any_time_is_in_the_file(database: Database) -> None:
    load_rows(database, ROWS)
    acknowledged: list[int] = []
    thread = threading.Thread(target=write_until_the_table_is_gone, args=(database, acknowledged))
    thread.start()
    while len(acknowledged) < 100:
        time.sleep(0.01)
    done = rollback("002", database.url)
    thread.join()
    backups.restore(done.backup.path, database.url, backups.ExistingRows.KEEP)
    there = {row[0] for row in database.query("SELECT id FROM clusters")}
    assert set(acknowledged) <= there


def write_until_the_table_is_gone(database: Database, acknowledged: list[int]) -> None:
    statement = "INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (1, 1, '{}') RETURNING id"
    with database.connect() as connection:
        while True:
            try:
                row = connection.execute(statement).fetchone()
            except psycopg.errors.UndefinedTable:
                return
            assert row is not None
            acknowledged.append(row[0])


@pytest.mark.parametrize("target", ["003", "004", "nonsense"])
def test_where_there_is_nothing_to_go_back_to_nothing_is_written(
    database: Database, tmp_path: Path, target: str
) -> None:
    with pytest.raises(RevisionError):
        rollback(target, database.url)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_lacks_rows_ends_it_before_the_downgrade(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_rows(database, ROWS)
    before = row_digests(database)
    count = _pg_restore.count_archived_rows
    monkeypatch.setattr(_dump, "count_archived_rows", lambda *arguments: {**count(*arguments), "clusters": 199})
    with pytest.raises(InvalidBackup, match="has 199 rows of clusters, and the table had 200"):
        rollback("002", database.url)
    assert row_digests(database) == before


def test_a_table_with_more_rows_than_the_file_ends_it_before_the_downgrade(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_rows(database, ROWS)
    stale = backups.create_backup(database.url)
    database.execute("INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (1, 1, '{}')")
    before = row_digests(database)
    monkeypatch.setattr(_rollback, "create_backup", lambda *_, **__: stale)
    with pytest.raises(InvalidBackup, match="has 200 rows of clusters, and the table has 201"):
        rollback("002", database.url)
    assert row_digests(database) == before


def test_without_pg_dump_it_stays_where_it_is(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from syntegra_db import client_programs

    monkeypatch.setattr(client_programs, "_candidate_paths", lambda _: iter(()))
    monkeypatch.setattr(client_programs, "COMPOSE", ())
    with pytest.raises(ClientProgramNotFound):
        rollback("002", database.url)
    assert revision(database) == "003"


def test_behind_a_reader_it_gives_up_and_nothing_changed(database: Database) -> None:
    load_rows(database, ROWS)
    before = row_digests(database)
    impatient = MigrationOptions(lock_timeout=0.1, lock_retry_timeout=0.5)
    with database.connect() as reader:
        reader.autocommit = False
        reader.execute("SET application_name = 'month-end report'")
        reader.execute("SELECT count(*) FROM clusters")
        with pytest.raises(LockTimeout, match="month-end report"):
            rollback("002", database.url, options=impatient)
    assert row_digests(database) == before
    assert revision(database) == "003"


def test_without_a_backup_and_without_a_terminal_it_refuses(database: Database, tmp_path: Path) -> None:
    load_rows(database, ROWS)
    arguments = ("syntegra-db", "rollback", "002", "--no-backup")
    refused = run(*arguments, url=database.environment_url, cwd=tmp_path)
    assert refused.returncode == 22
    assert re.search(r"loses for good: .*clusters \(200 rows\)", refused.stderr)
    assert revision(database) == "003"
    succeed(*arguments, "--yes", url=database.environment_url, cwd=tmp_path)
    assert revision(database) == "002"
    assert list(tmp_path.iterdir()) == []


def test_the_operators_script_backs_up(database: Database) -> None:
    load_rows(database, ROWS)
    before = row_digests(database)
    script = str(ROOT / "scripts/rollback_migration_003.sh")
    environment = {**os.environ, "DATABASE_URL": database.environment_url, "VENV": str(PROGRAMS.parent)}
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = re.findall(r"backups/\S+\.dump", done.stdout.splitlines()[-1])
    try:
        succeed("syntegra-db", "restore", path, "--keep", url=database.environment_url)
        assert row_digests(database) == before
    finally:
        (ROOT / path).unlink()
