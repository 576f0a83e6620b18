"""Options before the command: version, help, completion, verbosity and the format of the log."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner, Result

from support.commands import PROGRAMS, ROOT, succeed
from support.legacy_databases import create_legacy_database
from support.revisions import REVISIONS
from syntegra_db.cli import app
from syntegra_db.cli.environment import DATABASE_VARIABLES, LOCK_VARIABLES
from syntegra_db.migrations import MigrationOptions
from syntegra_db.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.servers import Database

HEAVY = ("sqlalchemy", "alembic", "psycopg", "pydantic_settings", "numpy")
IMPORTED_DURING = f"""
import atexit, sys
sys.argv[0] = "syntegra-db"
atexit.register(lambda: print([n for n in {HEAVY} if n in sys.modules], file=sys.stderr))
from syntegra_db.cli import main
main()
"""


def commands(group: Any, *names: str) -> Iterator[tuple[str, ...]]:
    yield names
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, *names, name)


def complete(
    *words: str, python: tuple[str, ...] = (str(PROGRAMS / "syntegra-db"),)
) -> subprocess.CompletedProcess[str]:
    variables = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    return subprocess.run(
        python,
        env={**os.environ, **variables, "_SYNTEGRA_DB_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=True,
    )


def invoke(command: str, database: Database, *options: str, **environment: str) -> Result:
    """Run `command` in this process, which is faster than another one."""
    variables = {"DATABASE_URL": database.environment_url, **environment}
    return CliRunner().invoke(app, [*options, *command.split()], env=variables)


def log_lines(stderr: str) -> list[dict[str, Any]]:
    """Return the objects of a JSON log, each of which must have a time with a zone."""
    records = [json.loads(line) for line in stderr.splitlines()]
    for record in records:
        assert datetime.fromisoformat(record["time"]).utcoffset() == timedelta(0)
        assert {"time", "level", "logger", "message"} <= record.keys()
    return records


def test_version_is_that_of_the_package() -> None:
    assert succeed("syntegra-db", "--version") == f"syntegra-db {version('syntegra-db')}\n"
    assert succeed("python", "-m", "syntegra_db", "--version") == f"syntegra-db {version('syntegra-db')}\n"


def test_short_option_prints_the_help_of_every_command_and_group() -> None:
    every = [names for names in commands(typer.main.get_command(app)) if "psql" not in names]
    assert len(every) > 25
    for names in every:
        result = CliRunner().invoke(app, [*names, "-h"], prog_name="syntegra-db")
        assert (result.exit_code, result.stderr) == (0, ""), names
        assert result.stdout.startswith(f"Usage: {' '.join(('syntegra-db', *names))} "), result.stdout
        assert "-h, --help" in result.stdout


def test_help_lists_every_variable_of_the_settings() -> None:
    database = [name.upper() for name in DatabaseSettings.model_fields]
    locks = [f"SYNTEGRA_{name.upper()}" for name in MigrationOptions.model_fields]
    assert list(DATABASE_VARIABLES) == database
    assert list(LOCK_VARIABLES) == locks
    for command, variables in (("", [*database, *locks]), ("status", database), ("restore", [*database, *locks])):
        text = CliRunner().invoke(app, [*command.split(), "--help"]).stdout
        assert [name for name in variables if f" {name} " not in text] == [], command
    assert "env var: SYNTEGRA_LOG_FORMAT" in " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_shown(shell: str) -> None:
    assert "_SYNTEGRA_DB_COMPLETE" in succeed("syntegra-db", "--show-completion", shell)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ro",), ["rollback"]),
        (("tenancy", "un"), ["unbind"]),
        (("downgrade", ""), [*REVISIONS, "head", "base"]),
        (("rollback", "b"), ["base"]),
        (("sql", "00"), [name for name in REVISIONS if name.startswith("00")]),
        (("--log-format", ""), ["text", "json"]),
        (("upgrade", "--lock-r"), ["--lock-retry-timeout"]),
    ],
)
def test_completion_offers_commands_options_and_revisions(words: tuple[str, ...], offered: list[str]) -> None:
    result = complete("syntegra-db", *words)
    assert (result.stdout.split(), result.stderr) == (offered, "")


def test_completion_loads_no_database_library() -> None:
    result = complete("syntegra-db", "downgrade", "", python=(sys.executable, "-c", IMPORTED_DURING))
    assert (result.stdout.split()[0], result.stderr) == (REVISIONS[0], "[]\n")


def test_log_goes_to_stderr_with_time_and_level(empty_database: Database) -> None:
    result = invoke("upgrade 001", empty_database)
    time, level, message = result.stderr.splitlines()[-1].split(" ", 2)
    assert datetime.fromisoformat(time).utcoffset() == timedelta(0)
    assert (level, message[:11]) == ("INFO", "001 applied")


def test_quiet_command_prints_results_and_errors_only(empty_database: Database) -> None:
    result = invoke("upgrade 001", empty_database, "-q")
    assert (result.stderr, result.stdout.count("\n")) == ("", 1)
    result = invoke("downgrade 777", empty_database, "--quiet")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (8, "", 1)


def test_verbose_command_logs_connections_programs_and_kinds_of_statements(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database.execute("INSERT INTO data_sources (client_id, name, type) VALUES (1, 'secret name', 'simple_csv')")
    result = invoke("rollback 002", database, "-v")
    assert result.exit_code == 0, result.stderr
    for kind in (" DEBUG LOCK TABLE: ", " DEBUG DROP TABLE: ", " DEBUG COMMIT", " DEBUG Connected to the database "):
        assert kind in result.stderr, kind
    assert "pg_dump ended after" in result.stderr
    assert "secret name" not in result.stderr
    assert logging.getLogger("syntegra_db").level == logging.NOTSET


def test_verbose_adoption_logs_no_value_of_an_option(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    create_legacy_database(empty_database, "shared")
    options = "--set clusters.client_id=424242 --no-backup --yes"
    result = invoke(f"adopt --apply {options}", empty_database, "-v")
    assert " DEBUG LOCK TABLE" in result.stderr
    assert "424242" not in result.stderr.replace("--set clusters.client_id=424242", "")


def test_quiet_and_verbose_exclude_each_other(empty_database: Database) -> None:
    result = invoke("status", empty_database, "-q", "-v")
    assert (result.exit_code, "exclude each other" in result.stderr) == (2, True)


@pytest.mark.parametrize("way", ["option", "variable"])
def test_json_log_has_one_object_per_line(empty_database: Database, way: str) -> None:
    if way == "option":
        result = invoke("upgrade 001", empty_database, "--log-format", "json")
    else:
        result = invoke("upgrade 001", empty_database, SYNTEGRA_LOG_FORMAT="json")
    assert result.stdout.startswith("The database ")
    last = log_lines(result.stderr)[-1]
    assert (last["level"], last["logger"].partition(".")[0]) == ("INFO", "syntegra_db")
    assert last["message"].startswith("001 applied")


@pytest.mark.parametrize(
    ("command", "error", "status"),
    [
        ("upgrade 777", "RevisionError", 8),
        ("verify", None, 2),
        ("rollback base --no-backup", "RevisionError", 8),
        ("restore nothing.dump", "InvalidBackup", 18),
    ],
)
def test_json_log_reports_error_with_its_exit_status(
    empty_database: Database, command: str, error: str | None, status: int
) -> None:
    result = invoke(command, empty_database, "--quiet", "--log-format", "json")
    (line,) = log_lines(result.stderr)
    assert (line["level"], line.get("error"), line["exit_status"]) == ("ERROR", error, status)
    assert not line["message"].startswith("Error")
    assert result.exit_code == status


def test_json_log_contains_what_a_rollback_without_backup_deletes(database: Database) -> None:
    database.execute("INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (1, 1, '{}')")
    result = invoke("rollback 002 --no-backup --yes", database, "--log-format", "json")
    first = log_lines(result.stderr)[0]
    assert (first["level"], "permanently loses" in first["message"]) == ("WARNING", True)


def test_json_log_escapes_bidirectional_marks(empty_database: Database) -> None:
    result = invoke("restore a\u202eb.dump", empty_database, "--log-format", "json")
    assert "\u202e" not in result.stderr
    assert "b.dump cannot be read" in log_lines(result.stderr)[0]["message"]


@pytest.mark.parametrize("options", [("--log-format", "json"), ("--quiet",)])
def test_no_bar_at_terminal(empty_database: Database, options: tuple[str, ...]) -> None:
    controller, terminal = pty.openpty()
    subprocess.run(
        [PROGRAMS / "syntegra-db", *options, "upgrade", "001"],
        env={**os.environ, "DATABASE_URL": empty_database.environment_url},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        check=True,
    )
    os.write(terminal, b"end of the output\n")
    os.close(terminal)
    shown = b""
    while b"end of the output" not in shown:
        shown += os.read(controller, 4096)
    os.close(controller)
    assert b"\x1b" not in shown
    records = log_lines(shown.decode().partition("end of")[0])
    assert bool(records) == ("json" in options)
