"""Restore the rows of a backup: schema, rows, sequences and vector index in one transaction."""

from __future__ import annotations

import logging
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from sqlalchemy import BigInteger, column, func, select
from sqlalchemy.exc import DBAPIError

from syntegra_db.backup import _queries
from syntegra_db.backup._footer import MAX_LAST_ID, Backup, open_backup, verify_file
from syntegra_db.backup._load import Archive, TableLoader
from syntegra_db.backup._pg_restore import require_tables
from syntegra_db.backup._restore_schema import (
    CommittedUpgrade,
    adds_labels,
    plan_committed_upgrade,
    reject_downgrade,
    report_committed_upgrade,
    require_known_backup_revision,
)
from syntegra_db.backup._saved_columns import (
    RestoredColumns,
    find_saved_columns,
    load_saved_rows,
    restore_narrowed_columns,
    restore_replaced_columns,
)
from syntegra_db.backup._session import (
    RowProgress,
    begin_unlimited_transaction,
    lock_tables,
    nonempty_tables,
    reported_transaction,
    require_no_child_tables,
)
from syntegra_db.backup._vector_indexes import build_vector_indexes, drop_vector_indexes, require_no_rebuild
from syntegra_db.catalog import existing_tables, managed_tables, require_all_rows, require_usable_revision
from syntegra_db.client_programs import find_program_for_server
from syntegra_db.connections import connect
from syntegra_db.errors import RestoreFailed, TablesNotEmpty, server_message
from syntegra_db.interruption import report_if_interrupted
from syntegra_db.migrations import (
    MigrationOptions,
    log_data_loss,
    migration_lock,
    retry_in_savepoint,
    run_in_transaction,
    upgrade,
    verify_result,
)
from syntegra_db.recorded_steps import require_no_unfinished_revision
from syntegra_db.revisions import current_revision
from syntegra_db.search_path import table_clause, table_name
from syntegra_db.settings import describe_database
from syntegra_db.sql import execute_raw

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from sqlalchemy import Connection, Engine


logger = logging.getLogger(__name__)

UNCHANGED = "No row was restored or deleted."


class ExistingRows(Enum):
    """What a restore does if tables are not empty.

    REFUSE raises an error; REPLACE deletes the existing rows in the same transaction; KEEP loads only the empty tables.
    """

    REFUSE = "refuse"
    REPLACE = "replace"
    KEEP = "keep"


class RestoreResult(NamedTuple):
    """The restored backup, the tables that were loaded, and the tables that kept their rows.

    `columns` are those of the kept tables whose saved values were set in rows.
    """

    backup: Backup
    loaded: list[str]
    kept: list[str]
    columns: list[RestoredColumns]


class _RestoreJob(NamedTuple):
    """The arguments of a restore, for its steps."""

    archive: Archive
    existing_rows: ExistingRows
    replace_columns: Collection[tuple[str, str]]
    options: MigrationOptions

    @property
    def backup(self) -> Backup:
        """The backup that is restored."""
        return self.archive.backup


