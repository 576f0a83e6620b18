"""Taking a live database to another revision: one migrator, short waits, whole revisions."""

from __future__ import annotations

import logging
import random
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from syntegra_db.connecting import connect
from syntegra_db.errors import ExtensionUnavailable, LockNotObtained, MigrationFailed
from syntegra_db.migrations import lock
from syntegra_db.migrations.blockers import BlockerWatch
from syntegra_db.migrations.config import VERSION_TABLE
from syntegra_db.migrations.revision import current_revision, require_known

if TYPE_CHECKING:
    from types import ModuleType

    from alembic.runtime.migration import MigrationContext, MigrationInfo
    from sqlalchemy import Connection

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
        DatabaseAhead: the database is at a revision that this package does not know.
    """
    # A session of its own, which takes its lock and its settings along when it closes.
    connection.detach()
    lock.acquire(connection, lock.lock_key(VERSION_TABLE, schema), options.migrator_patience)
    before = _revision(connection)
    require_known(before)
    connection.execute(
        text("SELECT set_config('lock_timeout', :milliseconds, false)"),
        {"milliseconds": f"{max(1, round(options.lock_timeout * 1000))}ms"},
    )
    connection.commit()
    steps = _StepLog(before)
    _migrate(context, connection, partial(configure, on_version_apply=steps), options)
    connection.close()
    with connect(connection.engine) as fresh:
        found = current_revision(fresh)
    if found != steps.reached:
        raise MigrationFailed(
            f"The migration ended, but a new connection finds the database at {_name(found)} instead of "
            f"{_name(steps.reached)}. Look at what else writes to {VERSION_TABLE}, then run this again."
        )
    context.config.attributes["reached"] = found


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
                raise _failure(connection, context, error) from error
        except DBAPIError as error:
            raise _failure(connection, context, error) from error
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
    """Return what to say of a revision that failed."""
    diagnosis = getattr(error.orig, "diag", None)
    reason = getattr(diagnosis, "message_primary", None) or str(error.orig).strip()
    hint = getattr(diagnosis, "message_hint", None)
    if connection.invalidated or connection.closed:
        stands = "The connection was lost, and the server rolls back what was not committed"
    else:
        connection.rollback()
        stands = f"The database is at {_name(_revision(connection))}, and nothing else was changed"
    kind = ExtensionUnavailable if "the extension vector" in reason else MigrationFailed
    target = _name(context.get_revision_argument())
    return kind(f"On the way to {target}: {reason}. {stands}.{f' {hint}' if hint else ' Mend it and run this again.'}")


def _revision(connection: Connection) -> str | None:
    revision = current_revision(connection)
    connection.rollback()
    return revision


def _name(revision: str | None) -> str:
    return f"revision {revision}" if revision else "no revision"
