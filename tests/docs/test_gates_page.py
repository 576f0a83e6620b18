"""docs/guides/gates.md: its commands and its Python code run as printed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from support.commands import ROOT
from syntegra_db.cli import app

if TYPE_CHECKING:
    import pytest

    from support.servers import Database

PAGE = (ROOT / "docs/guides/gates.md").read_text(encoding="utf-8")
COMMANDS = [
    command.removeprefix("syntegra-db ")
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for command in re.split(r"\n| && ", block.strip())
]
QUESTIONS = re.findall(r"\| `syntegra-db (.*?)` \|", PAGE)


def test_commands_of_the_page_run_in_their_order(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database.environment_url)
    assert len(COMMANDS) > len(QUESTIONS) > 5
    for command in (*COMMANDS, *QUESTIONS):
        result = CliRunner().invoke(app, command.split())
        assert result.exit_code == 0, (command, result.output)


def test_python_code_of_the_page_runs(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database.environment_url)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, {})  # noqa: S102  the code of the page


def test_limits_of_the_page_are_the_defaults(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database.environment_url)
    printed = CliRunner().invoke(app, ["upgrade", "--dry-run"]).stdout
    (quoted,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert " ".join(quoted.split()) in printed
