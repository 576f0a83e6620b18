"""`syntegra-db`: one module a group of commands, and the only place that prints."""

from __future__ import annotations

import sys

import typer

from syntegra_db.cli import adopt, backup, local, migrate, psql, sql, status, vectors, verify
from syntegra_db.errors import EXIT_INTERRUPTED, ConnectionFailed, SyntegraDBError

app = typer.Typer(
    name="syntegra-db",
    help="The schema of SYNTEGRA's data on PostgreSQL: migrate it, look at it, try it.",
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
    """Run the command line; an error of the package is one line on standard error and its exit status."""
    try:
        app()
    except SyntegraDBError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201  the command line is what prints
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        from sqlalchemy.exc import DBAPIError

        if not isinstance(error, DBAPIError):
            raise
        reason = str(error.orig).partition("\n")[0]
        print(f"Error: the server ended the command: {reason}", file=sys.stderr)  # noqa: T201  as above
        sys.exit(ConnectionFailed.exit_status)
