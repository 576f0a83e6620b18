"""`syntegra-db adopt` as an operator runs it: the plan, the backup, a killed process, a lock, and the hint to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from support.commands import PROGRAMS
from support.commands import run as run_command
from support.legacy_databases import create_legacy_database, execute
from support.pg_dump import dump
from syntegra_db import adoption, migrations
from syntegra_db.client_programs import find_program_for_server
from syntegra_db.connections import conninfo
from syntegra_db.errors import LockTimeout, MigrationFailed
from syntegra_db.migrations import MigrationOptions

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database, Server

NOTHING = "There is nothing to do"
SLEEPING = """
    SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name = 'syntegra_db adoption'
"""
SLEEP_AT_INDEXES = (
    "CREATE FUNCTION nap() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(3); END$$",
    "CREATE EVENT TRIGGER nap ON ddl_command_end WHEN TAG IN ('ALTER INDEX') EXECUTE FUNCTION nap()",
)


def adopt(database: Database, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command("syntegra-db", "adopt", *arguments, url=database.environment_url, cwd=folder)


def test_plan_is_printed_in_groups(empty_database: Database, tmp_path: Path) -> None:
    create_legacy_database(empty_database, "shared")
    result = adopt(empty_database, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    for line in (
        "is at no revision and closest to revision 003",
        "\nMatches\n",
        "  constraint processed_client on processed_data (FOREIGN KEY (client_id) REFERENCES clients(id))",
        "  foreign key alerts_anomaly_id_fkey of alerts to anomaly_log",
        "  processed_data: 40 rows, 32.8 kB, less than a second",
        "    client_id: integer → bigint",
        "--apply",
    ):
        assert line in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("definition", ["silhouette_score < 1", "silhouette_score BETWEEN -1 AND 2 AND cluster_id > 0"])
def test_changed_check_is_one_line_of_the_plan(database: Database, tmp_path: Path, definition: str) -> None:
    name = "ck_clusters_silhouette_range"
    execute(
        database,
        "DROP TABLE alembic_version",
        f"ALTER TABLE clusters DROP CONSTRAINT {name}, ADD CONSTRAINT {name} CHECK ({definition})",
    )
    result = adopt(database, tmp_path)
    lines = [line for line in result.stdout.splitlines() if name in line]
    assert len(lines) == 1, result.stdout
    assert "replaced by CHECK" in lines[0]


def test_open_questions_exit_with_their_status(empty_database: Database, tmp_path: Path) -> None:
    create_legacy_database(empty_database, "first_two")
    result = adopt(empty_database, tmp_path)
    assert result.returncode == 24
    assert "Needs a decision\n  column data_sources.client_id is required" in result.stdout
    assert result.stderr.startswith("Error: Decide first: ")
    assert adopt(empty_database, tmp_path, "--set", "client_id=7").returncode == 2
    failed = adopt(empty_database, tmp_path, "--set", "processed_data.client_id=1 / (source_id - 3)")
    assert (failed.returncode, failed.stderr.count("\n")) == (25, 1)
    assert "division by zero" in failed.stderr


def test_plan_as_json_has_every_group(empty_database: Database, tmp_path: Path) -> None:
    create_legacy_database(empty_database, "times_without_zone")
    answers = (
        "--set",
        "processed_data.client_id=7",
        "--set",
        "data_sources.status=idle",
        "--timezone",
        "Europe/Madrid",
    )
    plan = json.loads(adopt(empty_database, tmp_path, "--json", *answers).stdout)
    assert (plan["revision"], plan["timezone"], plan["stamped"]) == ("003", "Europe/Madrid", None)
    assert "created_at: timestamp without time zone → timestamp with time zone, read as Europe/Madrid" in [
        column for rewrite in plan["rewrites"] for column in rewrite["columns"]
    ]
    assert [question["object"] for question in plan["open_questions"]] == ["column data_sources.updated_at"]
    assert [fill["rows"] for fill in plan["backfills"]] == [10, 3]


@pytest.mark.long
def test_backup_of_adoption_restores_whole_database(server: Server, empty_database: Database, tmp_path: Path) -> None:
    create_legacy_database(empty_database, "shared")
    before = dump(empty_database)
    result = adopt(empty_database, tmp_path, "--apply")
    assert result.returncode == 0, result.stderr
    (backup,) = (tmp_path / "backups").iterdir()
    assert f"{backup.relative_to(tmp_path)}" in result.stdout
    assert backup.stat().st_mode & 0o777 == 0o600
    with server.database() as restored:
        with restored.connect() as connection:
            program = find_program_for_server("pg_restore", connection.info.server_version // 10_000)
        subprocess.run([*program.command, "--dbname", conninfo(restored.url), backup], check=True)
        assert dump(restored) == before
    again = adopt(empty_database, tmp_path, "--apply")
    assert again.stdout.startswith(NOTHING)
    assert adopt(empty_database, tmp_path).stdout.startswith(NOTHING)
    assert len(list((tmp_path / "backups").iterdir())) == 1


def test_adoption_without_backup_needs_confirmation(empty_database: Database, tmp_path: Path) -> None:
    create_legacy_database(empty_database, "half_run")
    before = dump(empty_database)
    unconfirmed = adopt(empty_database, tmp_path, "--apply", "--no-backup")
    assert unconfirmed.returncode == 23
    assert "add --yes" in unconfirmed.stderr
    assert dump(empty_database) == before
    assert adopt(empty_database, tmp_path, "--apply", "--no-backup", "--yes").returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_adoption_with_unwritable_backup_changes_nothing(empty_database: Database, tmp_path: Path) -> None:
    create_legacy_database(empty_database, "half_run")
    before = dump(empty_database)
    (tmp_path / "backups").write_text("not a directory")
    result = adopt(empty_database, tmp_path, "--apply")
    assert result.returncode == 17, result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: Cannot write the backup backups/")
    assert dump(empty_database) == before


@pytest.mark.slow
def test_killed_adoption_changes_nothing(empty_database: Database, tmp_path: Path) -> None:
    create_legacy_database(empty_database, "other_names")
    execute(empty_database, *SLEEP_AT_INDEXES)
    before = dump(empty_database)
    process = subprocess.Popen(
        [str(PROGRAMS / "syntegra-db"), "adopt", "--apply"],
        cwd=tmp_path,
        env={**os.environ, "DATABASE_URL": empty_database.environment_url},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while empty_database.query(SLEEPING) != [(1,)]:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    # The server finishes its current statement, and the next run waits for it.
    execute(empty_database, "ALTER EVENT TRIGGER nap DISABLE")
    second = adopt(empty_database, tmp_path)
    assert second.returncode in {0, 15}, second.stderr
    while empty_database.query("SELECT 1 FROM pg_stat_activity WHERE application_name = 'syntegra_db adoption'"):
        time.sleep(0.05)
    execute(empty_database, "ALTER EVENT TRIGGER nap ENABLE")
    assert dump(empty_database) == before
    execute(empty_database, "DROP EVENT TRIGGER nap", "DROP FUNCTION nap")
    result = adopt(empty_database, tmp_path, "--apply")
    assert result.returncode == 0, result.stderr
    assert adopt(empty_database, tmp_path).stdout.startswith(NOTHING)


def test_adoption_behind_lock_times_out_and_names_session(empty_database: Database) -> None:
    create_legacy_database(empty_database, "half_run")
    before = dump(empty_database)
    short_timeouts = MigrationOptions(lock_timeout=0.1, lock_retry_timeout=1)
    with empty_database.connect() as other:
        other.execute("SET application_name = 'month-end report'")
        other.autocommit = False
        other.execute("UPDATE kpi_summary SET kpi_value = 5")
        with pytest.raises(LockTimeout, match="month-end report"):
            adoption.apply(empty_database.engine, options=short_timeouts, backup=False)
        other.rollback()
    assert dump(empty_database) == before


@pytest.mark.parametrize("name", ["serial_ids", "shared", "first_two", "half_run", "other_names"])
def test_upgrade_of_unversioned_tables_suggests_adopt(empty_database: Database, tmp_path: Path, name: str) -> None:
    create_legacy_database(empty_database, name)
    before = dump(empty_database)
    result = run_command("syntegra-db", "upgrade", url=empty_database.environment_url, cwd=tmp_path)
    assert result.returncode == 11
    assert "Run `syntegra-db adopt`, which keeps every row." in result.stderr
    with pytest.raises(MigrationFailed, match="syntegra-db adopt"):
        migrations.upgrade(url=empty_database.url)
    assert dump(empty_database) == before


def test_upgrade_with_application_objects_does_not_suggest_adopt(empty_database: Database) -> None:
    execute(empty_database, "CREATE TABLE sources (id bigint CONSTRAINT pk_data_sources PRIMARY KEY)")
    with pytest.raises(MigrationFailed, match="pk_data_sources") as failed:
        migrations.upgrade(url=empty_database.url)
    assert "adopt" not in str(failed.value)
