"""Options that several commands share, and checks of arguments: a wrong one is wrong usage, exit status 2."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated

import typer
from typer.models import OptionInfo

from syntegra_db.errors import escape_control_characters
from syntegra_db.revision_files import list_revision_names

# An unknown option reaches the argument, because `-1` looks like one.
ALLOW_STEPS = {"ignore_unknown_options": True}
STEPS = re.compile(r"-\d+")
# lock_timeout is a 32-bit number of milliseconds.
MAX_SECONDS = 2_147_483


def require_revision(value: str) -> str:
    """Return the argument REVISION, which can be relative, such as -1."""
    if value.startswith("-") and not STEPS.fullmatch(value):
        raise typer.BadParameter(f"No such option: {value}")
    return value


def complete_revision(incomplete: str) -> list[str]:
    """Return the revisions that a shell offers."""
    return [name for name in (*list_revision_names(), "head", "base") if name.startswith(incomplete)]


def require_printable(path: Path | None) -> Path | None:
    """Return the name of a file to write: the command that restores it must be printed as it is typed."""
    if path is not None and escape_control_characters(str(path)) != str(path):
        raise typer.BadParameter("the name has control characters, such as a line break; choose another name")
    return path


def require_finite(value: float | None) -> float | None:
    """Return the value of a numeric option; the range of an option does not exclude nan."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def _seconds(text: str, variable: str, default: str, *, minimum: float = 0) -> OptionInfo:
    """Return an option of seconds, whose default comes from the settings."""
    text = f"{text}  [env var: {variable}]  [default: {default}]"
    option: OptionInfo = typer.Option(min=minimum, max=MAX_SECONDS, callback=require_finite, help=text)
    return option


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Schema = Annotated[
    str | None,
    typer.Option(help="Schema of the tables.  [default: the first one of the search_path that exists]"),
]
LockTimeout = Annotated[
    float | None,
    _seconds("Seconds to wait for one lock before backing off.", "SYNTEGRA_LOCK_TIMEOUT", "0.5", minimum=0.001),
]
LockRetryTimeout = Annotated[
    float | None,
    _seconds("Seconds to retry, of a migration for each revision.", "SYNTEGRA_LOCK_RETRY_TIMEOUT", "60"),
]
MigrationLockTimeout = Annotated[
    float | None, _seconds("Seconds to wait for another migration.", "SYNTEGRA_MIGRATION_LOCK_TIMEOUT", "60")
]
