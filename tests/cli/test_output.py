"""JSON, progress and confirmation, which several commands share."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from syntegra_db.cli import app, output
from syntegra_db.cli.confirmation import confirm_no_backup
from syntegra_db.cli.logs import EscapingFormatter
from syntegra_db.errors import AdoptionNotPossible, escape_control_characters

PROGRESS = """
import logging
from syntegra_db.cli.logs import log_to_stderr
from syntegra_db.cli.progress import progress_bar
with log_to_stderr(), progress_bar("Saving") as show:
    logging.getLogger("syntegra_db.backup").info("a log line")
    if show is not None:
        show("Saving 5/10 rows", 5, 10)
"""

CLOCK = """
import time
from syntegra_db.cli.logs import log_to_stderr
from syntegra_db.cli.progress import progress_bar
with log_to_stderr(), progress_bar("Building") as show:
    show("Building", 10, 10)
    show("calibrating", 0, None)
    time.sleep(2.5)
"""


@dataclass
class Row:
    name: str
    path: Path


def test_print_json_of_nested_dataclass_keeps_non_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"rows": [Row("señal", Path("a/b"))]})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"rows": [{"name": "señal", "path": "a/b"}]}
    assert "señal" in printed


def test_confirm_without_terminal_raises_given_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(AdoptionNotPossible, match="nothing was changed"):
        confirm_no_backup("All rows are deleted.", AdoptionNotPossible, yes=False)
    confirm_no_backup("All rows are deleted.", AdoptionNotPossible, yes=True)
    assert capsys.readouterr().err == "All rows are deleted.\n" * 2


@pytest.mark.parametrize(("answer", "confirmed"), [("y", True), (" YES ", True), ("n", False), ("", False)])
def test_confirm_at_terminal_follows_the_answer(
    monkeypatch: pytest.MonkeyPatch, answer: str, *, confirmed: bool
) -> None:
    controller, terminal = pty.openpty()
    os.write(controller, f"{answer}\n".encode())
    rejected = nullcontext() if confirmed else pytest.raises(AdoptionNotPossible, match="Leave out --no-backup")
    with os.fdopen(terminal, encoding="utf-8") as stdin, rejected:
        monkeypatch.setattr("sys.stdin", stdin)
        confirm_no_backup("All rows are deleted.", AdoptionNotPossible, yes=False)
    os.close(controller)


def test_progress_without_terminal_prints_log_lines() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRESS], capture_output=True, text=True, check=True)
    assert result.stderr.endswith(" INFO a log line\n")
    assert result.stderr.count("\n") == 1


def test_progress_at_terminal_shows_bar_and_log_lines() -> None:
    controller, terminal = pty.openpty()
    subprocess.run([sys.executable, "-c", PROGRESS], stderr=terminal, check=True)
    os.close(terminal)
    shown = b""
    while b"5/10" not in shown:
        shown += os.read(controller, 4096)
    os.close(controller)
    assert b"a log line" in shown


def test_clock_of_progress_bar_continues_after_completed_phase() -> None:
    controller, terminal = pty.openpty()
    subprocess.run([sys.executable, "-c", CLOCK], stderr=terminal, check=True)
    os.close(terminal)
    shown = b""
    # At the end of the output, reading fails.
    while b"0:00:02" not in shown[shown.find(b"calibrating") :]:
        shown += os.read(controller, 4096)
    os.close(controller)


@pytest.mark.parametrize("name", ["a\nb.dump", "a\x1b[31mb.dump", "a\u202eb.dump", "folder\r/b.dump"])
@pytest.mark.parametrize("command", ["backup", "rollback 002"])
def test_output_file_with_control_characters_is_wrong_usage(tmp_path: Path, command: str, name: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--output", name])
    assert result.exit_code == 2
    assert "the name has control characters" in result.output
    assert name not in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a\nb.dump", "a\x1b[31mb.dump", "a\u2028b.dump"])
def test_file_name_with_control_characters_is_escaped_in_messages(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no backup")
    for arguments in (["restore", name], ["backups", "."], ["restore", f"no {name}"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code != 0
        assert name not in result.output
        assert escape_control_characters(name) in result.output, arguments


def test_log_message_with_line_break_is_one_line() -> None:
    record = logging.LogRecord("syntegra_db", logging.INFO, "", 0, "Verifying %s", ("a\nb.dump",), None)
    assert EscapingFormatter().format(record) == "Verifying a\\u000ab.dump"
