"""Putting the rows of a backup back: schema, rows, sequences and vector index in one transaction."""

from __future__ import annotations

import logging
import re
import sys
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from syntegra_db.backup import _session
from syntegra_db.backup._footer import Backup, verify_checksum
from syntegra_db.backup._pg_restore import find_pg_restore, open_table_data, require_tables
from syntegra_db.catalog import require_no_drift
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import BackupRevisionMismatch, RestoreFailed, TablesNotEmpty, server_message
from syntegra_db.migrations import run_in_transaction
from syntegra_db.migrations._lock import migration_lock
from syntegra_db.migrations._options import MigrationOptions
from syntegra_db.migrations._retry import retry_in_savepoint
from syntegra_db.models import EMBEDDING_DIMENSIONS
from syntegra_db.pgvector_support import MIN_BUILD_MEMORY, ivfflat_build_memory
from syntegra_db.revisions import all_revisions, current_revision, head_revision, require_known_revision
from syntegra_db.settings import describe_database
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

    from syntegra_db.client_programs import ClientProgram

logger = logging.getLogger(__name__)

VECTOR_INDEXES = text("""
    SELECT relname AS name, pg_get_indexdef(pg_class.oid) AS definition
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
    WHERE amname IN ('ivfflat', 'hnsw') AND indrelid = ANY (CAST(:tables AS regclass[]))
""")
# Never backwards, since it is not undone when the transaction is: an id that was given out is not given out again.
ADVANCE_SEQUENCE = """
    SELECT setval(sequence, wanted) FROM (
      SELECT sequence, greatest((SELECT max(id) FROM {table}), CAST(:last_id AS bigint)) AS wanted
      FROM CAST(pg_get_serial_sequence(:table, 'id') AS regclass) AS sequence
    ) AS found
    WHERE wanted > coalesce(pg_sequence_last_value(sequence), 0)
"""
COLUMNS = text("""
    SELECT attname FROM pg_attribute WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped
""")
LISTS = re.compile(r"lists\s*=\s*'?(\d+)")
RAISE_MEMORY = text("""
    SELECT set_config('maintenance_work_mem', concat(:bytes / 1024, 'kB'), true)
    WHERE pg_size_bytes(current_setting('maintenance_work_mem')) < :bytes
""")


class ExistingRows(Enum):
    """What is to become of tables that hold rows already.

    REFUSE restores nothing then; REPLACE removes the rows in the same transaction; KEEP leaves such tables as they
    are, and fills only the others.
    """

    REFUSE = "refuse"
    REPLACE = "replace"
    KEEP = "keep"


class RestoreResult(NamedTuple):
    """What a restore did: the file's contents, the tables that it filled, and those that it left with their rows."""

    backup: Backup
    filled: list[str]
    kept: list[str]


class _RestoreJob(NamedTuple):
    """What a restore was asked for, as its steps need it."""

    backup: Backup
    program: ClientProgram
    occupied: ExistingRows
    options: MigrationOptions
    report: Callable[[_session.RowProgress], None] | None


def restore(
    path: Path,
    url: URL,
    occupied: ExistingRows = ExistingRows.REFUSE,
    *,
    options: MigrationOptions | None = None,
    report: Callable[[_session.RowProgress], None] | None = None,
) -> RestoreResult:
    """Put the rows of the backup in `path` into the database at `url`, all or none.

    One transaction upgrades the schema to the file's revision if need be, fills the tables, continues the sequences,
    builds the vector indexes on the data and analyses; whatever ends it leaves the database as it was.

    Raises:
        BackupUnusable: the file is cut short, damaged, or not of this package.
        BackupDoesNotFit: its revision is unknown to this package, or the database is past it.
        TablesHoldRows: there are rows, and `occupied` refuses them.
        RestoreFailed: the server refused something.
        LockNotObtained: others kept a table, or the migration lock.
        CatalogDiffers: the rows are restored, and the schema is not what it should be.
        ProgramMissing: there is no pg_restore that can read the file.
        ConnectionFailed: there is no connection; one of its subclasses says why.
    """
    backup = verify_checksum(path)
    _require_known(backup)
    program = find_pg_restore(backup.contents)
    require_tables(program, path, backup.contents)
    work = _RestoreJob(backup, program, occupied, options or MigrationOptions(), report)
    engine = unpooled_engine(url, "syntegra_db restore")
    with connect(engine) as connection, migration_lock(connection, work.options.migration_lock_timeout):
        try:
            with connection.begin():
                filled, kept = _restore(connection, work)
        except (DBAPIError, psycopg.Error) as error:
            raise RestoreFailed(
                f"The rows of {path} were not restored to the {describe_database(url)}: {server_message(error)}. The "
                f"database is as it was; mend the cause and run this again."
            ) from None
    with connect(engine) as fresh:
        require_no_drift(fresh, "The rows are restored")
    return RestoreResult(backup, filled, kept)


def _require_known(backup: Backup) -> None:
    revision = backup.contents.revision
    if revision not in all_revisions():
        raise BackupRevisionMismatch(
            f"{backup.path} is of revision {revision}, which this package does not know: its newest is "
            f"{head_revision()}. Nothing was changed; install the syntegra-db that made it, or a newer one."
        )