def restore(  # noqa: PLR0913  one argument for each option of the command
    path: Path,
    engine: Engine,
    existing_rows: ExistingRows = ExistingRows.REFUSE,
    *,
    replace_columns: Collection[tuple[str, str]] = (),
    options: MigrationOptions | None = None,
    report: Callable[[RowProgress], None] | None = None,
) -> RestoreResult:
    """Restore the rows of the backup in `path`, all or none.

    One transaction upgrades the schema to the revision of the backup if it is older, loads the tables, advances the
    sequences, builds the vector indexes on the loaded rows and analyzes the tables. If the upgrade adds labels to an
    ENUM type, it is committed first, because no row can use them before.

    With KEEP, tables that are not empty get the values of the columns that this upgrade brings back: the columns that
    a downgrade dropped, and the values that it changed because they did not fit; see `restore_narrowed_columns`. The
    rows are found by their id. Deleted rows are not created again, and new rows keep what the upgrade gave them.
    `replace_columns` are other columns, as (table, column), whose values such a table gets from the backup.

    Raises:
        InvalidBackup: the file is truncated, damaged, or not of this package.
        BackupRevisionMismatch: the revision of the backup is unknown, or older than the database's revision.
        TablesInOtherSchema: see `require_no_tables_elsewhere`.
        TablesNotEmpty: tables are not empty, and `existing_rows` is REFUSE.
        RestoreFailed: the server rejected a statement.
        LockTimeout: other sessions kept a table or the migration lock.
        CommitUnconfirmed: see `confirmed_transaction`.
        SchemaNotVerified, SchemaDrift: the rows are restored, but the schema could not be verified, or it differs from
            the declared one, and did not before.
        ClientProgramNotFound: no pg_restore that can read the file is installed.
        ConnectionFailed: no connection could be opened; one of its subclasses says why.
    """
    options = options or MigrationOptions()
    result: RestoreResult | None = None
    with (
        report_if_interrupted(
            lambda: UNCHANGED if result is None else f"The rows of {path} are restored.", unless_reported=True
        ),
        open_backup(path) as file,
    ):
        backup = verify_file(file, path)
        require_known_backup_revision(backup)
        program = find_program_for_server("pg_restore", backup.metadata.pg_dump)
        require_tables(program, file, backup.metadata)
        job = _RestoreJob(Archive(backup, file, program, report), existing_rows, replace_columns, options)
        _require_saved_tables(job)
        committed = _plan_committed_upgrade(engine, job)
        if committed is not None:
            with report_committed_upgrade(lambda: committed.hint):
                upgrade(committed.revision, engine, options, contract=True)
        with (
            report_committed_upgrade(lambda: committed.state if committed and result is None else ""),
            connect(engine) as connection,
            migration_lock(connection, options.migration_lock_timeout),
        ):
            try:
                _log_data_loss(connection, job)
                with reported_transaction(connection, UNCHANGED) as existing_drift:
                    restored = _restore(connection, job, committed)
            except (DBAPIError, psycopg.Error) as error:
                raise RestoreFailed(
                    f"The rows of {path} were not restored to the {describe_database(engine.url)}: "
                    f"{server_message(error)}. Nothing was changed. Correct the cause and run this again."
                ) from None
            result = restored
            verify_result(engine, backup.metadata.revision, f"The rows of {path} are restored", existing_drift)
    return result


def _plan_committed_upgrade(engine: Engine, job: _RestoreJob) -> CommittedUpgrade | None:
    """Return the upgrade that must be committed first because it adds ENUM labels, which rows can use only then."""
    with connect(engine) as connection:
        before = _restorable_revision(connection, job)
        if before == job.backup.metadata.revision or not adds_labels(before, job.backup.metadata.revision):
            return None
        if job.existing_rows is ExistingRows.REFUSE:
            _require_empty(connection, nonempty_tables(connection, _installed_tables(connection, job)))
    keeps_rows = job.existing_rows is ExistingRows.KEEP
    return plan_committed_upgrade(before, job.backup, job.replace_columns, keeps_rows=keeps_rows)


def _restorable_revision(connection: Connection, job: _RestoreJob) -> str | None:
    """Return the revision of the database; raise an error if the backup cannot be restored to it."""
    before = current_revision(connection)
    require_usable_revision(connection, before)
    require_no_unfinished_revision(connection)
    reject_downgrade(before, job.backup, connection)
    require_all_rows(connection, managed_tables(), RestoreFailed)
    return before


def _log_data_loss(connection: Connection, job: _RestoreJob) -> None:
    """Log what the upgrade to the revision of the backup drops; before its transaction, because counts can fail."""
    log_data_loss(connection, _restorable_revision(connection, job), job.backup.metadata.revision)
    connection.rollback()


def _require_saved_tables(job: _RestoreJob) -> None:
    for table, name in job.replace_columns:
        if table not in job.backup.metadata.tables:
            raise RestoreFailed(
                f"{job.backup.path} has no table {table}, so no values of {table}.{name}. Nothing was changed. "
                "`syntegra-db backups` lists the tables of each backup."
            )


