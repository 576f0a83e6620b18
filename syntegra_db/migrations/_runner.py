"""Take a live database to another revision: one migration at a time, short lock waits, one transaction per revision."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from syntegra_db.connections import connect
from syntegra_db.errors import SyntegraDBError
from syntegra_db.interruption import report_if_interrupted
from syntegra_db.migrations._commit import connection_was_lost, transaction_id, was_committed
from syntegra_db.migrations._data_loss import log_data_loss
from syntegra_db.migrations._failures import describe_bugs, to_migration_failed
from syntegra_db.migrations._lock import migration_lock
from syntegra_db.migrations._options import limit_migration, load_migration_options
from syntegra_db.migrations._phases import log_contraction, record_compatibility
from syntegra_db.migrations._privileges import require_may_migrate
from syntegra_db.migrations._retry import retry_on_lock_error
from syntegra_db.migrations._target import named_revision, read_route
from syntegra_db.migrations._verification import read_existing_drift, verify_result
from syntegra_db.migrations.online import migrations_function, run_online
from syntegra_db.recorded_steps import read_unfinished_revision
from syntegra_db.revisions import (
    all_revisions,
    current_revision,
    describe_revision,
    has_version_table,
    read_versions,
)
from syntegra_db.search_path import declared_search_path

if TYPE_CHECKING:
    from types import ModuleType

    from alembic.runtime.migration import MigrationContext, MigrationInfo
    from sqlalchemy import Connection, Engine

    from syntegra_db.migrations._config import MigrationRequest
    from syntegra_db.migrations._options import MigrationOptions
    from syntegra_db.recorded_steps import UnfinishedRevision

logger = logging.getLogger(__name__)


def migrate(context: ModuleType, connection: Connection, configure: partial[None], request: MigrationRequest) -> None:
    """Take the database to the revision that `context` names, and verify it on a new connection.

    `connection` holds the migration lock and is closed at the end. Each revision is one transaction: a lock timeout or
    a deadlock rolls it back and it is retried, any other error ends the run. `request.reached` is set.

    Raises:
        TablesInOtherSchema: see `require_no_tables_elsewhere`.
        LockTimeout: other sessions held a lock for longer than the options allow.
        UntrustedObject: see `declared_search_path` and `require_trusted_version_table`.
        MigrationFailed: a revision failed; the message says which, why, and the database's current revision.
        CommitUnconfirmed: the connection was lost during COMMIT, and it is unknown whether it was committed.
        SchemaNotVerified, SchemaDrift: see `verify_result`.
        DatabaseAhead: the database is at a revision that this package does not know.
    """
    options = request.options or load_migration_options()
    with (
        report_if_interrupted(lambda: _describe_interrupted_state(connection.engine)),
        migration_lock(connection, options.migration_lock_timeout),
        declared_search_path(connection),
    ):
        is_purge = context._proxy.context_opts.get("purge", False)  # noqa: SLF001  before `configure`, no other way
        before = _revision(connection, is_purge=is_purge)
        limit_migration(connection, options)
        named = named_revision(context)
        route = read_route(connection, named, before, request.direction, contract=request.contract)
        target = route.target
        if target != before or route.unfinished:
            require_may_migrate(connection, target, _describe_state(before, route.unfinished))
            connection.rollback()
        if route.contraction is not None:
            log_contraction(route.contraction)
        if request.direction is not None:
            log_data_loss(connection, route.start, target)
        steps = _StepLog(connection, before, is_purge=is_purge)
        function = run_online(migrations_function(context), connection, options, target)
        configure = partial(configure, on_version_apply=(record_compatibility, steps), fn=function)
        try:
            # What `stamp --purge` deletes may be no revision that the schema could be compared with.
            existing_drift = [] if is_purge and before is None else read_existing_drift(connection)
            with describe_bugs(lambda: _state_after_rollback(connection, steps)):
                _run_with_retries(context, connection, configure, steps, options)
        except DBAPIError as error:
            if connection_was_lost(error):
                connection.invalidate()
                steps.confirm()
                state = _describe_interrupted_state(connection.engine)
            else:
                state = _state_after_rollback(connection, steps)
            if steps.committed == before or steps.committed != target:
                raise to_migration_failed(connection, named, error, state) from error
        # Still under the lock: the next migration may take the database to another revision.
        state = f"The database is at {describe_revision(steps.reached)}"
        verify_result(connection.engine, steps.reached, state, existing_drift if steps.reached != before else None)
    request.reached = steps.reached


def _run_with_retries(
    context: ModuleType,
    connection: Connection,
    configure: partial[None],
    steps: _StepLog,
    options: MigrationOptions,
) -> None:
    def attempt() -> None:
        # Alembic would take an open transaction for its caller's.
        connection.rollback()
        # Otherwise the purge of the version table would be committed before the stamp.
        configure(transaction_per_migration=not steps.is_purge)
        steps.begin()
        with context.begin_transaction():
            # Alembic reads the version table without a check.
            has_version_table(connection)
            context.run_migrations()
        steps.log_pending()

    def end_attempt() -> bool:
        before = steps.committed, steps.unfinished
        _state_after_rollback(connection, steps)
        return (steps.committed, steps.unfinished) != before

    retry_on_lock_error(
        connection,
        attempt,
        options=options,
        end_attempt=end_attempt,
        describe_state=lambda: _describe_state(steps.committed, steps.unfinished),
    )


class _StepLog:
    """Follow which revision was reached, and log each one, with its seconds, once it is committed."""

    def __init__(self, connection: Connection, before: str | None, *, is_purge: bool) -> None:
        self._connection = connection
        self.is_purge = is_purge
        self.reached = self.committed = before
        self.unfinished: UnfinishedRevision | None = None
        self._started = time.monotonic()
        self._pending: str | None = None
        self._transaction_id: str | None = None
        self._is_committing = False
        event.listen(connection, "commit", lambda _: self._note_commit(is_committing=True))
        event.listen(connection, "rollback", lambda _: self._note_commit(is_committing=False))
        event.listen(connection, "begin", self._note_begin)

    def begin(self) -> None:
        """Note that an attempt begins, whose purge removes the revision."""
        if self.is_purge:
            self.reached = None

    def _note_commit(self, *, is_committing: bool) -> None:
        self._is_committing = is_committing

    def _note_begin(self, _: Connection) -> None:
        # COMMIT was answered, so a connection that is lost from now on leaves open only what follows.
        if self._is_committing:
            self.log_pending()
            self._is_committing = False

    def __call__(self, ctx: MigrationContext, step: MigrationInfo, heads: set[str], run_args: dict[str, Any]) -> None:  # noqa: ARG002  Alembic's signature
        """Note a revision that is about to be committed; the one before it is committed by now."""
        self.log_pending()
        now = time.monotonic()
        action = "stamped" if step.is_stamp else "applied" if step.is_upgrade else "reverted"
        self._pending = f"{step.up_revision_id} {action} in {now - self._started:.2f} s"
        self._started = now
        self.reached = next(iter(heads), None)
        self._transaction_id = transaction_id(self._connection)

    def log_pending(self) -> None:
        """Log the last noted revision, which is committed."""
        if self._pending is not None:
            logger.info("%s", self._pending)
            self._pending = None
        self.committed = self.reached

    def sync_with(self, revision: str | None) -> None:
        """After a failure, log the last noted revision if the database is at it; otherwise forget it."""
        if self.reached == revision:
            self.log_pending()
        self._pending = None
        self.reached = self.committed = revision

    def confirm(self) -> None:
        """After a lost connection, find out whether the last noted revision was committed."""
        if self._pending is not None:
            committed = was_committed(self._connection.engine, self._transaction_id)
            self.sync_with(self.reached if committed else self.committed)


def _state_after_rollback(connection: Connection, steps: _StepLog) -> str:
    """Roll the open transaction back, and return the sentence that says what is committed."""
    connection.rollback()
    steps.sync_with(_revision(connection, is_purge=steps.is_purge))
    steps.unfinished = read_unfinished_revision(connection)
    connection.rollback()
    return _describe_state(steps.committed, steps.unfinished)


def _describe_state(revision: str | None, unfinished: UnfinishedRevision | None) -> str:
    rest = "and nothing else was changed" if unfinished is None else f"and {unfinished}"
    return f"The database is at {describe_revision(revision)}, {rest}."


def _describe_interrupted_state(engine: Engine) -> str:
    """Return what was changed, read on a new connection, because an interruption closes the other one."""
    try:
        with connect(engine) as fresh:
            return _describe_state(current_revision(fresh), read_unfinished_revision(fresh))
    except (SyntegraDBError, DBAPIError):
        return "The server rolls back what was not committed; `syntegra-db status` shows the revision."


def _revision(connection: Connection, *, is_purge: bool = False) -> str | None:
    """Return the current revision; for `stamp --purge`, None if the version table holds several or an unknown one."""
    if is_purge:
        versions = read_versions(connection) if has_version_table(connection) else []
        revision = versions[0] if len(versions) == 1 and versions[0] in all_revisions() else None
    else:
        revision = current_revision(connection)
    connection.rollback()
    return revision
