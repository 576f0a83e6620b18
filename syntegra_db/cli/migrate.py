"""`syntegra-db upgrade` and `downgrade`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from syntegra_db.cli.arguments import MAX_SECONDS, Schema, require_finite, require_revision
from syntegra_db.cli.output import echo

if TYPE_CHECKING:
    from collections.abc import Callable

LockTimeout = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        max=MAX_SECONDS,
        callback=require_finite,
        help="Seconds to wait for one lock before backing off.  [default: 0.5]",
    ),
]
LockRetryTimeout = Annotated[
    float | None,
    typer.Option(min=0, max=MAX_SECONDS, callback=require_finite, help="Seconds to retry one revision.  [default: 60]"),
]
MigrationLockTimeout = Annotated[
    float | None,
    typer.Option(
        min=0, max=MAX_SECONDS, callback=require_finite, help="Seconds to wait for another migration.  [default: 60]"
    ),
]


def upgrade(  # noqa: PLR0913  one parameter per option
    revision: Annotated[
        str, typer.Argument(callback=require_revision, help="Target revision, such as 003 or +1.")
    ] = "head",
    lock_timeout: LockTimeout = None,
    lock_retry_timeout: LockRetryTimeout = None,
    migration_lock_timeout: MigrationLockTimeout = None,
    schema: Schema = None,
    *,
    contract: Annotated[
        bool, typer.Option("--contract", help="Also apply revisions on which older services do not work.")
    ] = False,
) -> None:
    """Upgrade the database, by default to the newest revision."""
    from syntegra_db import migrations

    _run_migration(
        partial(migrations.upgrade, schema=schema, contract=contract),
        revision,
        lock_timeout=lock_timeout,
        lock_retry_timeout=lock_retry_timeout,
        migration_lock_timeout=migration_lock_timeout,
    )


def downgrade(
    revision: Annotated[
        str, typer.Argument(callback=require_revision, help="Target revision, such as 002, -1 or base.")
    ],
    lock_timeout: LockTimeout = None,
    lock_retry_timeout: LockRetryTimeout = None,
    migration_lock_timeout: MigrationLockTimeout = None,
) -> None:
    """Downgrade the database to an older revision; the rows of the tables that it drops are deleted."""
    from syntegra_db import migrations

    _run_migration(
        migrations.downgrade,
        revision,
        lock_timeout=lock_timeout,
        lock_retry_timeout=lock_retry_timeout,
        migration_lock_timeout=migration_lock_timeout,
    )


def _run_migration(migrate: Callable[..., str | None], revision: str, **timeouts: float | None) -> None:
    from syntegra_db.cli.progress import migration_progress
    from syntegra_db.migrations import load_migration_options
    from syntegra_db.revisions import describe_revision
    from syntegra_db.settings import database_url, describe_database

    url = database_url()
    options = load_migration_options(**timeouts)
    with migration_progress():
        reached = migrate(revision, url, options)
    echo(f"The {describe_database(url)} is at {describe_revision(reached)}.")
