"""The options for locks mean the same on every command that has them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from support.legacy_databases import create_legacy_database
from support.processes import migration_lock_of
from syntegra_db.backup import create_backup
from syntegra_db.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

COMMANDS = ("downgrade 002", "rollback 002", "restore before.dump --replace", "adopt --apply --no-backup --yes")


@pytest.fixture
def located(request: pytest.FixtureRequest, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """The database of the settings, with what `command` needs."""
    adopts = command.startswith("adopt")
    database: Database = request.getfixturevalue("empty_database" if adopts else "database")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database.environment_url)
    if adopts:
        create_legacy_database(database, "shared")
    else:
        create_backup(database.engine, tmp_path / "before.dump")
    return database


@pytest.mark.parametrize("command", COMMANDS)
def test_lock_options_limit_the_wait_for_a_table(located: Database, command: str) -> None:
    options = ["--lock-timeout", "0.05", "--lock-retry-timeout", "0.25"]
    with located.connect() as holder:
        holder.autocommit = False
        holder.execute("LOCK TABLE clusters IN ACCESS SHARE MODE")
        started = time.monotonic()
        result = CliRunner().invoke(app, [*command.split(), *options])
        holder.rollback()
    assert result.exit_code == 15, result.stderr
    assert "The lock was not obtained in 0.25 s, blocked by " in result.stderr
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("command", COMMANDS)
def test_migration_lock_option_limits_the_wait_for_a_migration(located: Database, command: str) -> None:
    with migration_lock_of(located):
        result = CliRunner().invoke(app, [*command.split(), "--migration-lock-timeout", "0"])
    assert result.exit_code == 15, result.stderr
    assert "Another migration is still running after 0 s" in result.stderr
