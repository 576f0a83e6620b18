"""Roll back to an older revision, with a verified backup of the rows and values that this deletes."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy.exc import DBAPIError

from syntegra_db import wording
from syntegra_db.backup._dump import create_backup, verify_backup
from syntegra_db.backup._session import begin_unlimited_transaction, count_rows, lock_tables, reported_transaction
from syntegra_db.catalog import existing_tables, managed_tables, require_all_rows, require_usable_revision
from syntegra_db.connections import connect
from syntegra_db.errors import (
    BackupFailed,
    CommitUnconfirmed,
    InvalidBackup,
    MigrationFailed,
    RevisionError,
    server_message,
)
from syntegra_db.interruption import report_if_interrupted
from syntegra_db.migrations import (
    MigrationOptions,
    describe_data_loss,
    find_data_loss,
    migration_lock,
    retry_in_savepoint,
    run_in_transaction,
    verify_result,
)
from syntegra_db.recorded_steps import require_no_unfinished_revision
from syntegra_db.revisions import (
    current_revision,
    describe_revision,
    position_of,
    resolve_revision,
)
from syntegra_db.settings import describe_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from syntegra_db.backup._footer import Backup
    from syntegra_db.backup._session import RowProgress
    from syntegra_db.catalog import DataLoss

logger = logging.getLogger(__name__)


class RollbackResult(NamedTuple):
    """The verified backup, the revision reached, and the command that restores the rows."""

    backup: Backup
    revision: str | None
    restore_command: str


def rollback(  # noqa: PLR0913  two callbacks
    target: str,
    engine: Engine,
    path: Path | None = None,
    *,
    options: MigrationOptions | None = None,
    report: Callable[[RowProgress], None] | None = None,
    on_commit: Callable[[RollbackResult], None] | None = None,
) -> RollbackResult:
    """Make a backup in `path`, verify it, then downgrade the database to `target`, or `base`.

    Writes to the tables that are dropped, or lose values of a column, are blocked from the snapshot to the commit, so
    the backup is complete; reads continue until the downgrade. Any error before the downgrade is committed leaves the
    database unchanged. As soon as it is committed, `on_commit` is called with the result, because the verification of
    the schema that follows can fail.

    Raises:
        TablesInOtherSchema: see `require_no_tables_elsewhere`.
        RevisionError: `target` is not older than the database's revision, or does not exist.
        BackupFailed, InvalidBackup: the backup could not be made or verified; the database is unchanged.
        MigrationFailed: the server rejected the downgrade; the database is unchanged, and the backup is kept.
        LockTimeout: other sessions kept a table or the migration lock.
        CommitUnconfirmed: see `confirmed_transaction`; the message names the backup.
        SchemaNotVerified, SchemaDrift: the revision is reached, but the schema could not be verified, or it differs
            from the declared one, and did not before.
        ClientProgramNotFound: no pg_dump or pg_restore is as new as the server.
        ConnectionFailed: no connection could be opened; one of its subclasses says why.
    """
    options = options or MigrationOptions()
    state = "Nothing was changed."
    with (
        report_if_interrupted(lambda: state, unless_reported=True),
        connect(engine) as connection,
        migration_lock(connection, options.migration_lock_timeout),
    ):
        before = current_revision(connection)
        revision = _resolve_older(target, before, connection)
        require_all_rows(connection, managed_tables(), BackupFailed)
        still = f"The database is still at {describe_revision(before)}."
        try:
            with reported_transaction(connection, still) as existing_drift:
                losing = _block_writes(connection, find_data_loss(before, revision), options)
                backup = create_backup(engine, path, options=options, report=report)
                _verify_against_tables(connection, backup, losing)
                retry_in_savepoint(
                    connection,
                    lambda: run_in_transaction(connection, "downgrade", revision or "base"),
                    options,
                    state=f"The database is still at revision {before}; the backup {backup.path} is kept.",
                )
        except CommitUnconfirmed as error:
            command = _restore_command(backup, revision)
            raise CommitUnconfirmed(f"{error} To restore the rows after `committed`: {command}") from error
        except DBAPIError as error:
            raise MigrationFailed(
                f"The {describe_database(engine.url)} was not rolled back: {server_message(error)}. It is still at "
                f"revision {before}. Correct the cause and run this again."
            ) from None
        reached = f"The database is back at {describe_revision(revision)}, and the rows are in {backup.path}"
        state = f"{reached}."
        result = RollbackResult(backup, revision, _restore_command(backup, revision))
        if on_commit is not None:
            on_commit(result)
        verify_result(engine, revision, reached, existing_drift)
    return result


def _restore_command(backup: Backup, revision: str | None) -> str:
    """Return the command that restores the rows after a rollback to `revision`."""
    return f"syntegra-db restore {shlex.quote(str(backup.path))}{' --keep' if revision else ''}"


def describe_rollback_loss(target: str, engine: Engine) -> str:
    """Return the tables, columns and values that a rollback deletes, with their rows; empty if there are none.

    Raises:
        RevisionError, BackupFailed: see `rollback`.
        UntrustedObject: see `declared_search_path`.
    """
    with connect(engine) as connection:
        before = current_revision(connection)
        revision = _resolve_older(target, before, connection)
        require_all_rows(connection, managed_tables(), BackupFailed)
        return describe_data_loss(connection, find_data_loss(before, revision))


def _resolve_older(target: str, before: str | None, connection: Connection) -> str | None:
    require_usable_revision(connection, before)
    require_no_unfinished_revision(connection)
    revision = resolve_revision(target, before)
    if position_of(revision) >= position_of(before):
        raise RevisionError(
            f"The database is at {describe_revision(before)}, and {target} is not older, so there is nothing to roll "
            "back. `syntegra-db status` shows the current revision."
        )
    return revision


def _block_writes(connection: Connection, losses: list[DataLoss], options: MigrationOptions) -> list[str]:
    """Block writes to the installed tables with `losses` until the transaction ends, and return them."""
    begin_unlimited_transaction(connection)
    existing = existing_tables(connection)
    installed = [name for name in dict.fromkeys(loss.table for loss in losses) if name in existing]
    lock_tables(connection, installed, "SHARE ROW EXCLUSIVE", options)
    return installed


def _verify_against_tables(connection: Connection, backup: Backup, tables: list[str]) -> None:
    """Raise `InvalidBackup` unless the backup is valid and has as many rows as each of `tables`."""
    logger.info("Verifying %s", backup.path)
    verify_backup(backup)
    for name, rows in count_rows(connection, tables).items():
        saved = backup.metadata.tables[name].rows
        if saved != rows:
            raise InvalidBackup(
                f"{backup.path} contains {wording.rows(saved)} of {name}, but the table has {rows:,}. Nothing was "
                "rolled back. Run this again."
            )