def _restore(connection: Connection, work: _RestoreJob) -> tuple[list[str], list[str]]:
    """Return the tables filled and those kept, in the transaction that `connection` is in."""
    _session.begin_unlimited_transaction(connection)
    connection.exec_driver_sql("SET LOCAL client_encoding = 'UTF8'")
    contents = work.backup.contents
    before = current_revision(connection)
    require_known_revision(before)
    _refuse_downgrade(before, work.backup, connection)
    kept = _prepare_tables(connection, work)
    if before != contents.revision:
        logger.info("Upgrading the schema to revision %s", contents.revision)
        retry_in_savepoint(
            connection, lambda: run_in_transaction(connection, "upgrade", contents.revision), work.options
        )
    filled = [name for name in contents.tables if name not in kept]
    indexes = _drop_vector_indexes(connection, filled)
    _copy_tables(connection, work, filled)
    for name, definition in indexes.items():
        logger.info("Building %s on the data", name)
        connection.execute(RAISE_MEMORY, {"bytes": _build_memory(definition)})
        connection.exec_driver_sql(definition)
    for name in filled:
        table = quote(name)
        parameters = {"table": table, "last_id": contents.tables[name].last_id}
        connection.execute(text(ADVANCE_SEQUENCE.format(table=table)), parameters)
        connection.exec_driver_sql(f"ANALYZE {table}")
    return filled, kept


def _refuse_downgrade(before: str | None, backup: Backup, connection: Connection) -> None:
    known, revision = all_revisions(), backup.contents.revision
    if before is not None and known.index(before) > known.index(revision):
        raise BackupRevisionMismatch(
            f"{backup.path} is of revision {revision}, and the {describe_database(connection.engine.url)} is already "
            f"at {before}. Nothing was changed; go back first: syntegra-db rollback {revision}"
        )


def _prepare_tables(connection: Connection, work: _RestoreJob) -> list[str]:
    """Lock the tables to fill, empty them if that was asked for, and return those that stay as they are."""
    there = _session.existing_tables(connection, work.backup.contents.tables)
    # Those to keep are not locked, so that their services go on.
    kept = _session.nonempty_tables(connection, there) if work.occupied is ExistingRows.KEEP else []
    to_fill = [name for name in there if name not in kept]
    _session.lock_tables(connection, to_fill, "ACCESS EXCLUSIVE", work.options)
    occupied = _session.nonempty_tables(connection, to_fill)
    if work.occupied is ExistingRows.KEEP:
        return [*kept, *occupied]
    if occupied and work.occupied is ExistingRows.REFUSE:
        raise TablesNotEmpty(
            f"{', '.join(occupied)} of the {describe_database(connection.engine.url)} hold rows, and nothing was "
            f"changed. Add --replace to put the backup's rows in place of theirs, or --keep to fill only the tables "
            "that are empty."
        )
    if occupied:
        names = ", ".join(quote(name) for name in there)
        connection.exec_driver_sql(f"TRUNCATE {names}")
    return []


def _drop_vector_indexes(connection: Connection, tables: Iterable[str]) -> dict[str, str]:
    """Drop the vector indexes of `tables`, and return their definitions: built on the data, they find more."""
    names = [quote(name) for name in tables]
    definitions = {row.name: row.definition for row in connection.execute(VECTOR_INDEXES, {"tables": names})}
    for name in definitions:
        connection.exec_driver_sql(f"DROP INDEX {quote(name)}")
    return definitions


def _copy_tables(connection: Connection, work: _RestoreJob, tables: list[str]) -> None:
    expected = work.backup.contents.tables
    total = sum(expected[name].rows for name in tables)
    rows = sent = 0
    cursor = _session.psycopg_connection(connection).cursor()
    for name in tables:
        with open_table_data(work.program, work.backup.path, name) as data:
            _require_columns(connection, name, data.columns)
            columns = sql.SQL(", ").join(map(sql.Identifier, data.columns))
            statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(name), columns)
            with cursor.copy(statement) as copy:
                for chunk in data.chunks:
                    copy.write(chunk)
                    rows += chunk.count(b"\n")
                    sent += len(chunk)
                    if work.report is not None:
                        work.report(_session.RowProgress(rows, total, sent))
        if cursor.rowcount != expected[name].rows:
            raise RestoreFailed(
                f"{work.backup.path} gave {cursor.rowcount:,} rows for {name} instead of {expected[name].rows:,}. The "
                "database is as it was."
            )
        logger.info("%s: %s rows", name, f"{cursor.rowcount:,}")


def _require_columns(connection: Connection, table: str, columns: list[str]) -> None:
    there = set(connection.scalars(COLUMNS, {"table": quote(table)}))
    if missing := [column for column in columns if column not in there]:
        raise RestoreFailed(
            f"The backup has columns of {table} that no revision makes: {', '.join(missing)}. The database is as it "
            f"was. Upgrade it to the backup's revision, add them with ALTER TABLE {table} ADD COLUMN …, and run this "
            "again."
        )


def _build_memory(definition: str) -> int:
    """Return the bytes of `maintenance_work_mem` that building the vector index needs, for any number of rows."""
    lists = int(match[1]) if (match := LISTS.search(definition)) else 0
    needed = ivfflat_build_memory(lists, sys.maxsize, EMBEDDING_DIMENSIONS, is_half="halfvec" in definition)
    return max(MIN_BUILD_MEMORY, needed)
