"""`syntegra-db sql`: the revisions as plain SQL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from syntegra_db.cli.arguments import complete_revision
from syntegra_db.cli.output import echo
from syntegra_db.interruption import report_if_interrupted


def sql(
    revision: Annotated[
        str | None, typer.Argument(autocompletion=complete_revision, help="Revision to print, such as 003.")
    ] = None,
    *,
    rollback: Annotated[bool, typer.Option("--rollback", help="Print its rollback.")] = False,
    write: Annotated[
        Path | None, typer.Option(file_okay=False, exists=True, help="Write all files to this directory.")
    ] = None,
) -> None:
    """Print a revision as plain SQL for psql, or write a file for each revision."""
    from syntegra_db.migrations import render_sql_script, write_sql_scripts

    if write is not None:
        with report_if_interrupted(lambda: f"Files may be missing in {write}; run the command again."):
            names = write_sql_scripts(write)
        echo("\n".join(str(write / name) for name in names))
    elif revision is not None:
        echo(render_sql_script(revision, rollback=rollback).text, newline=False)
    else:
        raise typer.BadParameter("give a revision, or a directory with --write")
