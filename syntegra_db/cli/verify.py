"""`syntegra-db verify` and `manifests`: find drift, and write the manifests that declare each revision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from syntegra_db.cli.arguments import Json, complete_revision
from syntegra_db.cli.logs import report as report_error
from syntegra_db.cli.output import echo, print_json

if TYPE_CHECKING:
    from syntegra_db.catalog import DriftReport, Finding

EXIT_DRIFT = 1
EXIT_ERROR = 2
LABEL_WIDTH = 8


def verify(
    at: Annotated[
        str | None,
        typer.Option(
            metavar="REVISION",
            autocompletion=complete_revision,
            help="Compare with this revision, such as head.  [default: the database's]",
        ),
    ] = None,
    *,
    json_output: Json = False,
) -> None:
    """Compare the schema with the one that its revision declares. Exit status: 0 no drift, 1 drift, 2 error."""
    from sqlalchemy.exc import DBAPIError

    from syntegra_db.catalog import require_no_tables_elsewhere, verify
    from syntegra_db.connections import connect, unpooled_engine
    from syntegra_db.errors import SyntegraDBError, server_message
    from syntegra_db.settings import database_url, describe_database

    try:
        url = database_url()
        with connect(unpooled_engine(url)) as connection:
            report = verify(connection, at)
            if report.revision is None:
                require_no_tables_elsewhere(connection)
    except (SyntegraDBError, DBAPIError) as error:
        _exit_with_error(str(server_message(error) if isinstance(error, DBAPIError) else error))
    if json_output:
        print_json(report)
    else:
        _print(report, describe_database(url))
    if report.findings:
        raise typer.Exit(EXIT_DRIFT)
    if report.revision is None and at is None:
        _exit_with_error(
            f"The {describe_database(url)} has none of the package's tables, so there is nothing to compare. "
            "Migrate it: syntegra-db upgrade. Or correct the name of the database."
        )


def _exit_with_error(message: str) -> NoReturn:
    report_error(message, prefix="Error: ", exit_status=EXIT_ERROR)
    raise typer.Exit(EXIT_ERROR) from None


def manifests(
    directory: Annotated[
        Path | None, typer.Argument(file_okay=False, exists=True, help="Output directory.  [default: in the package]")
    ] = None,
) -> None:
    """Write the manifest of every revision, read from a temporary embedded server."""
    from syntegra_db import embedded
    from syntegra_db.catalog import MANIFESTS
    from syntegra_db.migrations import write_manifests

    with embedded.temporary_server() as url:
        written = write_manifests(url, directory or MANIFESTS)
    echo("\n".join(str(path) for path in written))


def _print(report: DriftReport, database: str) -> None:
    from syntegra_db.revisions import describe_revision

    count = len(report.findings)
    result = f"{count} difference{'s' if count > 1 else ''}" if count else "no drift"
    comparison = f", compared with {report.compared_with}" if report.compared_with else ""
    echo(f"The {database} is at {describe_revision(report.revision)}{comparison}: {result}.")
    for heading, findings in (("Differences", report.findings), ("Notes", report.notes)):
        if findings:
            echo(f"\n{heading}")
        for finding in findings:
            _print_finding(finding)


def _print_finding(finding: Finding) -> None:
    """Print a finding without wrapping lines, so its statements can be copied."""
    echo(f"\n  {finding.object}", bold=True)
    for label in ("expected", "found", "impact", "fix"):
        text = getattr(finding, label)
        text = text.replace("\n", "\n" + " " * (LABEL_WIDTH + 6))
        echo(f"    {label:<{LABEL_WIDTH}}  {text}")
