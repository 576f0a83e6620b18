"""Making a backup: one moment of the database, dumped by pg_dump while services go on writing."""

from __future__ import annotations

import logging
import subprocess
from contextlib import contextmanager, suppress
from datetime import UTC
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, NamedTuple

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from syntegra_db.backup._files import atomic_file, default_path
from syntegra_db.backup._footer import (
    Backup,
    BackupMetadata,
    TableSummary,
    read_metadata,
    verify_checksum,
    write_footer,
)
from syntegra_db.backup._pg_restore import count_archived_rows, find_pg_restore, first_error, require_tables
from syntegra_db.backup._session import (
    RowProgress,
    begin_unlimited_transaction,
    count_rows,
    existing_tables,
    lock_tables,
    psycopg_connection,
    server_version,
    tables_at_revision,
)
from syntegra_db.client_programs import env_with_c_locale, env_with_password, find_program_for_server
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import BackupFailed, InvalidBackup, server_message
from syntegra_db.migrations._options import MigrationOptions
from syntegra_db.revisions import current_revision, require_known_revision
from syntegra_db.settings import describe_database
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

    from syntegra_db.client_programs import ClientProgram

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.25
EXPORT_SNAPSHOT = text("""
    SELECT current_database() AS database, current_schema() AS schema, now() AS moment,
           current_setting('server_version') AS server_version, pg_export_snapshot() AS snapshot
""")
LAST_ID = text("SELECT pg_sequence_last_value(CAST(pg_get_serial_sequence(:table, 'id') AS regclass))")
# A transaction sees the statistics of its first look until it forgets them.
CLEAR_STATS_SNAPSHOT = text("SELECT pg_stat_clear_snapshot()")
ROWS_DUMPED = text("""
    SELECT relname, tuples_processed
    FROM pg_stat_progress_copy JOIN pg_stat_activity USING (pid) JOIN pg_class ON pg_class.oid = relid
    WHERE application_name = :application
""")


class ExportedSnapshot(NamedTuple):
    """A snapshot that `program`, a pg_dump, can look at too while its transaction is open, and what it shows."""

    program: ClientProgram
    snapshot: str
    contents: BackupMetadata
    path: Path


def create_backup(
    url: URL,
    path: Path | None = None,
    *,
    options: MigrationOptions | None = None,
    report: Callable[[RowProgress], None] | None = None,
) -> Backup:
    """Save the rows of the package's tables at `url`, at one moment and with their revision, in a new file.

    Writers go on; a migration that would drop one of the tables waits. Without a `path`, the file goes to the
    folder `backups`, named by database, revision and moment. `report` is called about four times a second.

    Raises:
        BackupFailed: there is nothing to save, or no file could be made of it; there is none then.
        ProgramMissing: there is no pg_dump that is as new as the server.
        RevisionError, DatabaseAhead: see `current_revision` and `require_known_revision`.
        LockNotObtained: a migration kept one of the tables locked.
        ConnectionFailed: there is no connection; one of its subclasses says why.
    """
    options = options or MigrationOptions()
    engine = unpooled_engine(url, "syntegra_db backup")
    frozen = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with connect(frozen) as connection:
        program = find_program_for_server("pg_dump", server_version(connection), for_url=url)
        try:
            moment = _export_snapshot(connection, program, path, options)
        except DBAPIError as error:
            raise BackupFailed(
                f"No backup of the {describe_database(url)}: {server_message(error)}. Nothing was changed."
            ) from None
        reader = find_pg_restore(moment.contents)
        with atomic_file(moment.path) as file:
            target = Path(file.name)
            _dump(connection, moment, target, options, report)
            write_footer(file, moment.contents)
            file.flush()
            require_tables(reader, target, moment.contents)
    return read_metadata(moment.path)


def verify_backup(backup: Backup) -> None:
    """Return if every byte of the backup is as it was made, and pg_restore reads from it as many rows as it says.

    Raises:
        BackupUnusable: it is not so.
        ProgramMissing: there is no pg_restore that could read it.
    """
    verify_checksum(backup.path)
    archived = count_archived_rows(find_pg_restore(backup.contents), backup)
    for name, table in backup.contents.tables.items():
        if archived[name] != table.rows:
            raise InvalidBackup(
                f"{backup.path} has {archived[name]:,} rows of {name}, and the table had {table.rows:,}. Nothing was "
                "changed; `syntegra-db verify` says what is unusual about the table."
            )


