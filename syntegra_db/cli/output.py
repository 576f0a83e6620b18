"""Text, JSON and tables: the output that several commands share."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import fields, is_dataclass
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import typer

from syntegra_db import wording
from syntegra_db.errors import escape_control_characters

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import TextIO

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
    """Print dataclasses, dictionaries and lists as one indented JSON document."""
    echo(to_json(value, sys.stdout, indent=2))


def to_json(value: Any, stream: TextIO | None, indent: int | None = None) -> str:
    """Return dataclasses, dictionaries and lists as JSON; characters that `stream` can write are not escaped."""
    text = json.dumps(value, ensure_ascii=not is_unicode(stream), indent=indent, default=_to_json)
    return escape_control_characters(text, keep="\n")


def is_unicode(stream: TextIO | None) -> bool:
    """Return whether `stream` can write every character."""
    return stream is not None and stream.encoding.lower().startswith("utf")


def _to_json(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return wording.timestamp(value, "auto") if isinstance(value, datetime) else str(value)


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
