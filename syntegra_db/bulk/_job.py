"""One load: what is known of its _row_formats, how many were handed over, and what to say when it fails."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg.adapt import Transformer
from sqlalchemy import TwoPhaseTransaction

from syntegra_db.bulk import _dumpers, _row_formats, _server_errors
from syntegra_db.bulk._statements import copy_steps, resolve_target, upsert_steps
from syntegra_db.bulk.errors import BulkLoadError, RowRejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Connection, Table

    from syntegra_db.bulk._statements import Steps
    from syntegra_db.models import Base

ROWS_BETWEEN_REPORTS = 1000


class LoadJob:
    """The rows for one table on their way, whichever kind of session sends them."""

    def __init__(
        self,
        model: type[Base],
        columns: Sequence[str] | None,
        key: Sequence[str] | None,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self.model = model
        self.table = cast("Table", model.__table__)
        self.key = key
        self.row_count = 0
        # The row that could not be turned into bytes, and the error that came from the rows or the report, if any.
        self.failed_row: Sequence[Any] | None = None
        self.caller_error: Exception | None = None
        self.copy_target = self.table.name
        self._named = columns
        self._on_progress = on_progress
        self._shape: _row_formats.RowFormat

    def require_transaction(
        self, connection: Connection, driver: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]
    ) -> None:
        """Refuse what does not go with the temporary table.

        Raises:
            BulkError: an upsert, in autocommit or in a transaction that is prepared before it is committed.
        """
        if self.key is None:
            return
        if driver.autocommit:
            raise BulkLoadError(
                "An upsert is several statements in one transaction, and this connection is in AUTOCOMMIT."
            )
        if isinstance(connection.get_transaction(), TwoPhaseTransaction):
            raise BulkLoadError(
                "An upsert uses a temporary table, and PostgreSQL prepares no two-phase transaction that did."
            )

    def begin(self, first: Any, connection: Connection) -> Steps:
        """Learn from the first item what the columns are, and return the steps."""
        # What an engine's argument of that name sets.
        json_serializer = getattr(connection.dialect, "_json_serializer", None)
        formats = _dumpers.column_formats(self.model, json_serializer)
        self._shape = _row_formats.detect_row_format(first, self.table.name, formats, self._named)
        target = resolve_target(connection, self.table)
        if self.key is None:
            return copy_steps(target, self._shape.columns)
        keys = _row_formats.resolve_columns(self.key, self.table.name, formats)
        lacking = [column.attribute for column in keys if column not in self._shape.columns]
        if lacking:
            raise BulkLoadError(f"The rows for {self.table.name} lack {', '.join(lacking)} of the key.")
        return upsert_steps(target, self._shape.columns, keys)

    def register_dumpers(self, cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> None:
        """Let `cursor`, and nothing else of its connection, dump the values as their columns want them."""
        for column in self._shape.columns:
            cursor.adapters.register_dumper(None, column.dumper)
        self._context = Transformer(cursor)

    def column_oids(self) -> list[int]:
        """Return what `set_types` of the COPY is to be called with."""
        return [column.oid for column in self._shape.columns]

    def counted_rows(self, items: Iterable[Any]) -> Iterator[Sequence[Any]]:
        """Yield the _row_formats, counting them."""
        report = self._on_progress
        try:
            for row in chain.from_iterable(map(self._shape.rows_of, items)):
                self.row_count += 1
                if report is not None and not self.row_count % ROWS_BETWEEN_REPORTS:
                    report(self.row_count)
                yield row
        except _row_formats.RowMismatch as misfit:
            message = f"Row {self.row_count + 1} {misfit}{_server_errors.HINT}"
            raise RowRejected(message, row=self.row_count + 1) from None
        except Exception as error:
            self.caller_error = error
            raise

    def finish(self, count: int) -> int:
        """Report the last row, and return `count`."""
        if self._on_progress is not None:
            self._on_progress(self.row_count)
        return count

    def to_public_error(self, error: Exception, refused: psycopg.Error | None) -> Exception:
        """Return what to raise for `error`, or for an earlier row that the server had refused by then.

        An error of the caller's own, from the rows or the report, stays what it is.
        """
        if error is self.caller_error:
            return error
        if refused is not None:
            error = refused
        elif self.failed_row is not None and not isinstance(error, psycopg.OperationalError):
            return self._locate_invalid_value(self.failed_row)
        elif not isinstance(error, psycopg.Error):
            return error
        return _server_errors.translate_error(
            error, self.table.name, self.copy_target, self._shape.columns, self.key or ()
        )

    def _locate_invalid_value(self, row: Sequence[Any]) -> BulkLoadError:
        for column, value in zip(self._shape.columns, row, strict=True):
            try:
                if value is not None:
                    column.dumper(type(None), self._context).dump(value)
            except Exception:  # noqa: BLE001  of whichever kind, it is this value that cannot be sent
                return _server_errors.invalid_value_error(self.row_count, self.table.name, column, type(value).__name__)
        return RowRejected(f"Row {self.row_count}: it cannot be sent{_server_errors.HINT}", row=self.row_count)