def _export_snapshot(
    connection: Connection, program: ClientProgram, path: Path | None, options: MigrationOptions
) -> ExportedSnapshot:
    """Return a moment of the database; the transaction that holds it stays open, and the tables stay there."""
    while True:
        revision = current_revision(connection)
        require_known_revision(revision)
        if revision is None:
            raise BackupFailed(
                f"The {describe_database(connection.engine.url)} is at no revision, so that there is nothing to save. "
                f"Correct the name of the database, or migrate it: syntegra-db upgrade."
            )
        expected = tables_at_revision(revision)
        tables = existing_tables(connection, expected)
        connection.rollback()
        begin_unlimited_transaction(connection)
        # Before the snapshot: a table that is locked after it could have been emptied in between.
        lock_tables(connection, tables, "ACCESS SHARE", options)
        row = connection.execute(EXPORT_SNAPSHOT).mappings().one()
        if current_revision(connection) == revision:
            break
        connection.rollback()
    if missing := [name for name in expected if name not in tables]:
        logger.warning("Not in the database, and so not in the backup: %s", ", ".join(missing))
    contents = BackupMetadata(
        database=row["database"],
        schema=row["schema"],
        revision=revision,
        made_at=row["moment"].astimezone(UTC).isoformat(timespec="seconds"),
        server_version=row["server_version"],
        pg_dump=program.version,
        tables=_summarize_tables(connection, tables),
    )
    return ExportedSnapshot(
        program, row["snapshot"], contents, path or default_path(row["database"], revision, row["moment"])
    )


def _summarize_tables(connection: Connection, tables: list[str]) -> dict[str, TableSummary]:
    counts = count_rows(connection, tables)
    return {
        name: TableSummary(rows, connection.scalar(LAST_ID, {"table": quote(name)})) for name, rows in counts.items()
    }


def _dump(
    connection: Connection,
    moment: ExportedSnapshot,
    target: Path,
    options: MigrationOptions,
    report: Callable[[RowProgress], None] | None,
) -> None:
    """Let pg_dump write the archive to `target`."""
    application = f"syntegra_db backup {psycopg_connection(connection).info.backend_pid}"
    url = connection.engine.url.update_query_dict({"application_name": application})
    command = [
        *moment.program.command,
        "--format=custom",
        "--data-only",
        # The slowest step by far; level 6, the default, takes five times as long for a tenth of the size.
        "--compress=1",
        "--no-sync",
        "--encoding=UTF8",
        f"--snapshot={moment.snapshot}",
        # Somebody who waits to lock a table for himself waits for us, and pg_dump would wait behind him.
        f"--lock-wait-timeout={max(1, round(options.lock_retry_timeout * 1000))}",
        *(f"--table={_pg_dump_pattern(moment.contents.schema, name)}" for name in moment.contents.tables),
        f"--dbname={moment.program.conninfo(url)}",
    ]
    counter = _DumpedRowCounter(connection, application, moment.contents)
    with target.open("wb") as archive, TemporaryFile() as complaints:
        with _killed_on_error(command, url, archive, complaints) as process:
            while process.poll() is None:
                if report is not None:
                    report(RowProgress(counter.read(), moment.contents.rows, target.stat().st_size))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(REPORT_SECONDS)
        if process.returncode:
            complaints.seek(0)
            said = first_error(complaints.read().decode(errors="replace"))
            raise BackupFailed(
                f"pg_dump made no backup of the {describe_database(connection.engine.url)} in {moment.path}: {said}. "
                f"The database is untouched, and nothing is left of the file."
            )


@contextmanager
def _killed_on_error(
    command: list[str], url: URL, archive: IO[bytes], complaints: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command`, and end it when the block is left before it has ended."""
    with subprocess.Popen(  # noqa: S603  pg_dump, found by its name
        command,
        stdin=subprocess.DEVNULL,
        stdout=archive,
        stderr=complaints,
        env=env_with_password(env_with_c_locale(), url),
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


class _DumpedRowCounter:
    """How many rows the session of pg_dump has sent, as the server counts them."""

    def __init__(self, connection: Connection, application: str, contents: BackupMetadata) -> None:
        self._connection = connection
        self._application = application
        self._contents = contents
        self._seen: dict[str, int] = {}

    def read(self) -> int:
        self._connection.execute(CLEAR_STATS_SNAPSHOT)
        dumping = self._connection.execute(ROWS_DUMPED, {"application": self._application})
        running: dict[str, int] = {row.relname: row.tuples_processed for row in dumping}
        for name in self._seen.keys() - running.keys():
            self._seen[name] = self._contents.tables[name].rows
        self._seen.update(running)
        return sum(self._seen.values())


def _pg_dump_pattern(*names: str) -> str:
    """Return the name of a table as pg_dump takes it literally."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)
