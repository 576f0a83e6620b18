"""Run the package's commands in separate processes, as an operator does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent


def run(
    *command: str, url: str | None = None, cwd: Path = ROOT, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `command` from the tests' environment, with DATABASE_URL set to `url`."""
    program, *arguments = command
    variables = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **(environment or {})}
    if url is not None:
        variables["DATABASE_URL"] = url
    return subprocess.run(
        [str(PROGRAMS / program), *arguments], cwd=cwd, env=variables, capture_output=True, text=True, check=False
    )


def succeed(*command: str, url: str | None = None, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    """Run `command` like `run` and return its standard output; it must exit 0."""
    result = run(*command, url=url, cwd=cwd, environment=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout
