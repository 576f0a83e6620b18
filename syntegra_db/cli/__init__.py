"""The command line `syntegra-db`: one module per command group; the only package that prints."""

from __future__ import annotations

import sys

import typer

from syntegra_db.cli import adopt, backup, local, migrate, psql, sql, status, vectors, verify
from syntegra_db.errors import EXIT_INTERRUPTED, ConnectionFailed, SyntegraDBError, server_message

app = typer.Typer(
    name="syntegra-db",
    help="Migrate, verify, back up and search the SYNTEGRA analytics schema on PostgreSQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(migrate.upgrade)
app.command()(migrate.downgrade)
app.command()(adopt.adopt)
app.command()(backup.backup)
app.command()(backup.backups)
app.command()(backup.restore)
app.command()(backup.rollback)
app.command()(status.status)
app.command()(verify.verify)
app.command()(sql.sql)
app.command(hidden=True)(verify.manifests)
app.command(context_settings=psql.PASS_THROUGH)(psql.psql)
app.add_typer(local.app, name="local")
app.add_typer(vectors.app, name="vectors")


def main() -> None:
    """Run the command line; print an error as one line on standard error, and exit with its status."""
    try:
        app()
    except SyntegraDBError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        from sqlalchemy.exc import DBAPIError

        if not isinstance(error, DBAPIError):
            raise
        typer.echo(f"Error: the command failed on the server: {server_message(error)}", err=True)
        sys.exit(ConnectionFailed.exit_status)
