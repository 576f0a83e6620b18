"""JSON, tables and confirmations: the output that several commands share."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

import typer

from syntegra_db.errors import escape_control_characters

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from syntegra_db.errors import SyntegraDBError


def print_json(value: Any) -> None:
    """Print dataclasses, dictionaries and lists as indented JSON; printable characters are not escaped."""
    formatted = json.dumps(value, ensure_ascii=False, indent=2, default=_to_json)
    typer.echo(escape_control_characters(formatted, keep="\n"))


def _to_json(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], right_aligned: Collection[str] = ()) -> None:
    """Print a table without borders."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right_aligned else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def confirm_no_backup(data_loss: str, error: type[SyntegraDBError], *, yes: bool) -> None:
    """Print what is lost without a backup, and raise `error` unless the user confirms it or `yes` is set."""
    typer.echo(data_loss, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise error("No terminal to confirm at; nothing was changed. Leave out --no-backup, or add --yes.")
    if not typer.confirm("Continue?", err=True):
        raise error("Nothing was changed. Leave out --no-backup to make a backup first.")
