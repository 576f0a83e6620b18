"""`syntegra-db upgrade` and `downgrade`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from syntegra_db.cli.arguments import (
    Json,
    LockRetryTimeout,
    LockTimeout,
    MigrationLockTimeout,
    Schema,
    complete_revision,
    require_revision,
)
from syntegra_db.cli.output import echo, print_json
from syntegra_db.cli.plan import print_plan
from syntegra_db.interruption import report_if_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import URL

    from syntegra_db.cli.results import MigrationResult
    from syntegra_db.migrations import MigrationPlan

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only print the revisions, their locks and the rows that are lost.")
]


def upgrade(  # noqa: PLR0913  one parameter per option
    revision: Annotated[
        str,
        typer.Argument(
            callback=require_revision, autocompletion=complete_revision, help="Target revision, such as 003 or +1."
        ),
    ] = "head",
    lock_timeout: LockTimeout = None,
    lock_retry_timeout: LockRetryTimeout = None,
    migration_lock_timeout: MigrationLockTimeout = None,
    schema: Schema = None,
    *,
    contract: Annotated[
        bool, typer.Option("--contract", help="Also apply revisions on which older services do not work.")
    ] = False,
    dry_run: DryRun = False,
    json_output: Json = False,
) -> None:
    """Upgrade the database, by default to the newest revision."""
    from syntegra_db import migrations

    _run_migration(
        partial(migrations.upgrade, schema=schema, contract=contract),
        partial(migrations.plan_migration, direction="upgrade", schema=schema, contract=contract) if dry_run else None,
        revision,
        json_output=json_output,
        lock_timeout=lock_timeout,
        lock_retry_timeout=lock_retry_timeout,
        migration_lock_timeout=migration_lock_timeout,
    )


def downgrade(  # noqa: PLR0913  one parameter per option
    revision: Annotated[
        str,
        typer.Argument(
            callback=require_revision,
            autocompletion=complete_revision,
            help="Target revision, such as 002, -1 or base.",
        ),
    ],
    lock_timeout: LockTimeout = None,
    lock_retry_timeout: LockRetryTimeout = None,
    migration_lock_timeout: MigrationLockTimeout = None,
    *,
    dry_run: DryRun = False,
    json_output: Json = False,
) -> None:
    """Downgrade the database to an older revision; the rows of the tables that it drops are deleted."""
    from syntegra_db import migrations

    _run_migration(
        migrations.downgrade,
        partial(migrations.plan_migration, direction="downgrade") if dry_run else None,
        revision,
        json_output=json_output,
        lock_timeout=lock_timeout,
        lock_retry_timeout=lock_retry_timeout,
        migration_lock_timeout=migration_lock_timeout,
    )


def _run_migration(
    migrate: Callable[..., str | None],
    plan: Callable[..., MigrationPlan] | None,
    revision: str,
    *,
    json_output: bool,
    **timeouts: float | None,
) -> None:
    """Migrate, or print the result of `plan` instead."""
    from syntegra_db.cli.progress import migration_progress
    from syntegra_db.connections import unpooled_engine
    from syntegra_db.migrations import load_migration_options
    from syntegra_db.revisions import describe_revision
    from syntegra_db.settings import database_url, describe_database

    url = database_url()
    options = load_migration_options(**timeouts)
    if plan is not None:
        print_plan(plan(unpooled_engine(url), revision=revision, options=options), json_output=json_output)
        return
    with migration_progress(), report_if_interrupted(lambda: "Nothing was changed.", unless_reported=True):
        reached = migrate(revision, url, options)
    if json_output:
        print_json(migration_result(url, reached))
    else:
        echo(f"The {describe_database(url)} is at {describe_revision(reached)}.")


def migration_result(url: URL, revision: str | None) -> MigrationResult:
    """Return the result of a migration to `revision`."""
    from syntegra_db.cli.results import MigrationResult
    from syntegra_db.revisions import all_revisions, position_of
    from syntegra_db.settings import describe_database

    known = all_revisions()
    return MigrationResult(describe_database(url), revision, known[-1], known[position_of(revision) :])
