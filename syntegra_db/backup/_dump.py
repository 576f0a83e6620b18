"""Make a backup: pg_dump writes one snapshot of the database while services continue to write."""

from __future__ import annotations

import logging
import os
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from sqlalchemy.exc import DBAPIError

from syntegra_db import wording
from syntegra_db.backup import _queries
from syntegra_db.backup._files import atomic_file, default_path
from syntegra_db.backup._footer import (
    MAX_LAST_ID,
    Backup,
    BackupMetadata,
    TableSummary,
    open_backup,
    parse_footer,
    verify_file,
    write_footer,
)
from syntegra_db.backup._pg_restore import count_archived_rows, require_tables
from syntegra_db.backup._session import (
    RowProgress,
    begin_unlimited_transaction,
    count_rows,
    find_partitions,
    lock_tables,
    require_no_child_tables,
    server_version,
    tables_at_revision,
)
from syntegra_db.catalog import existing_tables, later_schemas_with_tables, require_all_rows, require_usable_revision
from syntegra_db.client_programs import ClientProgramFailed, find_program_for_server
from syntegra_db.connections import connect
from syntegra_db.errors import BackupFailed, InvalidBackup, server_message
from syntegra_db.migrations import MigrationOptions, current_revision, current_schema
from syntegra_db.network import keep_transaction_alive, psycopg_connection
from syntegra_db.recorded_steps import read_unfinished_revision
from syntegra_db.revisions import all_revisions
from syntegra_db.search_path import table_name
from syntegra_db.settings import describe_database
from syntegra_db.sql import literal, quote

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

    from syntegra_db.client_programs import ClientProgram

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.25


class ExportedSnapshot(NamedTuple):
    """A snapshot that `program`, a pg_dump, can read as long as the transaction that exported it is open."""

    program: ClientProgram
    name: str
    metadata: BackupMetadata


def create_backup(
    engine: Engine,
    path: Path | None = None,
    *,
    options: MigrationOptions | None = None,
    report: Callable[[RowProgress], None] | None = None,
) -> Backup:
    """Write the rows of the package's tables, in one snapshot and with their revision, to a new file.

    Services continue to write; a migration that would drop one of the tables waits. Without `path`, the file is
    `backups/DATABASE-REVISION-TIME.dump`. `report` is called about four times a second.

    Raises:
        BackupFailed: the database has no revision, pg_dump failed, or the file cannot be written; no file was left.
        InvalidBackup: pg_restore cannot read the file; no file was left.
        ClientProgramNotFound: no pg_dump or pg_restore is as new as the server.
        TablesInOtherSchema: see `require_no_tables_elsewhere`.
        RevisionError, DatabaseAhead: see `current_revision` and `require_known_revision`.
        LockTimeout: a migration held a lock on one of the tables.
        ConnectionFailed: no connection could be opened; one of its subclasses says why.
    """
    options = options or MigrationOptions()
    read_only = engine.execution_options(postgresql_readonly=True)
    with connect(read_only, "REPEATABLE READ") as connection:
        program = find_program_for_server("pg_dump", server_version(connection), for_url=engine.url)
        try:
            snapshot = _export_snapshot(connection, program, options)
        except DBAPIError as error:
            raise BackupFailed(
                f"The {describe_database(engine.url)} cannot be backed up: {server_message(error)}. It is unchanged."
            ) from None
        metadata = snapshot.metadata
        path = path or default_path(metadata.database, metadata.revision, datetime.fromisoformat(metadata.made_at))
        reader = find_program_for_server("pg_restore", program.version)
        with atomic_file(path) as file, keep_transaction_alive(connection):
            _dump_tables(connection, snapshot, file, options, report)
            write_footer(file, metadata)
            require_tables(reader, file, metadata)
            return parse_footer(file, path)


def verify_backup(backup: Backup) -> None:
    """Raise `InvalidBackup` unless the checksum matches and the archive contains the rows that the footer states.

    Raises:
        InvalidBackup: it does not.
        ClientProgramNotFound: no pg_restore that can read it is installed.
    """
    program = find_program_for_server("pg_restore", backup.metadata.pg_dump)
    with open_backup(backup.path) as file:
        verify_file(file, backup.path)
        archived = count_archived_rows(program, file, backup.metadata)
    for name, table in backup.metadata.tables.items():
        if archived[name] != table.rows:
            raise InvalidBackup(
                f"{backup.path} contains {wording.rows(archived[name])} of {name}, but the table had {table.rows:,}. "
                "Nothing was changed. `syntegra-db verify` reports what is unusual about the table."
            )


