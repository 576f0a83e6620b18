"""Arguments, help and advice of `syntegra-db`: wrong usage exits 2, and every printed command works."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

from support.commands import run, succeed
from support.legacy_databases import create_legacy_database, execute
from support.revisions import AFTER_HEAD, BEFORE_HEAD, HEAD, REVISIONS
from syntegra_db import migrations

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

COMMANDS = ("upgrade", "downgrade", "adopt", "backup", "backups", "vectors rebuild")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", ["40", "200"])
def test_help_shows_defaults_at_every_width(command: str, columns: str) -> None:
    result = run("syntegra-db", *command.split(), "--help", environment={"COLUMNS": columns})
    assert "[default:" in result.stdout, result.stdout


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e10", "x", "-1"])
@pytest.mark.parametrize(
    "command",
    [
        "upgrade --lock-timeout",
        "upgrade --lock-retry-timeout",
        "downgrade 002 --migration-lock-timeout",
        "vectors status --seconds",
        "vectors rebuild --recall",
    ],
)
def test_invalid_number_exits_2_and_names_the_option(command: str, value: str) -> None:
    result = run("syntegra-db", *command.split(), value, url="postgresql://user@localhost:1/none")
    assert result.returncode == 2, result.stderr
    assert command.rsplit(maxsplit=1)[-1] in result.stderr
    assert "environment" not in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "vectors rebuild --memory 1kB",
        "vectors rebuild --memory 1023kB",
        "vectors rebuild --memory 3000GB",
        "adopt --set x",
        "adopt --set clusters=1",
        "adopt --set a.b.c=1",
        "adopt --set clusters.id=",
        "downgrade --locktimeout 1 002",
        "downgrade -x",
        "rollback --no-backp 002",
        "upgrade -1",
        "backups missing",
        "upgrade --lock-timeout",
    ],
)
def test_wrong_usage_exits_2_without_connection(command: str) -> None:
    result = run("syntegra-db", *command.split(), url="postgresql://user@localhost:1/none")
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("command", "reached"),
    [("downgrade -1", BEFORE_HEAD), (f"rollback -{len(REVISIONS) - 1}", "001"), ("downgrade -- -1", BEFORE_HEAD)],
)
def test_relative_revision_is_no_option(database: Database, tmp_path: Path, command: str, reached: str) -> None:
    assert (
        f"is at revision {reached}."
        in run("syntegra-db", *command.split(), url=database.environment_url, cwd=tmp_path).stdout
    )


@pytest.mark.parametrize(
    "command",
    [
        f"downgrade -{len(REVISIONS) + 2}",
        f"rollback -{len(REVISIONS) + 1}",
        "upgrade +1",
        "downgrade base-1",
        f"upgrade {BEFORE_HEAD}+2",
    ],
)
def test_steps_beyond_the_revisions_exit_8_without_warning(database: Database, tmp_path: Path, command: str) -> None:
    result = run("syntegra-db", *command.split(), url=database.environment_url, cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (8, 1), result.stderr
    assert f"The revisions are {', '.join(REVISIONS)}." in result.stderr
    assert database.query("SELECT version_num FROM alembic_version") == [(HEAD,)]


@pytest.mark.parametrize("program", ["syntegra-db", "alembic"])
@pytest.mark.parametrize("target", ["001", "002", "base"])
def test_upgrade_to_older_revision_exits_8_with_command_that_works(
    database: Database, tmp_path: Path, program: str, target: str
) -> None:
    result = run(program, "upgrade", target, url=database.environment_url)
    assert result.returncode == 8, result.stderr
    command = result.stderr.rpartition("To change to it: ")[2].strip()
    run_printed(command, database, tmp_path)
    assert f"{target if target != 'base' else 'no revision'}" in succeed(
        "syntegra-db", "status", url=database.environment_url
    )


def test_downgrade_to_newer_revision_exits_8_with_command_that_works(database: Database, tmp_path: Path) -> None:
    migrations.downgrade("001", database.url)
    result = run("syntegra-db", "downgrade", HEAD, url=database.environment_url)
    assert result.returncode == 8, result.stderr
    run_printed(result.stderr.rpartition("To change to it: ")[2].strip(), database, tmp_path)
    assert database.query("SELECT version_num FROM alembic_version") == [(HEAD,)]


def run_printed(command: str, database: Database, folder: Path) -> None:
    program, *arguments = shlex.split(command)
    succeed(program, *arguments, url=database.environment_url, cwd=folder)


@pytest.mark.parametrize(("revision", "status"), [(AFTER_HEAD, 10), ("ae1027a6", 8), ("[/x]", 8)])
def test_status_at_unknown_revision_prints_state_and_reason(database: Database, revision: str, status: int) -> None:
    with database.connect() as connection:
        connection.execute("UPDATE alembic_version SET version_num = %s", (revision,))
    for command in (("status",), ("status", "--json")):
        result = run("syntegra-db", *command, url=database.environment_url)
        assert result.returncode == status, result.stderr
        assert revision in result.stdout
        assert "text_summary" in result.stdout
        assert revision in result.stderr


@pytest.mark.parametrize("command", ["verify", "verify --json"])
def test_verify_of_empty_database_exits_2_with_command_that_works(
    empty_database: Database, tmp_path: Path, command: str
) -> None:
    result = run("syntegra-db", *command.split(), url=empty_database.environment_url)
    assert result.returncode == 2
    printed = re.search(r"Migrate it: (.*?)\. ", result.stderr)
    assert printed is not None, result.stderr
    run_printed(printed[1], empty_database, tmp_path)
    succeed("syntegra-db", "verify", url=empty_database.environment_url)


@pytest.mark.parametrize("name", ["shared", "times_without_zone", "first_two"])
def test_verify_of_unversioned_tables_advises_adopt_and_prints_no_statement_that_drops(
    empty_database: Database, name: str
) -> None:
    create_legacy_database(empty_database, name)
    result = run("syntegra-db", "verify", url=empty_database.environment_url)
    assert result.returncode == 1, result.stderr
    assert "syntegra-db adopt" in result.stdout
    assert not re.search(r"^ *(fix +)?DROP", result.stdout, re.MULTILINE)


def test_upgrade_at_head_reports_drift(database: Database) -> None:
    database.execute("ALTER TABLE clusters DROP COLUMN silhouette_score")
    result = run("syntegra-db", "upgrade", url=database.environment_url)
    assert "silhouette_score" in result.stderr
    assert "`syntegra-db verify` prints how to fix it" in result.stderr


def test_counts_of_one_row_are_singular(database: Database, tmp_path: Path) -> None:
    database.execute("INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (1, 1, '{}')")
    result = run("syntegra-db", "rollback", "002", url=database.environment_url, cwd=tmp_path)
    assert "Saved 1 row of " in result.stdout
    restore = result.stdout.rpartition("To restore the rows:\n")[2].strip()
    program, *arguments = shlex.split(restore)
    assert "Restored 1 row to " in succeed(program, *arguments, url=database.environment_url, cwd=tmp_path)


@pytest.mark.parametrize("statement", ["INSERT", "DELETE"])
def test_status_counts_rows_since_last_analyze(database: Database, statement: str) -> None:
    insert = "INSERT INTO clusters (client_id, cluster_id, features_json) SELECT n, 1, '{}' FROM generate_series"
    database.execute("ALTER TABLE clusters SET (autovacuum_enabled = false)")
    change = "DELETE FROM clusters" if statement == "DELETE" else f"{insert}(1001, 41000) n"
    for command in (f"{insert}(1, 320) n", "ANALYZE clusters", change):
        # The statistics are sent when a session ends.
        execute(database, command)
    output = succeed("syntegra-db", "status", url=database.environment_url)
    assert re.search(rf"^clusters +{'0' if statement == 'DELETE' else '40,320'} ", output, re.MULTILINE), output
