"""Load tables of a backup's archive with COPY, in chunks, with the progress over all of them."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from psycopg import sql

from syntegra_db import wording
from syntegra_db.backup import _queries
from syntegra_db.backup._pg_restore import open_table_data
from syntegra_db.backup._session import RowProgress
from syntegra_db.errors import RestoreFailed
from syntegra_db.migrations import current_schema
from syntegra_db.network import psycopg_connection
from syntegra_db.search_path import table_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

    from syntegra_db.backup._footer import Backup
    from syntegra_db.backup._pg_restore import TableData
    from syntegra_db.client_programs import ClientProgram

logger = logging.getLogger(__name__)


class Archive(NamedTuple):
    """A verified backup, its open file, the pg_restore that reads it, and the callback for the progress."""

    backup: Backup
    file: BinaryIO
    program: ClientProgram
    report: Callable[[RowProgress], None] | None


class TableLoader:
    """Copies the rows of `tables`, one after another."""

    def __init__(self, connection: Connection, archive: Archive, tables: Sequence[str]) -> None:
        self._connection = connection
        self._archive = archive
        self._total = sum(archive.backup.metadata.tables[name].rows for name in tables)
        self._rows = self._sent = 0

    def load_table(self, name: str) -> None:
        """Load the installed table `name`."""
        schema = current_schema(self._connection)

        def require_columns(columns: list[str]) -> sql.Identifier:
            installed = column_types(self._connection, name)
            if missing := [column for column in columns if column not in installed]:
                raise missing_columns(name, missing)
            return sql.Identifier(schema, name)

        self.load(name, require_columns)
        logger.info("%s: %s rows", name, f"{self._archive.backup.metadata.tables[name].rows:,}")

    def load(self, name: str, prepare_target: Callable[[list[str]], sql.Identifier]) -> None:
        """Load the rows of the table `name` into the one that `prepare_target` returns for the archive's columns.

        Raises:
            RestoreFailed: the archive has another number of rows than its footer states.
        """
        metadata = self._archive.backup.metadata
        expected, loaded = metadata.tables[name].rows, 0
        target = None
        for part in metadata.archived_tables(name):
            with open_table_data(self._archive.program, self._archive.file, part) as data:
                target = target or prepare_target(data.columns)
                loaded += self._copy(data, target)
        if loaded != expected:
            raise RestoreFailed(
                f"{self._archive.backup.path} contains {wording.rows(loaded)} of {name} instead of "
                f"{expected:,}. Nothing was changed. Use another backup."
            )

    def _copy(self, data: TableData, target: sql.Identifier) -> int:
        """Copy `data` into `target`, which routes the rows of a partitioned table, and return their number."""
        cursor = psycopg_connection(self._connection).cursor()
        columns = sql.SQL(", ").join(map(sql.Identifier, data.columns))
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(target, columns)
        with invalidated_if_interrupted(self._connection), cursor.copy(statement) as copy:
            for chunk in data.chunks:
                copy.write(chunk)
                self._rows += chunk.count(b"\n")
                self._sent += len(chunk)
                if self._archive.report is not None:
                    self._archive.report(RowProgress(self._rows, self._total, self._sent))
        return cursor.rowcount


def column_types(connection: Connection, table: str) -> dict[str, str]:
    """Return the type of each installed column of `table`, with its schema."""
    return {
        row.attname: row.type for row in connection.execute(_queries.COLUMNS, {"table": table_name(connection, table)})
    }


def missing_columns(table: str, missing: Sequence[str]) -> RestoreFailed:
    """Return the error about columns of the backup that `table` does not have."""
    return RestoreFailed(
        f"The backup has columns that table {table} of this database does not have: {', '.join(missing)}. Nothing was "
        "changed. Add them with the types that they had, and run this again; `syntegra-db verify` prints the statement "
        "for a declared column."
    )


@contextmanager
def invalidated_if_interrupted(connection: Connection) -> Iterator[None]:
    """Close the connection after an interruption: if COPY begins after its cancellation, no ROLLBACK can be sent."""
    try:
        yield
    except KeyboardInterrupt:
        connection.invalidate()
        raise
