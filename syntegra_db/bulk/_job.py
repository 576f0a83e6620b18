"""The state of one load: its columns, how many rows were sent, and the error to raise if it fails."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg.adapt import Transformer

from syntegra_db.bulk import _server_errors
from syntegra_db.bulk._dumpers import column_formats
from syntegra_db.bulk._row_formats import RowFormat, RowMismatch, detect_row_format, resolve_columns
from syntegra_db.bulk._stage import LocatedError, require_transaction
from syntegra_db.bulk._statements import copy_steps, upsert_steps
from syntegra_db.errors import BulkLoadError, RowRejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Connection, Table

    from syntegra_db.bulk._stage import Steps
    from syntegra_db.models import Base

ROWS_BETWEEN_REPORTS = 1000


class LoadJob:
    """A load of rows into one table, for both kinds of session."""

    def __init__(
        self,
        model: type[Base],
        columns: Sequence[str] | None,
        key: Sequence[str] | None,
        on_progress: Callable[[int], None] | None,
        lock_timeout: float = 0,
    ) -> None:
        self.model = model
        self.table = cast("Table", model.__table__)
        self.key = key
        self.row_count = 0
        # The row that psycopg could not dump, the error that the server reported when COPY was aborted for it, and the
        # error that the caller's rows or on_progress raised, or that interrupted them, if any.
        self.failed_row: Sequence[Any] | None = None
        self.server_error: psycopg.Error | None = None
        self.caller_error: BaseException | None = None
        self.copy_target = self.table.name
        self.rows_before_copy = 0
        self._column_names = columns
        self._on_progress = on_progress
        self._lock_timeout = lock_timeout
        self._format: RowFormat

    def require_transaction(self, connection: Connection) -> None:
        """Raise `BulkLoadError` for an upsert in autocommit or in a two-phase transaction."""
        if self.key is not None:
            require_transaction(connection, "An upsert")

    def begin(self, first: Any, connection: Connection) -> Steps:
        """Detect the columns from the first item, and return the steps of the load."""
        # The engine's argument `json_serializer`.
        json_serializer = getattr(connection.dialect, "_json_serializer", None)
        formats = column_formats(self.model, json_serializer)
        self._format = detect_row_format(first, self.table.name, formats, self._column_names)
        columns = self._format.columns
        if self.key is None:
            return copy_steps(connection, self.table, columns)
        keys = resolve_columns(self.key, self.table.name, formats)
        missing = [column.attribute for column in keys if column not in columns]
        if missing:
            raise BulkLoadError(f"The rows for {self.table.name} do not have {', '.join(missing)}, part of the key.")
        return upsert_steps(connection, self.table, columns, keys, self._lock_timeout)

    def register_dumpers(self, *cursors: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> None:
        """Let `cursors`, and nothing else on their connection, dump each value in the format of its column."""
        for cursor in cursors:
            for column in self._format.columns:
                cursor.adapters.register_dumper(None, column.dumper)
            self._context = Transformer(cursor)

    def begin_copy(self, table: str, rows_before: int = 0) -> None:
        """Remember that a COPY into `table` begins after `rows_before` rows of the input."""
        self.copy_target, self.rows_before_copy = table, rows_before

    def column_oids(self) -> list[int]:
        """Return the argument for `set_types` of the COPY."""
        return [column.oid for column in self._format.columns]

    def counted_rows(self, items: Iterable[Any]) -> Iterator[Sequence[Any]]:
        """Yield the rows of `items`, count them and report progress."""
        report = self._on_progress
        try:
            for row in chain.from_iterable(map(self._format.rows_of, items)):
                self.row_count += 1
                if report is not None and not self.row_count % ROWS_BETWEEN_REPORTS:
                    report(self.row_count)
                yield row
        except RowMismatch as mismatch:
            number = self.row_count + 1
            raise RowRejected(f"Row {number} {mismatch}{_server_errors.HINT}", row=number) from None
        except Exception as error:
            self.caller_error = error
            raise

    def finish(self, written: int) -> int:
        """Report the last row, and return `written`."""
        if self._on_progress is not None:
            self._on_progress(self.row_count)
        return written

    def to_public_error(self, error: Exception) -> BaseException:
        """Return the error to raise for `error`, and forget the errors that the job keeps.

        An error that the caller's rows or `on_progress` raised is returned unchanged. An error of the server belongs to
        an earlier row than the one that could not be dumped, so it has priority.
        """
        caller_error, server_error = self.caller_error, self.server_error
        self.caller_error = self.server_error = None
        if caller_error is not None:
            return caller_error
        if server_error is None and self.failed_row is not None and not isinstance(error, psycopg.OperationalError):
            return self._locate_invalid_value(self.failed_row)
        located = error if isinstance(error, LocatedError) else None
        reported = server_error or (located.error if located else error)
        if not isinstance(reported, psycopg.Error):
            return error
        input_rows = _server_errors.InputRows(
            self.table.name,
            self.copy_target,
            self._format.columns,
            self.key or (),
            self.rows_before_copy,
            located.row if located else None,
        )
        return _server_errors.translate_error(reported, input_rows)

    def _locate_invalid_value(self, row: Sequence[Any]) -> BulkLoadError:
        for column, value in zip(self._format.columns, row, strict=True):
            try:
                if value is not None:
                    column.dumper(type(None), self._context).dump(value)
            except Exception as error:  # noqa: BLE001  any error means that this value cannot be dumped
                return _server_errors.invalid_value_error(self.row_count, self.table.name, column, value, error)
        return RowRejected(f"Row {self.row_count}: it cannot be sent{_server_errors.HINT}", row=self.row_count)
