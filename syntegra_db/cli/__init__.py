"""The command line `syntegra-db`: one module per command group; the only package that prints."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from syntegra_db.cli import (
    adopt,
    backup,
    gates,
    local,
    migrate,
    partitions,
    psql,
    revision,
    sql,
    status,
    tenancy,
    vectors,
    verify,
)
from syntegra_db.cli.arguments import ALLOW_STEPS
from syntegra_db.cli.exit import exit_with_status
from syntegra_db.cli.output import escape_unencodable
from syntegra_db.libpq_options import SESSION_VARIABLES, remove_session_variables


class CommandLine(TyperGroup):
    """The commands; Typer itself would exit with 130 for every signal, and with 1 for a closed pipe."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command, and exit with its status."""
        with exit_with_status():
            if not SESSION_VARIABLES.keys().isdisjoint(os.environ):
                from syntegra_db.settings import is_configured

                if not is_configured():
                    remove_session_variables()
            return super().invoke(ctx)


app = typer.Typer(
    name="syntegra-db",
    help="Migrate, verify, back up and search the SYNTEGRA analytics schema on PostgreSQL.",
    cls=CommandLine,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich would take brackets in help texts and values for markup
)
app.command()(migrate.upgrade)
app.command(context_settings=ALLOW_STEPS)(migrate.downgrade)
app.command()(adopt.adopt)
app.command()(backup.backup)
app.command()(backup.backups)
app.command()(backup.restore)
app.command(context_settings=ALLOW_STEPS)(backup.rollback)
app.command()(status.status)
app.command()(gates.wait)
app.command()(verify.verify)
app.command()(sql.sql)
app.command(hidden=True)(verify.manifests)
app.command(hidden=True)(revision.revision)
app.command(context_settings=psql.PASS_THROUGH)(psql.psql)
app.add_typer(local.app, name="local")
app.add_typer(partitions.app, name="partitions")
app.add_typer(tenancy.app, name="tenancy")
app.add_typer(vectors.app, name="vectors")


def main() -> None:
    """Run the command line; print an error as one line on standard error, and exit with its status."""
    escape_unencodable(sys.stdout, sys.stderr)
    with exit_with_status():
        app()
