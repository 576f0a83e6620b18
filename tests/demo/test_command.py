"""`python -m demo`: its output, options and errors."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.commands import ROOT
from syntegra_db.errors import DatabaseBehind, ServerUnreachable

if TYPE_CHECKING:
    from support.servers import Database


def run_demo(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DATABASE_URL": url, "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", "demo", *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_demo_command_prints_three_answers_each_time(database: Database) -> None:
    for _ in range(2):
        result = run_demo(database.environment_url)
        assert (result.returncode, result.stderr) == (0, "")
        for part in ("client_id -1", "avg_ticket", "terraza", "+66.7 %", "cerveza sin gluten"):
            assert part in result.stdout


def test_demo_command_with_options_prints_their_answers(database: Database) -> None:
    result = run_demo(database.environment_url, "--client", "3", "--sector", "service", "--text", "262")
    assert (result.returncode, result.stderr) == (0, "")
    for part in ("client_id -3", "resolution_hours", "esim", "Turquía"):
        assert part in result.stdout


@pytest.mark.parametrize("options", [("--client", "4"), ("--sector", "farming"), ("--text", "321")])
def test_demo_command_with_unknown_value_exits_with_usage_error(database: Database, options: tuple[str, str]) -> None:
    result = run_demo(database.environment_url, *options)
    assert result.returncode == 2
    assert options[0] in result.stderr
    assert "Traceback" not in result.stderr


def test_demo_command_with_error_prints_one_line_and_status(empty_database: Database) -> None:
    behind = run_demo(empty_database.environment_url)
    unreachable = run_demo("postgresql://postgres@127.0.0.1:1/nothing")
    assert (behind.returncode, unreachable.returncode) == (DatabaseBehind.exit_status, ServerUnreachable.exit_status)
    for result in (behind, unreachable):
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("Error: ")
