"""Taking a live database to another revision: one migrator, short waits, whole revisions."""

from __future__ import annotations

import logging
import random
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from alembic import command
from psycopg.errors import (
    DeadlockDetected,
    DependentObjectsStillExist,
    DuplicateObject,
    DuplicateTable,
    LockNotAvailable,
)
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError, ResourceClosedError

from syntegra_db.connections import connect
from syntegra_db.errors import ConnectionFailed, ExtensionUnavailable, LockTimeout, MigrationFailed, SchemaDrift
from syntegra_db.migrations import _lock
from syntegra_db.migrations._blockers import BlockerMonitor
from syntegra_db.revisions import VERSION_TABLE, current_revision, require_known_revision

if TYPE_CHECKING:
    from types import ModuleType

    from alembic.runtime.migration import MigrationContext, MigrationInfo
    from sqlalchemy import Connection, Engine

    from syntegra_db.migrations._options import MigrationOptions

logger = logging.getLogger(__name__)

INITIAL_BACKOFF_SECONDS = 0.25
MAX_BACKOFF_SECONDS = 5.0


def migrate(
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
        before, reached = _migrate_locked(context, connection, configure, schema, options)
    except DBAPIError as error:
        raise _to_migration_failed(connection, context, error) from error
    # Still under the lock: the next migrator may want another revision.
    _verify_result(connection.engine, before, reached)
    connection.close()
    context.config.attributes["reached"] = reached


def _migrate_locked(
    context: ModuleType,
    connection: Connection,
    configure: partial[None],
    schema: str,
    options: MigrationOptions,
) -> tuple[str | None, str | None]:
    """Return the revisions before and after."""
    _lock.acquire_migration_lock(connection, _lock.lock_key(VERSION_TABLE, schema), options.migration_lock_timeout)
    before = _revision(connection)
    require_known_revision(before)
    connection.execute(
        text("SELECT set_config('lock_timeout', :milliseconds, false)"),
        {"milliseconds": f"{max(1, round(options.lock_timeout * 1000))}ms"},
    )
    connection.commit()
    if _is_downgrade(context):
        _log_data_loss(context, connection, before)
    steps = _StepLog(before)
    _run_with_retries(context, connection, partial(configure, on_version_apply=steps), steps, options)
    return before, steps.reached


def _log_data_loss(context: ModuleType, connection: Connection, before: str | None) -> None:
    from syntegra_db.migrations._data_loss import describe_data_loss, tables_to_drop

    lost = tables_to_drop(before, _target(context))
    if lost:
        logger.warning("This drops %s", describe_data_loss(connection, lost))


def _verify_result(engine: Engine, before: str | None, reached: str | None) -> None:
    """Return if a new connection finds the revision that was reached, and the catalog as that revision has it."""
    try:
        with connect(engine) as fresh:
            found = current_revision(fresh)
            drift = _drifted_objects(fresh) if found == reached != before else []
    except (ConnectionFailed, LockTimeout, DBAPIError) as error:
        raise MigrationFailed(
            f"The database is at {_name(reached)}, but that could not be confirmed on a new connection: "
            f"{str(error).partition(chr(10))[0]} Run `syntegra-db verify`."
        ) from error
    if found != reached:
        raise MigrationFailed(
            f"The migration ended, but a new connection finds the database at {_name(found)} instead of "
            f"{_name(reached)}. Look at what else writes to {VERSION_TABLE}, then run this again."
        )
    if drift:
        raise SchemaDrift(
            f"The database is at {_name(found)}, but it does not hold what that revision should: "
            f"{', '.join(drift)}. `syntegra-db verify` says how to mend it."
        )


def _drifted_objects(connection: Connection) -> list[str]:
    from syntegra_db.catalog import verify

    return [finding.object for finding in verify(connection).findings]


def _is_downgrade(context: ModuleType) -> bool:
    config = context.config
    if config.cmd_opts is not None:
        return config.cmd_opts.cmd[0] is command.downgrade
    return bool(config.attributes.get("downgrade"))


def _run_with_retries(
    context: ModuleType,
    connection: Connection,
    configure: partial[None],
    steps: _StepLog,
    options: MigrationOptions,
) -> None:
    pid = connection.scalars(text("SELECT pg_backend_pid()")).one()
    revision = _revision(connection)
    deadline = time.monotonic() + options.lock_retry_timeout
    pause = INITIAL_BACKOFF_SECONDS
    while True:
        try:
            with BlockerMonitor(connection.engine, pid, options.lock_timeout / 2) as watch:
                configure()
                with context.begin_transaction():
                    context.run_migrations()
                steps.log_pending()
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable | DeadlockDetected):
                raise
        else:
            return
        connection.rollback()
        reached = _revision(connection)
        steps.sync_with(reached)
        if reached != revision:
            revision, deadline, pause = reached, time.monotonic() + options.lock_retry_timeout, INITIAL_BACKOFF_SECONDS
        if time.monotonic() + pause > deadline:
            raise LockTimeout(
                f"No lock after {options.lock_retry_timeout:g} s of trying: {watch}. The database is at "
                f"{_name(revision)}, and nothing else was changed. End that transaction, or allow more time with "
                "SYNTEGRA_LOCK_PATIENCE, and run this again."
            )
        jittered = pause * random.uniform(0.5, 1)  # noqa: S311  spreads attempts, guards nothing
        logger.info("Stepped aside and trying again in %.1f s; waited for %s", jittered, watch)
        time.sleep(jittered)
        pause = min(2 * pause, MAX_BACKOFF_SECONDS)


class _StepLog:
    """Remembers which revision was reached, and says so, with the seconds it took, once it is committed."""

    def __init__(self, before: str | None) -> None:
        self.reached = before
        self._began = time.monotonic()
        self._untold: str | None = None

    def __call__(self, ctx: MigrationContext, step: MigrationInfo, heads: set[str], run_args: dict[str, Any]) -> None:  # noqa: ARG002  Alembic's signature
        """Note a revision that is about to be committed; the one before it is by now."""
        self.log_pending()
        now = time.monotonic()
        what = "stamped" if step.is_stamp else "applied" if step.is_upgrade else "taken back"
        self._untold = f"{step.up_revision_id} {what} in {now - self._began:.2f} s"
        self._began = now
        self.reached = next(iter(heads), None)

    def log_pending(self) -> None:
        """Say what was noted last; it is committed."""
        if self._untold is not None:
            logger.info("%s", self._untold)
            self._untold = None

    def sync_with(self, revision: str | None) -> None:
        """After a failure, tell what was noted if the database is at it, else drop it."""
        if self.reached == revision:
            self.log_pending()
        self._untold = None
        self.reached = revision


def _to_migration_failed(connection: Connection, context: ModuleType, error: DBAPIError) -> MigrationFailed:
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
    where = _describe_state(connection)
    if isinstance(error.orig, DuplicateTable | DuplicateObject):
        hint = _adoption_hint(connection) or hint
    return kind(f"On the way to {target}: {reason}. {where}. {hint}")


def _adoption_hint(connection: Connection) -> str | None:
    """Return what to do where our tables stand without their revision."""
    from syntegra_db.catalog._drift import unversioned_objects

    names = ", ".join(unversioned_objects(connection))
    return f"Made by other means: {names}. Run `syntegra-db adopt`, which keeps every row." if names else None


def _describe_state(connection: Connection) -> str:
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
