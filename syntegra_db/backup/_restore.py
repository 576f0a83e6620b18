"""Restore the rows of a backup: schema, rows, sequences and vector index in one transaction."""

from __future__ import annotations

import logging
import re
import sys
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import psycopg
from psycopg import sql
from sqlalchemy import BigInteger, column, func, select
from sqlalchemy.exc import DBAPIError

from syntegra_db import wording
from syntegra_db.backup import _queries
from syntegra_db.backup._footer import MAX_LAST_ID, Backup, open_backup, verify_file
from syntegra_db.backup._pg_restore import open_table_data, require_tables
from syntegra_db.backup._session import (
    RowProgress,
    begin_unlimited_transaction,
    lock_tables,
    nonempty_tables,
    raise_build_memory,
    reported_transaction,
    require_no_child_tables,
)
from syntegra_db.catalog import existing_tables, require_usable_revision
from syntegra_db.client_programs import find_program_for_server
from syntegra_db.connections import connect
from syntegra_db.errors import BackupRevisionMismatch, LockTimeout, RestoreFailed, TablesNotEmpty, server_message
from syntegra_db.migrations import (
    MigrationOptions,
    current_schema,
    find_lock_holder,
    lock_key,
    migration_lock,
    retry_in_savepoint,
    run_in_transaction,
    verify_result,
)
from syntegra_db.network import psycopg_connection
from syntegra_db.pgvector_support import EMBEDDING_DIMENSIONS, MIN_BUILD_MEMORY, VECTOR_INDEX, ivfflat_build_memory
from syntegra_db.recorded_steps import require_no_unfinished_revision
from syntegra_db.revisions import all_revisions, current_revision, head_revision
from syntegra_db.search_path import table_clause, table_name
from syntegra_db.settings import describe_database
from syntegra_db.sql import execute_raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from syntegra_db.client_programs import ClientProgram

logger = logging.getLogger(__name__)

UNCHANGED = "No row was restored or deleted."

LISTS = re.compile(r"lists\s*=\s*'?(\d+)")


class ExistingRows(Enum):
    """What a restore does if tables are not empty.

    REFUSE raises an error; REPLACE deletes the existing rows in the same transaction; KEEP loads only the empty tables.
    """

    REFUSE = "refuse"
    REPLACE = "replace"
    KEEP = "keep"


class RestoreResult(NamedTuple):
    """The restored backup, the tables that were loaded, and the tables that kept their rows."""

    backup: Backup
    loaded: list[str]
    kept: list[str]


class _RestoreJob(NamedTuple):
    """The arguments of a restore, for its steps."""

    backup: Backup
    file: BinaryIO
    program: ClientProgram
    existing_rows: ExistingRows
    options: MigrationOptions
    report: Callable[[RowProgress], None] | None


