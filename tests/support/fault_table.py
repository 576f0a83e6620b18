"""The outcomes of the fault matrix, printed at the end of a test run as a Markdown table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a row for each command and a column for each fault."""
    commands: dict[int, str] = {}
    faults: dict[int, str] = {}
    cells: dict[tuple[int, int], str] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for value in (value for name, value in report.user_properties if name == "fault"):
                row, commands[row], column, faults[column], text = value
                cells[row, column] = text if outcome == "passed" else f"**{outcome}**: {text}"
    if not cells:
        return
    terminalreporter.section("faults: what the database kept, exit status, time until the command ended")
    lines = [["", *(faults[column] for column in sorted(faults))], ["---"] * (len(faults) + 1)]
    lines += [
        [f"`{commands[row]}`", *(cells.get((row, column), "") for column in sorted(faults))] for row in sorted(commands)
    ]
    for line in lines:
        terminalreporter.write_line(f"| {' | '.join(line)} |")
