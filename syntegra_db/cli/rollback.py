"""`syntegra-db rollback`: downgrade with a backup of the rows."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from syntegra_db.cli.arguments import (
    Json,
    LockRetryTimeout,
    LockTimeout,
    MigrationLockTimeout,
    complete_revision,
    require_revision,
)
from syntegra_db.cli.backup import Output, backup_file, row_progress, summarize
from syntegra_db.cli.confirmation import confirm_no_backup
from syntegra_db.cli.output import echo, print_json
from syntegra_db.interruption import report_if_interrupted

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

    from syntegra_db.backup import RollbackResult
    from syntegra_db.cli.results import RollbackSummary
    from syntegra_db.migrations import MigrationOptions


def rollback(  # noqa: PLR0913  an option each
    revision: Annotated[
        str,
        typer.Argument(
            callback=require_revision,
            autocompletion=complete_revision,
            help="Older revision, such as 002, -1 or base.",
        ),
    ],
    output: Output = None,
    lock_timeout: LockTimeout = None,
    lock_retry_timeout: LockRetryTimeout = None,
    migration_lock_timeout: MigrationLockTimeout = None,
    *,
    no_backup: Annotated[bool, typer.Option("--no-backup", help="Delete rows and values without a backup.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --no-backup: do not prompt.")] = False,
    json_output: Json = False,
) -> None:
    """Downgrade to an older revision after a verified backup, and print the command that restores the rows."""
    from syntegra_db import backup as backups
    from syntegra_db.connections import unpooled_engine
    from syntegra_db.migrations import load_migration_options
    from syntegra_db.settings import database_url

    engine = unpooled_engine(database_url(), "syntegra_db rollback")
    options = load_migration_options(
        lock_timeout=lock_timeout,
        lock_retry_timeout=lock_retry_timeout,
        migration_lock_timeout=migration_lock_timeout,
    )
    if no_backup:
        _roll_back_without_backup(revision, engine, options, yes=yes, json_output=json_output)
        return
    with ExitStack() as progress:
        report = progress.enter_context(row_progress("Backing up"))

        def print_result(result: RollbackResult) -> None:
            progress.close()
            if json_output:
                print_json(_rollback_summary(engine.url, result.revision, result))
            else:
                _print_rolled_back(result, engine.url)
            progress.enter_context(row_progress("Verifying the schema"))

        backups.rollback(revision, engine, output, options=options, report=report, on_commit=print_result)


def _roll_back_without_backup(
    revision: str, engine: Engine, options: MigrationOptions, *, yes: bool, json_output: bool
) -> None:
    from syntegra_db import migrations
    from syntegra_db.backup import describe_rollback_loss
    from syntegra_db.cli.progress import migration_progress
    from syntegra_db.errors import ConfirmationRequired
    from syntegra_db.revisions import describe_revision
    from syntegra_db.settings import describe_database

    database = describe_database(engine.url)
    if lost := describe_rollback_loss(revision, engine):
        loss = f"Without a backup, the {database} permanently loses {lost}."
        confirm_no_backup(loss, ConfirmationRequired, yes=yes)
    with migration_progress(), report_if_interrupted(lambda: "Nothing was changed.", unless_reported=True):
        reached = migrations.downgrade(revision, engine.url, options)
    if json_output:
        print_json(_rollback_summary(engine.url, reached))
    else:
        echo(f"The {database} is at {describe_revision(reached)}.")


def _print_rolled_back(result: RollbackResult, url: URL) -> None:
    from syntegra_db.revisions import describe_revision
    from syntegra_db.settings import describe_database

    echo(f"{summarize(result.backup)}, verified: {result.backup.path}")
    echo(f"The {describe_database(url)} is at {describe_revision(result.revision)}.")
    echo(f"To restore the rows:\n  {result.restore_command}")


def _rollback_summary(url: URL, revision: str | None, result: RollbackResult | None = None) -> RollbackSummary:
    from syntegra_db.cli.results import RollbackSummary
    from syntegra_db.settings import describe_database

    target = describe_database(url)
    if result is None:
        return RollbackSummary(target, revision, None, None)
    return RollbackSummary(target, revision, backup_file(result.backup), result.restore_command)
