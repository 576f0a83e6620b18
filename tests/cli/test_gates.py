"""`syntegra-db status --check` and `wait`: the exit status that a pipeline or a container acts on."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from support.processes import running
from support.revisions import AFTER_HEAD, HEAD
from syntegra_db import migrations
from syntegra_db.cli import app
from syntegra_db.errors import DatabaseAhead, DatabaseBehind, RevisionError, ServerUnreachable, TablesInOtherSchema

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.servers import Database

    Gate = Callable[[str, str], Result]

UNREACHABLE = "postgresql://user@localhost:9/database"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A function that runs a command in this process, which is faster than another one."""

    def run_gate(command: str, url: str) -> Result:
        monkeypatch.setenv("DATABASE_URL", url)
        return CliRunner().invoke(app, command.split())

    return run_gate


def printed(result: Result) -> dict[str, Any]:
    """Return the JSON of a gate, whose exit status and message are those of the command."""
    outcome: dict[str, Any] = json.loads(result.stdout)
    assert outcome["exit_status"] == result.exit_code
    assert datetime.fromisoformat(outcome["checked_at"]).tzinfo == UTC
    assert outcome["seconds"] > 0
    if result.exit_code:
        assert result.stderr.splitlines()[-1] == f"Error: {outcome['message']}"
    return outcome


def test_status_check_has_the_status_of_require_head(gate: Gate, database: Database) -> None:
    url = database.environment_url
    result = gate("status --check", url)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith(f" is at revision {HEAD}.\n")
    outcome = printed(gate("status --check --json", url))
    assert (outcome["exit_status"], outcome["revision"], outcome["required"]) == (0, HEAD, HEAD)
    migrations.downgrade("002", database.url)
    result = gate("status --check", url)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (DatabaseBehind.exit_status, "", 1)
    assert f"is at revision 002, but revision {HEAD} is required. Run `syntegra-db upgrade head`." in result.stderr
    outcome = printed(gate("status --check --json", url))
    assert (outcome["exit_status"], outcome["revision"], outcome["required"]) == (9, None, HEAD)
    database.execute(f"UPDATE alembic_version SET version_num = '{AFTER_HEAD}'")
    outcome = printed(gate("status --check --json", url))
    assert outcome["exit_status"] == DatabaseAhead.exit_status


def test_gates_can_ask_for_less_than_the_newest_revision(gate: Gate, database_003: Database) -> None:
    migrations.downgrade("002", database_003.url)
    url = database_003.environment_url
    for command in ("status --check", "wait --timeout 0"):
        outcome = printed(gate(f"{command} --at-least 002 --json", url))
        assert (outcome["exit_status"], outcome["revision"], outcome["required"]) == (0, "002", "002")
        assert gate(f"{command} --at-least 003", url).exit_code == DatabaseBehind.exit_status
        assert gate(f"{command} --at-least 777", url).exit_code == RevisionError.exit_status
    assert gate("status --at-least 002", url).exit_code == 2


def test_status_check_of_other_states(gate: Gate, database: Database) -> None:
    database.execute("CREATE SCHEMA app")
    url = database.url.update_query_dict({"options": "-c search_path=app"}).render_as_string(hide_password=False)
    assert gate("status --check", url).exit_code == TablesInOtherSchema.exit_status
    outcome = printed(gate("status --check --json", UNREACHABLE))
    assert outcome["exit_status"] == ServerUnreachable.exit_status


def test_wait_prints_what_it_reached_or_waited_for(gate: Gate, empty_database: Database) -> None:
    url = empty_database.environment_url
    result = gate("wait", url)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith(" accepts connections.\n")
    result = gate("wait --for-head --timeout 0.5 --json", url)
    assert printed(result)["exit_status"] == DatabaseBehind.exit_status
    assert f"INFO Waiting for revision {HEAD}, at most 0 s more" in result.stderr
    assert f"Error: Waited 0.5 s for revision {HEAD}. The database " in result.stderr
    result = gate("wait --timeout 0", UNREACHABLE)
    assert (result.exit_code, result.stderr.count("\n")) == (ServerUnreachable.exit_status, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_wait_ends_at_once(empty_database: Database, number: signal.Signals) -> None:
    with running(empty_database, "syntegra-db", "wait", "--for-head", "--timeout", "600") as process:
        assert process.stderr is not None
        assert "INFO Waiting for revision" in process.stderr.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=5)
    assert process.returncode == 128 + number
    assert errors.endswith(f" It was waiting for revision {HEAD}; nothing was changed.\n")


@pytest.mark.parametrize("timeout", ["-1", "nan", "x"])
def test_wrong_timeout_exits_2(gate: Gate, timeout: str) -> None:
    result = gate(f"wait --timeout {timeout}", UNREACHABLE)
    assert result.exit_code == 2
    assert "--timeout" in result.stderr
