"""`syntegra-db wait`, and the outcome of a command that a pipeline or a container waits for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from syntegra_db.cli.arguments import MAX_SECONDS, Json, complete_revision, require_finite
from syntegra_db.cli.output import echo, print_json
from syntegra_db.errors import SyntegraDBError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class GateResult:
    """The outcome of `status --check` or `wait`: `exit_status` 0, or that of the error in `message`.

    `required` is the revision that was asked for, if any, and `revision` the one that fulfils it.
    """

    exit_status: int
    message: str
    required: str | None
    revision: str | None
    seconds: float
    checked_at: datetime


MinimumRevision = Annotated[
    str | None,
    typer.Option(
        metavar="REVISION",
        autocompletion=complete_revision,
        help="Ask for this revision or a later one, not for the newest.",
    ),
]


def wait(
    timeout: Annotated[
        float, typer.Option(min=0, max=MAX_SECONDS, callback=require_finite, help="Seconds to wait.")
    ] = 60,
    *,
    for_head: Annotated[
        bool,
        typer.Option(
            "--for-head", help="Also wait until another process has migrated the database to the newest revision."
        ),
    ] = False,
    at_least: MinimumRevision = None,
    json_output: Json = False,
) -> None:
    """Wait until the server accepts connections. A wrong password or database name is an error at once."""
    from syntegra_db.cli.progress import progress_bar
    from syntegra_db.migrations import wait_for_database
    from syntegra_db.revisions import head_revision

    required = at_least or (head_revision() if for_head else None)

    def wait_with_log() -> str | None:
        with progress_bar("Waiting"):
            return wait_for_database(timeout=timeout, at_least=required)

    print_gate_result(wait_with_log, required=required, json_output=json_output)


def print_gate_result(check: Callable[[], str | None], *, required: str | None, json_output: bool) -> None:
    """Run `check`, which returns the revision of the database if `required` is one, and print the outcome.

    Raises:
        SyntegraDBError: that of `check`; with `json_output`, it was printed as JSON too.
    """
    from syntegra_db.revisions import describe_revision
    from syntegra_db.settings import database_url, describe_database

    started, revision, failure = time.monotonic(), None, None
    try:
        revision = check()
        state = f"is at {describe_revision(revision)}" if required else "accepts connections"
        message = f"The {describe_database(database_url())} {state}."
    except SyntegraDBError as error:
        failure, message = error, str(error)
    if json_output:
        status, seconds = failure.exit_status if failure else 0, round(time.monotonic() - started, 3)
        print_json(GateResult(status, message, required, revision, seconds, datetime.now(UTC)))
    elif failure is None:
        echo(message)
    if failure is not None:
        raise failure
