"""Taking a live database to another revision: one migrator, short waits, whole revisions."""

from __future__ import annotations

import logging
import random
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from alembic import command
from psycopg.errors import DeadlockDetected, DependentObjectsStillExist, LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError, ResourceClosedError

from syntegra_db.connecting import connect
from syntegra_db.errors import CatalogDiffers, ExtensionUnavailable, LockNotObtained, MigrationFailed
from syntegra_db.migrations import lock
from syntegra_db.migrations.blockers import BlockerWatch
from syntegra_db.migrations.config import VERSION_TABLE
from syntegra_db.migrations.revision import current_revision, require_known

if TYPE_CHECKING:
    from types import ModuleType

    from alembic.runtime.migration import MigrationContext, MigrationInfo
    from sqlalchemy import Connection, Engine

    from syntegra_db.migrations.options import MigrationOptions

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0


def run(
    context: ModuleType,
    connection: Connection,
    configure: partial[None],
    schema: str,
    options: MigrationOptions,
) -> None:
    """Take the database to the revision that `context` asks for, and see on a new connection that it is there.

    `connection` holds the migrators' lock until it is closed here. Each revision is a transaction of its own;
    a lock timeout or a deadlock rolls it back whole and tries it again, other errors end the run.

    Raises:
        LockNotObtained: others kept a lock for longer than the options allow.
        MigrationFailed: a revision failed; the message says which, why, and where the database stands.
        CatalogDiffers: the revision is reached, and the catalog is not what it should be there.
        DatabaseAhead: the database is at a revision that this package does not know.
    """
    # A session of its own, which takes its lock and its settings along when it closes.
    connection.detach()
    try:
        before, reached = _move(context, connection, configure, schema, options)
        connection.close()
        context.config.attributes["reached"] = _confirm(connection.engine, before, reached)
    except DBAPIError as error:
        raise _failure(connection, context, error) from error


def _move(
    context: ModuleType,
    connection: Connection,
    configure: partial[None],
    schema: str,
    options: MigrationOptions,
) -> tuple[str | None, str | None]:
    """Return the revisions before and after."""
    lock.acquire(connection, lock.lock_key(VERSION_TABLE, schema), options.migrator_patience)
    before = _revision(connection)
    require_known(before)
    connection.execute(
        text("SELECT set_config('lock_timeout', :milliseconds, false)"),
        {"milliseconds": f"{max(1, round(options.lock_timeout * 1000))}ms"},
    )
    connection.commit()
    if before != _target(context):
        _announce_losses(context, connection, before)
    steps = _StepLog(before)
    _migrate(context, connection, partial(configure, on_version_apply=steps), options)
    return before, steps.reached


def _announce_losses(context: ModuleType, connection: Connection, before: str | None) -> None:
    from syntegra_db.migrations.losses import describe_losses, lost_tables

    lost = lost_tables(before, _target(context))
    if lost and not _only_stamps(context):
        logger.warning("This drops %s", describe_losses(connection, lost))


def _confirm(engine: Engine, before: str | None, reached: str | None) -> str | None:
    """Return the revision that a new connection finds, when it is the one reached and the catalog is as it should."""
    with connect(engine) as fresh:
        found = current_revision(fresh)
        if found != reached:
            raise MigrationFailed(
                f"The migration ended, but a new connection finds the database at {_name(found)} instead of "
                f"{_name(reached)}. Look at what else writes to {VERSION_TABLE}, then run this again."
            )
        if found == before:
            return found
        from syntegra_db.catalog import verify

        drift = verify(fresh)
    if drift:
        raise CatalogDiffers(
            f"The database is at {_name(found)}, but it does not hold what that revision should: "
            f"{', '.join(finding.object for finding in drift)}. `syntegra-db verify` says how to mend it."
        )
    return found


def _only_stamps(context: ModuleType) -> bool:
    command_line = context.config.cmd_opts
    return command_line is not None and command_line.cmd[0] is command.stamp


def _migrate(context: ModuleType, connection: Connection, configure: partial[None], options: MigrationOptions) -> None:
    pid = connection.scalars(text("SELECT pg_backend_pid()")).one()
    revision = _revision(connection)
    deadline = time.monotonic() + options.lock_patience
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            with BlockerWatch(connection.engine, pid, options.lock_timeout / 2) as watch:
                configure()
                with context.begin_transaction():
                    context.run_migrations()
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable | DeadlockDetected):
                raise
        else:
            return
        connection.rollback()
        reached = _revision(connection)
        if reached != revision:
            revision, deadline, pause = reached, time.monotonic() + options.lock_patience, FIRST_PAUSE_SECONDS
        if time.monotonic() + pause > deadline:
            raise LockNotObtained(
                f"No lock after {options.lock_patience:g} s of trying: {watch}. The database is at "
                f"{_name(revision)}, and nothing else was changed. End that transaction, or allow more time with "
                "SYNTEGRA_LOCK_PATIENCE, and run this again."
            )
        jittered = pause * random.uniform(0.5, 1)  # noqa: S311  spreads attempts, guards nothing
        logger.info("Stepped aside and trying again in %.1f s; waited for %s", jittered, watch)
        time.sleep(jittered)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


class _StepLog:
    """Says after each revision how long it took, the waiting included, and remembers which one was reached."""

    def __init__(self, before: str | None) -> None:
        self.reached = before
        self._began = time.monotonic()

    def __call__(self, ctx: MigrationContext, step: MigrationInfo, heads: set[str], run_args: dict[str, Any]) -> None:  # noqa: ARG002  Alembic's signature
        now = time.monotonic()
        self.reached = next(iter(heads), None)
        logger.info(
            "%s %s in %.2f s",
            step.up_revision_id,
            "applied" if step.is_upgrade else "taken back",
            now - self._began,
        )
        self._began = now


def _failure(connection: Connection, context: ModuleType, error: DBAPIError) -> MigrationFailed:
    """Return what to say of a run that the server ended."""
    diagnosis = getattr(error.orig, "diag", None)
    reason = getattr(diagnosis, "message_primary", None) or str(error.orig).strip()
    if isinstance(error.orig, DependentObjectsStillExist):
        # The server's hint, CASCADE, would drop what is not ours.
        hint = f"What is in the way belongs to others: {error.orig.diag.message_detail}. Let them take it away first."
    else:
        hint = getattr(diagnosis, "message_hint", None) or "Mend it and run this again."
    kind = ExtensionUnavailable if "the extension vector" in reason else MigrationFailed
    target = _name(_target(context))
    return kind(f"On the way to {target}: {reason}. {_where_it_stands(connection)}. {hint}")


def _where_it_stands(connection: Connection) -> str:
    try:
        connection.rollback()
        return f"The database is at {_name(_revision(connection))}, and nothing else was changed"
    except (DBAPIError, ResourceClosedError):
        return "The connection is lost, and the server rolls back what was not committed"


def _target(context: ModuleType) -> str | None:
    """Return the revision that the command names; Alembic makes a tuple of `heads`, and there is one head."""
    revision: str | tuple[str, ...] | None = context.get_revision_argument()
    return revision[0] if isinstance(revision, tuple) else revision


def _revision(connection: Connection) -> str | None:
    revision = current_revision(connection)
    connection.rollback()
    return revision


def _name(revision: str | None) -> str:
    return f"revision {revision}" if revision else "no revision"
