"""The command line `syntegra-db`: one module per command group; the only package that prints."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from syntegra_db.cli import (
    adopt,
    backup,
    environment,
    gates,
    local,
    migrate,
    partitions,
    psql,
    revision,
    rollback,
    sql,
    status,
    tenancy,
    vectors,
    verify,
)
from syntegra_db.cli.arguments import ALLOW_STEPS
from syntegra_db.cli.exit import exit_with_status
from syntegra_db.cli.logs import LogFormat, log_to_stderr
from syntegra_db.cli.output import echo, escape_unencodable
from syntegra_db.libpq_options import SESSION_VARIABLES, remove_session_variables


class CommandLine(TyperGroup):
    """The commands; Typer itself would exit with 130 for every signal, and with 1 for a closed pipe."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command, and exit with its status."""
        with log_to_stderr(ctx.params["log_format"], _log_level(ctx.params)), exit_with_status():
            if not SESSION_VARIABLES.keys().isdisjoint(os.environ):
                from syntegra_db.settings import is_configured

                if not is_configured():
                    remove_session_variables()
            return super().invoke(ctx)


app = typer.Typer(
    name="syntegra-db",
    cls=CommandLine,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=environment.EVERY,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich would take brackets in help texts and values for markup
)
DATABASE, LOCKS = environment.DATABASE, environment.DATABASE_AND_LOCKS
app.command(epilog=LOCKS)(migrate.upgrade)
app.command(epilog=LOCKS, context_settings=ALLOW_STEPS)(migrate.downgrade)
app.command(epilog=LOCKS)(adopt.adopt)
app.command(epilog=DATABASE)(backup.backup)
app.command()(backup.backups)
app.command(epilog=LOCKS)(backup.restore)
app.command(epilog=LOCKS, context_settings=ALLOW_STEPS)(rollback.rollback)
app.command(epilog=DATABASE)(status.status)
app.command(epilog=DATABASE)(gates.wait)
app.command(epilog=DATABASE)(verify.verify)
app.command()(sql.sql)
app.command(hidden=True)(verify.manifests)
app.command(hidden=True)(revision.revision)
app.command(context_settings=psql.PASS_THROUGH)(psql.psql)
app.add_typer(local.app, name="local")
app.add_typer(partitions.app, name="partitions")
app.add_typer(tenancy.app, name="tenancy")
app.add_typer(vectors.app, name="vectors")


def _print_version(requested: bool) -> None:  # noqa: FBT001  Typer passes the value of the option
    if requested:
        from importlib.metadata import version

        echo(f"syntegra-db {version('syntegra-db')}")
        raise typer.Exit


@app.callback()
def command_line(
    *,
    version: Annotated[  # noqa: ARG001  its callback prints
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also log connections, programs and the kinds of statements.")
    ] = False,
    log_format: Annotated[  # noqa: ARG001  `CommandLine.invoke` reads it
        LogFormat,
        typer.Option(
            envvar=environment.LOG_FORMAT_VARIABLE, help="Log to standard error as text or as one JSON object per line."
        ),
    ] = LogFormat.TEXT,
) -> None:
    """Migrate, verify, back up and search the SYNTEGRA analytics schema on PostgreSQL."""
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose exclude each other")


def _log_level(options: dict[str, Any]) -> int:
    return logging.ERROR if options["quiet"] else logging.DEBUG if options["verbose"] else logging.INFO


def main() -> None:
    """Run the command line; print an error as one line on standard error, and exit with its status."""
    escape_unencodable(sys.stdout, sys.stderr)
    with exit_with_status():
        app()