def _restore(connection: Connection, job: _RestoreJob, committed: CommittedUpgrade | None) -> RestoreResult:
    """Restore in the open transaction, after the upgrade that is `committed` already, if any."""
    begin_unlimited_transaction(connection)
    connection.exec_driver_sql("SET LOCAL client_encoding = 'UTF8'")
    metadata = job.backup.metadata
    before = _restorable_revision(connection, job)
    kept = _prepare_tables(connection, job)
    if before != metadata.revision:
        logger.info("Upgrading the schema to revision %s", metadata.revision)
        retry_in_savepoint(
            connection, lambda: run_in_transaction(connection, "upgrade", metadata.revision), job.options
        )
    if committed is not None:
        before = committed.before
    to_load = [name for name in metadata.tables if name not in kept]
    saved = find_saved_columns(kept, before, metadata.revision, job.replace_columns)
    loader = TableLoader(connection, job.archive, [*to_load, *(columns.table for columns in saved)])
    for columns in saved:
        load_saved_rows(connection, loader, columns)
    lock_tables(connection, [columns.table for columns in saved], "SHARE ROW EXCLUSIVE", job.options)
    # Before the indexes are dropped, because it runs migrations, which may name them.
    restored = retry_in_savepoint(
        connection, lambda: restore_narrowed_columns(connection, saved, before, metadata.revision), job.options
    )
    replaced = {columns.table: columns.replaced for columns in saved}
    indexes = drop_vector_indexes(connection, job.options, {**dict.fromkeys(to_load), **replaced})
    for name in to_load:
        loader.load_table(name)
    restored += restore_replaced_columns(connection, saved)
    build_vector_indexes(connection, indexes)
    for name in to_load:
        _advance_sequence(connection, name, metadata.tables[name].last_id)
    for name in [*to_load, *(columns.table for columns in saved)]:
        execute_raw(connection, f"ANALYZE {table_name(connection, name)}")
    return RestoreResult(job.backup, to_load, kept, restored)


def _prepare_tables(connection: Connection, job: _RestoreJob) -> list[str]:
    """Lock the tables to load, empty them for REPLACE, and return the tables that keep their rows."""
    installed = _installed_tables(connection, job)
    # Tables that keep their rows are not locked, so services continue to use them.
    kept = nonempty_tables(connection, installed) if job.existing_rows is ExistingRows.KEEP else []
    to_load = [name for name in installed if name not in kept]
    lock_tables(connection, to_load, "ACCESS EXCLUSIVE", job.options)
    require_no_child_tables(connection, to_load, RestoreFailed, with_partitions=False)
    require_no_rebuild(connection, to_load)
    nonempty = nonempty_tables(connection, to_load)
    if job.existing_rows is ExistingRows.KEEP:
        return [*kept, *nonempty]
    if job.existing_rows is ExistingRows.REFUSE:
        _require_empty(connection, nonempty)
    if nonempty:
        execute_raw(connection, f"TRUNCATE {', '.join(table_name(connection, name) for name in installed)}")
    return []


def _installed_tables(connection: Connection, job: _RestoreJob) -> list[str]:
    existing = existing_tables(connection)
    return [name for name in job.backup.metadata.tables if name in existing]


def _require_empty(connection: Connection, nonempty: list[str]) -> None:
    if nonempty:
        raise TablesNotEmpty(
            f"Tables of the {describe_database(connection.engine.url)} are not empty: {', '.join(nonempty)}. Nothing "
            "was changed. Add --replace to delete the existing rows, or --keep to load only the empty tables."
        )


def _advance_sequence(connection: Connection, name: str, last_id: int | None) -> None:
    # A larger id than the limit was not taken from the sequence, and would exhaust it.
    row_id = column("id", BigInteger)
    rows = table_clause(connection, name)
    greatest_id = connection.scalar(select(func.max(row_id)).select_from(rows).where(row_id <= MAX_LAST_ID))
    target = max(greatest_id or 0, last_id or 0)
    connection.execute(_queries.ADVANCE_SEQUENCE, {"table": table_name(connection, name), "last_id": target})
