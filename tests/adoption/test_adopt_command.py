"""`syntegra-db adopt` as an operator runs it: the plan, the backup, a kill, a lock, and how one gets there."""

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


def test_plan_is_told_in_groups(empty_database: Database, tmp_path: Path) -> None:
    create_legacy_database(empty_database, "shared")
    said = adopt(empty_database, tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
    for line in (
        "says no revision and comes closest to revision 003",
        "\nMatches\n",
        "  constraint processed_client on processed_data (FOREIGN KEY (client_id) REFERENCES clients(id))",
        "  foreign key alerts_anomaly_id_fkey of alerts to anomaly_log",
        "  processed_data: 40 rows, 32.8 kB, less than a second",
        "    client_id: integer → bigint",
        "--apply",
    ):
        assert line in said.stdout
    assert list(tmp_path.iterdir()) == []


def test_open_decisions_end_with_their_status(empty_database: Database, tmp_path: Path) -> None:
    create_legacy_database(empty_database, "first_two")
    said = adopt(empty_database, tmp_path)
    assert said.returncode == 24
    assert "Needs a decision\n  column data_sources.client_id is required" in said.stdout
    assert said.stderr.startswith("Error: Decide first: ")
    assert adopt(empty_database, tmp_path, "--set", "client_id=7").returncode == 24
    failed = adopt(empty_database, tmp_path, "--set", "processed_data.client_id=1 / (source_id - 3)")
    assert (failed.returncode, failed.stderr.count("\n")) == (25, 1)
    assert "division by zero" in failed.stderr


def test_json(empty_database: Database, tmp_path: Path) -> None:
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
    assert [decision["object"] for decision in plan["decisions"]] == ["column data_sources.updated_at"]
    assert [fill["rows"] for fill in plan["fills"]] == [10, 3]


def test_the_backup_restores_the_database_as_it_was(server: Server, empty_database: Database, tmp_path: Path) -> None:
    create_legacy_database(empty_database, "shared")
    before = dump(empty_database)
    said = adopt(empty_database, tmp_path, "--apply")
    assert said.returncode == 0, said.stderr
    (backup,) = (tmp_path / "backups").iterdir()
    assert f"{backup.relative_to(tmp_path)}" in said.stdout
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


def test_without_a_backup_it_asks_or_takes_yes(empty_database: Database, tmp_path: Path) -> None:
    create_legacy_database(empty_database, "half_run")
    before = dump(empty_database)
    refused = adopt(empty_database, tmp_path, "--apply", "--no-backup")
    assert refused.returncode == 23
    assert "add --yes" in refused.stderr
    assert dump(empty_database) == before
    assert adopt(empty_database, tmp_path, "--apply", "--no-backup", "--yes").returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_backup_that_cannot_be_written_keeps_everything_as_it_is(empty_database: Database, tmp_path: Path) -> None:
    create_legacy_database(empty_database, "half_run")
    before = dump(empty_database)
    (tmp_path / "backups").write_text("in the way")
    said = adopt(empty_database, tmp_path, "--apply")
    assert (said.returncode, said.stderr.splitlines()[-1][:23]) == (17, "Error: No backup in bac"), said.stderr
    assert dump(empty_database) == before


def test_killed_half_way_it_leaves_the_database_as_it_was(empty_database: Database, tmp_path: Path) -> None:
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
    # What the server still works on ends by itself, and the next run waits for it.
    execute(empty_database, "ALTER EVENT TRIGGER nap DISABLE")
    second = adopt(empty_database, tmp_path)
    assert second.returncode in {0, 15}, second.stderr
    while empty_database.query("SELECT 1 FROM pg_stat_activity WHERE application_name = 'syntegra_db adoption'"):
        time.sleep(0.05)
    execute(empty_database, "ALTER EVENT TRIGGER nap ENABLE")
    assert dump(empty_database) == before
    execute(empty_database, "DROP EVENT TRIGGER nap", "DROP FUNCTION nap")
    said = adopt(empty_database, tmp_path, "--apply")
    assert said.returncode == 0, said.stderr
    assert adopt(empty_database, tmp_path).stdout.startswith(NOTHING)


def test_it_steps_aside_for_others_and_says_for_whom(empty_database: Database) -> None:
    create_legacy_database(empty_database, "half_run")
    before = dump(empty_database)
    impatient = MigrationOptions(lock_timeout=0.1, lock_retry_timeout=1)
    with empty_database.connect() as other:
        other.execute("SET application_name = 'month-end report'")
        other.autocommit = False
        other.execute("UPDATE kpi_summary SET kpi_value = 5")
        with pytest.raises(LockTimeout, match="month-end report"):
            adoption.apply(empty_database.url, options=impatient, backup=False)
        other.rollback()
    assert dump(empty_database) == before


@pytest.mark.parametrize("name", ["serial_ids", "shared", "first_two", "half_run", "other_names"])
def test_upgrade_says_to_adopt(empty_database: Database, tmp_path: Path, name: str) -> None:
    create_legacy_database(empty_database, name)
    before = dump(empty_database)
    said = run_command("syntegra-db", "upgrade", url=empty_database.environment_url, cwd=tmp_path)
    assert said.returncode == 11
    assert "Run `syntegra-db adopt`, which keeps every row." in said.stderr
    with pytest.raises(MigrationFailed, match="syntegra-db adopt"):
        migrations.upgrade(url=empty_database.url)
    assert dump(empty_database) == before


def test_upgrade_does_not_say_so_of_the_applications_own(empty_database: Database) -> None:
    execute(empty_database, "CREATE TABLE sources (id bigint CONSTRAINT pk_data_sources PRIMARY KEY)")
    with pytest.raises(MigrationFailed, match="pk_data_sources") as failed:
        migrations.upgrade(url=empty_database.url)
    assert "adopt" not in str(failed.value)
