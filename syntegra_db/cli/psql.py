"""`syntegra-db psql`."""

from __future__ import annotations

import typer

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def psql(context: typer.Context) -> None:
    """Open psql on the configured database; all arguments are passed to psql."""
    from syntegra_db.client_programs import exec_psql
    from syntegra_db.settings import database_url

    exec_psql(database_url(), context.args)
