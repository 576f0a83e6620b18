"""`syntegra-db local`: the embedded PostgreSQL of this directory."""

from __future__ import annotations

from typing import Annotated

import typer

from syntegra_db.cli.arguments import Json
from syntegra_db.cli.output import echo, print_json
from syntegra_db.cli.psql import PASS_THROUGH
from syntegra_db.interruption import report_if_interrupted
from syntegra_db.libpq_options import remove_session_variables

app = typer.Typer(help="An embedded PostgreSQL in this directory, without root or Docker.", no_args_is_help=True)


@app.callback()
def local() -> None:
    """Remove variables that would change the connections."""
    remove_session_variables()


@app.command()
def start(
    version: Annotated[int, typer.Option(help="Major version of PostgreSQL: 18 or 16.")] = 18,
    *,
    unless_configured: Annotated[
        bool, typer.Option("--unless-configured", help="Do nothing if the settings name another server.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Start it with the data in .postgres/, and print the database's address."""
    from syntegra_db import embedded
    from syntegra_db.cli.results import LocalServer
    from syntegra_db.settings import describe_database, is_configured

    if unless_configured and is_configured():
        if json_output:
            print_json(LocalServer(None, None))
        return
    state = "What was started or created is kept; run the command again to complete it."
    with report_if_interrupted(lambda: state, unless_reported=True):
        target = describe_database(embedded.start(version=version))
    if json_output:
        print_json(LocalServer(version, target))
    else:
        echo(f"PostgreSQL {version} is running: {target}.")


@app.command()
def stop(*, json_output: Json = False) -> None:
    """Stop it; the data is kept."""
    from syntegra_db import embedded
    from syntegra_db.cli.results import StoppedServers

    state = "A server may still run; run the command again."
    with report_if_interrupted(lambda: state, unless_reported=True):
        stopped = embedded.stop()
    if json_output:
        print_json(StoppedServers(stopped))
        return
    echo("\n".join(f"PostgreSQL {version} stopped." for version in stopped) or "It was not running.")


@app.command()
def url(*, json_output: Json = False) -> None:
    """Print its URL, for DATABASE_URL."""
    from syntegra_db import embedded
    from syntegra_db.cli.results import LocalUrl

    text = embedded.running_url().set(drivername="postgresql").render_as_string()
    if json_output:
        print_json(LocalUrl(text))
    else:
        echo(text)


@app.command(context_settings=PASS_THROUGH)
def psql(context: typer.Context) -> None:
    """Open psql on its database; all arguments are passed to psql."""
    from syntegra_db import embedded
    from syntegra_db.client_programs import exec_psql

    exec_psql(embedded.running_url(), context.args, embedded.bin_directory() / "psql")