def _export_snapshot(connection: Connection, program: ClientProgram, options: MigrationOptions) -> ExportedSnapshot:
    """Export a snapshot in a transaction that stays open and keeps the tables from being dropped."""
    while True:
        revision = current_revision(connection)
        require_usable_revision(connection, revision)
        if revision is None:
            raise BackupFailed(
                f"The {describe_database(connection.engine.url)} is at no revision, so there is nothing to back up. "
                "Correct the name of the database, or migrate it: syntegra-db upgrade."
            )
        if (unfinished := read_unfinished_revision(connection)) is not None:
            logger.warning("A restore of this backup needs the columns of today, because %s", unfinished)
        declared, installed = tables_at_revision(revision), existing_tables(connection)
        tables = [name for name in declared if name in installed]
        require_all_rows(connection, tables, BackupFailed)
        connection.rollback()
        begin_unlimited_transaction(connection)
        # Before the snapshot, because a table that is locked after it may have been emptied in between.
        lock_tables(connection, tables, "ACCESS SHARE", options)
        # The steps of an unfinished revision may have partitioned a table.
        revisions = {revision, *({unfinished.revision} & set(all_revisions()) if unfinished else ())}
        partitions = find_partitions(connection, revisions, tables, BackupFailed)
        plain = [name for name in tables if name not in partitions]
        require_no_child_tables(connection, plain, BackupFailed, with_partitions=True)
        row = connection.execute(_queries.EXPORT_SNAPSHOT).mappings().one()
        if current_revision(connection) == revision:
            break
        connection.rollback()
    if missing := [name for name in declared if name not in tables]:
        logger.warning("Not in the database, so not in the backup: %s", ", ".join(missing))
    if later := later_schemas_with_tables(connection):
        logger.warning("The tables in schema %s are not in the backup", " and ".join(map(quote, later)))
    metadata = BackupMetadata(
        database=row["database"],
        schema=current_schema(connection),
        revision=revision,
        made_at=row["taken_at"].astimezone(UTC).isoformat(timespec="seconds"),
        server_version=row["server_version"],
        pg_dump=program.version,
        tables={
            name: TableSummary(rows, _last_id(connection, name), partitions.get(name))
            for name, rows in count_rows(connection, tables).items()
        },
    )
    return ExportedSnapshot(program, row["snapshot"], metadata)


def _last_id(connection: Connection, table: str) -> int | None:
    qualified = table_name(connection, table)
    last_id: int | None = connection.scalar(_queries.LAST_ID, {"table": qualified})
    if last_id is not None and not 1 <= last_id <= MAX_LAST_ID:
        greatest = f"SELECT greatest(max(id), 1) FROM {qualified} WHERE id <= {MAX_LAST_ID}"  # noqa: S608  printed
        fix = f"SELECT setval(pg_get_serial_sequence({literal(qualified)}, 'id'), ({greatest}));"
        raise BackupFailed(
            f"The id sequence of {table} is at {last_id}, which a restore rejects: it accepts 1 to {MAX_LAST_ID}. The "
            f"database is unchanged. Set the sequence to the greatest id and run this again: {fix}"
        )
    return last_id


def run_pg_dump(
    program: ClientProgram, url: URL, file: BinaryIO, *arguments: str, use_connection: Callable[[], object]
) -> None:
    """Let pg_dump write an archive of the database at `url` to `file`.

    `use_connection` is called about four times a second. It uses a connection to the same server, because pg_dump
    itself does not notice a silent network; an error ends pg_dump.

    Raises:
        BackupFailed: pg_dump failed.
    """
    command = ("--format=custom", "--no-sync", *arguments, f"--dbname={program.conninfo(url)}")
    try:
        with program.running(*command, url=url, stdout=file) as process:
            while process.poll() is None:
                use_connection()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(REPORT_SECONDS)
    except ClientProgramFailed as error:
        raise BackupFailed(
            f"pg_dump could not back up the {describe_database(url)}: {error}. The database is unchanged, and no file "
            "was left."
        ) from None


def _dump_tables(
    connection: Connection,
    snapshot: ExportedSnapshot,
    file: BinaryIO,
    options: MigrationOptions,
    report: Callable[[RowProgress], None] | None,
) -> None:
    metadata = snapshot.metadata
    application = f"syntegra_db backup {psycopg_connection(connection).info.backend_pid}"
    url = connection.engine.url.update_query_dict({"application_name": application})
    arguments = [
        "--data-only",
        # Compression takes most of the time; level 6, the default, takes five times as long and saves 10 %.
        "--compress=1",
        "--encoding=UTF8",
        f"--snapshot={snapshot.name}",
        # A session waiting for ACCESS EXCLUSIVE queues behind our lock, and pg_dump would queue behind it.
        f"--lock-wait-timeout={max(1, round(options.lock_retry_timeout * 1000))}",
        # So that pg_restore alone loads the rows into whatever partitions there are.
        "--load-via-partition-root",
        *(
            f"--table={_pg_dump_pattern(metadata.schema, name)}"
            for table in metadata.tables
            for name in metadata.archived_tables(table)
        ),
    ]
    counter = _DumpedRowCounter(connection, application, metadata)

    def read_progress() -> None:
        rows = counter.read()
        if report is not None:
            report(RowProgress(rows, metadata.rows, os.fstat(file.fileno()).st_size))

    run_pg_dump(snapshot.program, url, file, *arguments, use_connection=read_progress)


class _DumpedRowCounter:
    """The number of rows that the session of pg_dump has sent, according to the server."""

    def __init__(self, connection: Connection, application: str, metadata: BackupMetadata) -> None:
        self._connection = connection
        self._application = application
        self._metadata = metadata
        self._rows: dict[str, int] = {}

    def read(self) -> int:
        self._connection.execute(_queries.CLEAR_STATS_SNAPSHOT)
        dumping = self._connection.execute(_queries.DUMPED_ROWS, {"application": self._application})
        running: dict[str, int] = {row.relname: row.tuples_processed for row in dumping}
        # Of a partition, the number of rows is not known.
        for name in self._rows.keys() - running.keys() & self._metadata.tables.keys():
            self._rows[name] = self._metadata.tables[name].rows
        self._rows.update(running)
        return sum(self._rows.values())


def _pg_dump_pattern(*names: str) -> str:
    """Return a qualified name as a pattern that pg_dump matches literally."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)
