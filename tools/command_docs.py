"""Render docs/commands.md, every command with its arguments and options, from the command line itself."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import typer

from syntegra_db.cli import app
from tools.sections import markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "syntegra-db"
INTRODUCTION = f"""\
# Commands

Generated from the commands by `make generate`: change a help text, not this file. `{PROGRAM} COMMAND --help` prints
the same. [Exit statuses](exit-statuses.md) explains how a command can end.
"""


def render() -> str:
    """Return the page: one section per command, those of a group below it."""
    root = typer.main.get_command(app)
    context = root.context_class(root, info_name=PROGRAM)
    return "\n".join([INTRODUCTION, options(root, context), *sections(root, context)])


def sections(group: Any, parent: Any, level: int = 2) -> Iterator[str]:
    """Yield the section of each visible command of `group`, in the order of the help."""
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command.hidden:
            continue
        context = command.context_class(command, info_name=name, parent=parent)
        usage = " ".join((context.command_path, *command.collect_usage_pieces(context)))
        yield "\n".join(
            (
                f"{'#' * level} `{context.command_path}`\n",
                f"{inspect.cleandoc(command.help)}\n",
                f"```text\n{usage}\n```\n",
                options(command, context),
            )
        )
        if hasattr(command, "list_commands"):
            yield from sections(command, context, level + 1)


def options(command: Any, context: Any) -> str:
    """Return the arguments and options of a command as a table, with the words of its `--help`."""
    records = (parameter.get_help_record(context) for parameter in command.get_params(context))
    rows = [(f"`{cell(name)}`", cell(text)) for name, text in filter(None, records)]
    return markdown_table(("Argument or option", "Meaning"), rows) if rows else ""


def cell(text: str) -> str:
    """Return `text` for a table cell: in one line, a `|` does not end the cell, and `[…] […]` is no link."""
    return " ".join(text.split()).replace("|", "\\|").replace("] [", "; ")
