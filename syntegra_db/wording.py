"""Phrases of messages that several packages print."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime


def rows(count: int) -> str:
    """Return a number of rows, such as `1 row` or `2,000 rows`."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time as one number, such as `40 s` or `12 min`."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"  # noqa: PLR2004  two minutes


def shell_quote(word: str) -> str:
    """Return a word for a POSIX shell, on one line: `printf` writes the control characters."""
    if word.isprintable():
        return shlex.quote(word)
    octal = "".join(
        char if char.isascii() and char.isalnum() else "".join(f"\\{byte:03o}" for byte in char.encode())
        for char in word
    )
    return f"\"$(printf '{octal}')\""


def timestamp(moment: datetime, precision: str = "seconds") -> str:
    """Return a time in UTC as in RFC 3339, such as `2026-11-28T16:10:08+00:00`; `precision` is as in `isoformat`."""
    return moment.astimezone(UTC).isoformat(timespec=precision)