def restore(
    path: Path,
    engine: Engine,
    existing_rows: ExistingRows = ExistingRows.REFUSE,
    *,
    options: MigrationOptions | None = None,
    report: Callable[[RowProgress], None] | None = None,
) -> RestoreResult:
    """Restore the rows of the backup in `path`, all or none.

    One transaction upgrades the schema to the revision of the backup if it is older, loads the tables, advances the
    sequences, builds the vector indexes on the loaded rows and analyzes the tables.

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
    with open_backup(path) as file:
        backup = verify_file(file, path)
        _require_known_backup_revision(backup)
        program = find_program_for_server("pg_restore", backup.metadata.pg_dump)
        require_tables(program, file, backup.metadata)
        job = _RestoreJob(backup, file, program, existing_rows, options, report)
        with connect(engine) as connection, migration_lock(connection, options.migration_lock_timeout):
            try:
                with reported_transaction(connection, UNCHANGED) as existing_drift:
                    loaded, kept = _restore(connection, job)
            except (DBAPIError, psycopg.Error) as error:
                raise RestoreFailed(
                    f"The rows of {path} were not restored to the {describe_database(engine.url)}: "
                    f"{server_message(error)}. Nothing was changed. Correct the cause and run this again."
                ) from None
            verify_result(engine, backup.metadata.revision, f"The rows of {path} are restored", existing_drift)
    return RestoreResult(backup, loaded, kept)


def _require_known_backup_revision(backup: Backup) -> None:
    revision = backup.metadata.revision
    if revision not in all_revisions():
        raise BackupRevisionMismatch(
            f"{backup.path} is of revision {revision}, which this package does not know: its newest revision is "
            f"{head_revision()}. Nothing was changed. Install the version of syntegra-db that made the backup, or a "
            "newer one."
        )


def _restore(connection: Connection, job: _RestoreJob) -> tuple[list[str], list[str]]:
    """Restore in the open transaction, and return the tables that were loaded and those that kept their rows."""
    begin_unlimited_transaction(connection)
    connection.exec_driver_sql("SET LOCAL client_encoding = 'UTF8'")
    metadata = job.backup.metadata
    before = current_revision(connection)
    require_usable_revision(connection, before)
    require_no_unfinished_revision(connection)
    _reject_downgrade(before, job.backup, connection)
    kept = _prepare_tables(connection, job)
    if before != metadata.revision:
        logger.info("Upgrading the schema to revision %s", metadata.revision)
        retry_in_savepoint(
            connection, lambda: run_in_transaction(connection, "upgrade", metadata.revision), job.options
        )
    to_load = [name for name in metadata.tables if name not in kept]
    indexes = _drop_vector_indexes(connection, to_load)
    _copy_tables(connection, job, to_load)
    for name, definition in indexes.items():
        logger.info("Building %s on the restored rows", name)
        raise_build_memory(connection, _build_memory(definition))
        execute_raw(connection, definition)
    for name in to_load:
        _advance_sequence(connection, name, metadata.tables[name].last_id)
        execute_raw(connection, f"ANALYZE {table_name(connection, name)}")
    return to_load, kept


def _reject_downgrade(before: str | None, backup: Backup, connection: Connection) -> None:
    known, revision = all_revisions(), backup.metadata.revision
    if before is not None and known.index(before) > known.index(revision):
        raise BackupRevisionMismatch(
            f"{backup.path} is of revision {revision}, but the {describe_database(connection.engine.url)} is already "
            f"at {before}. Nothing was changed. Roll back first: syntegra-db rollback {revision}"
        )


def _prepare_tables(connection: Connection, job: _RestoreJob) -> list[str]:
    """Lock the tables to load, empty them for REPLACE, and return the tables that keep their rows."""
    existing = existing_tables(connection)
    installed = [name for name in job.backup.metadata.tables if name in existing]
    # Tables that keep their rows are not locked, so services continue to use them.
    kept = nonempty_tables(connection, installed) if job.existing_rows is ExistingRows.KEEP else []
    to_load = [name for name in installed if name not in kept]
    lock_tables(connection, to_load, "ACCESS EXCLUSIVE", job.options)
    require_no_child_tables(connection, to_load, RestoreFailed, with_partitions=False)
    _require_no_rebuild(connection, to_load)
    nonempty = nonempty_tables(connection, to_load)
    if job.existing_rows is ExistingRows.KEEP:
        return [*kept, *nonempty]
    if nonempty and job.existing_rows is ExistingRows.REFUSE:
        raise TablesNotEmpty(
            f"Tables of the {describe_database(connection.engine.url)} are not empty: {', '.join(nonempty)}. Nothing "
            "was changed. Add --replace to delete the existing rows, or --keep to load only the empty tables."
        )
    if nonempty:
        execute_raw(connection, f"TRUNCATE {', '.join(table_name(connection, name) for name in installed)}")
    return []


def _require_no_rebuild(connection: Connection, locked_tables: Iterable[str]) -> None:
    """Raise `LockTimeout` if a rebuild of the vector index runs, whose indexes the restore would drop.

    One that begins later waits for the lock on the table.
    """
    holder = find_lock_holder(connection, lock_key(VECTOR_INDEX, current_schema(connection)))
    if holder is not None and "text_summary" in locked_tables:
        raise LockTimeout(
            f"A rebuild of the vector index is running ({holder}); nothing was changed. Wait for it, or end it with "
            f"SELECT pg_terminate_backend({holder.pid}), and run this again."
        )


def _drop_vector_indexes(connection: Connection, tables: Iterable[str]) -> dict[str, str]:
    """Drop the vector indexes of `tables` and return their definitions: recall is higher if they are built on rows."""
    names = [table_name(connection, name) for name in tables]
    definitions = {row.name: row.definition for row in connection.execute(_queries.VECTOR_INDEXES, {"tables": names})}
    for name in definitions:
        execute_raw(connection, f"DROP INDEX {table_name(connection, name)}")
    return definitions


def _copy_tables(connection: Connection, job: _RestoreJob, tables: list[str]) -> None:
    expected = job.backup.metadata.tables
    total = sum(expected[name].rows for name in tables)
    rows = sent = 0
    cursor = psycopg_connection(connection).cursor()
    for name in tables:
        with open_table_data(job.program, job.file, name) as data:
            _require_columns(connection, name, data.columns)
            columns = sql.SQL(", ").join(map(sql.Identifier, data.columns))
            target = sql.Identifier(current_schema(connection), name)
            statement = sql.SQL("COPY {} ({}) FROM STDIN").format(target, columns)
            with _invalidated_if_interrupted(connection), cursor.copy(statement) as copy:
                for chunk in data.chunks:
                    copy.write(chunk)
                    rows += chunk.count(b"\n")
                    sent += len(chunk)
                    if job.report is not None:
                        job.report(RowProgress(rows, total, sent))
        if cursor.rowcount != expected[name].rows:
            raise RestoreFailed(
                f"{job.backup.path} contains {wording.rows(cursor.rowcount)} of {name} instead of "
                f"{expected[name].rows:,}. "
                "Nothing was changed. Use another backup."
            )
        logger.info("%s: %s rows", name, f"{cursor.rowcount:,}")


@contextmanager
def _invalidated_if_interrupted(connection: Connection) -> Iterator[None]:
    """Close the connection after an interruption: if COPY begins after its cancellation, no ROLLBACK can be sent."""
    try:
        yield
    except KeyboardInterrupt:
        connection.invalidate()
        raise


def _advance_sequence(connection: Connection, name: str, last_id: int | None) -> None:
    # A larger id than the limit was not taken from the sequence, and would exhaust it.
    row_id = column("id", BigInteger)
    rows = table_clause(connection, name)
    greatest_id = connection.scalar(select(func.max(row_id)).select_from(rows).where(row_id <= MAX_LAST_ID))
    target = max(greatest_id or 0, last_id or 0)
    connection.execute(_queries.ADVANCE_SEQUENCE, {"table": table_name(connection, name), "last_id": target})


def _require_columns(connection: Connection, name: str, columns: list[str]) -> None:
    installed = set(connection.scalars(_queries.COLUMNS, {"table": table_name(connection, name)}))
    if missing := [column for column in columns if column not in installed]:
        raise RestoreFailed(
            f"The backup has columns that table {name} of this database does not have: {', '.join(missing)}. Nothing "
            "was changed. Add them with the types that they had, and run this again; `syntegra-db verify` prints the "
            "statement for a declared column."
        )


def _build_memory(definition: str) -> int:
    """Return the bytes of `maintenance_work_mem` that building the vector index needs, for any number of rows."""
    lists = int(match[1]) if (match := LISTS.search(definition)) else 0
    needed = ivfflat_build_memory(lists, sys.maxsize, EMBEDDING_DIMENSIONS, is_half="halfvec" in definition)
    return max(MIN_BUILD_MEMORY, needed)
