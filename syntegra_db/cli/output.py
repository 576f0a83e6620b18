"""Text, JSON, tables and confirmations: the output that several commands share."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import asdict, is_dataclass
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import typer

from syntegra_db.errors import escape_control_characters
from syntegra_db.interruption import report_if_interrupted

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import TextIO

    from syntegra_db.errors import SyntegraDBError

COLUMN_GAP = "  "


def echo(text: str = "", *, err: bool = False, bold: bool = False, newline: bool = True) -> None:
    """Print `text`; control characters, which names of the server and of files can have, are escaped."""
    # Not typer.echo, which writes UTF-8 to an ASCII terminal.
    stream: TextIO | None = sys.stderr if err else sys.stdout
    if stream is None:  # it was closed when the process started
        return
    printable = escape_control_characters(text, keep="\n\t")
    if bold and stream.isatty() and "NO_COLOR" not in os.environ:
        printable = typer.style(printable, bold=True)
    stream.write(printable + ("\n" if newline else ""))
    stream.flush()


def escape_unencodable(*streams: TextIO) -> None:
    """Print characters that the encoding of a stream does not have, as on a Latin-1 terminal, as escapes."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_json(value: Any) -> None:
    """Print dataclasses, dictionaries and lists as indented JSON, with times as in RFC 3339.

    Characters that the terminal has are not escaped.
    """
    is_unicode = sys.stdout is not None and sys.stdout.encoding.lower().startswith("utf")
    echo(json.dumps(value, ensure_ascii=not is_unicode, indent=2, default=_to_json))


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], right_aligned: Collection[str] = ()) -> None:
    """Print a table without borders; no line is cut or wrapped, so names can be copied. A cell can have lines."""
    lines = [tuple(headings)]
    for row in rows:
        lines += zip_longest(*(cell.split("\n") for cell in row), fillvalue="")
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.rjust(width) if heading in right_aligned else cell.ljust(width)
            for cell, width, heading in zip(line, widths, headings, strict=True)
        )
        echo(COLUMN_GAP.join(cells).rstrip())


def confirm_no_backup(data_loss: str, error: type[SyntegraDBError], *, yes: bool) -> None:
    """Print what is lost without a backup, and raise `error` unless the user confirms it or `yes` is set."""
    confirm(
        data_loss,
        error,
        yes=yes,
        otherwise="Leave out --no-backup, or add --yes.",
        declined="Leave out --no-backup to make a backup first.",
    )


def confirm(
    consequence: str, error: type[SyntegraDBError], *, yes: bool, otherwise: str = "Add --yes.", declined: str = ""
) -> None:
    """Print `consequence`, and raise `error` unless the user confirms it or `yes` is set.

    `otherwise` is what to do without a terminal, and `declined` after the answer no.
    """
    echo(consequence, err=True)
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise error(f"No terminal to confirm at; nothing was changed. {otherwise}")
    # Not typer.confirm, which takes Ctrl-C for the answer no.
    with report_if_interrupted(lambda: "Nothing was changed."):
        echo("Continue? [y/N] ", err=True, newline=False)
        answer = sys.stdin.readline().strip().lower()
    if answer not in {"y", "yes"}:
        raise error(f"Nothing was changed. {declined}".rstrip())
