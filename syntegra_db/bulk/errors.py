"""What a bulk load can fail with."""

from __future__ import annotations

from syntegra_db.errors import SyntegraDBError


class BulkLoadError(SyntegraDBError):
    """Rows could not be loaded.

    Attributes:
        sqlstate: the server's code for it, such as `40P01` for a deadlock, if the server said it.
    """

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class RowRejected(BulkLoadError):
    """A row cannot be stored as it is; the message says why, and shows nothing of the row.

    Attributes:
        row: its number in the input, from 1. None when the server checks only after the last row, as it does foreign
            keys.
        column: the name of the column, if it is one column's fault.
        constraint: the name of the constraint that was broken, if one was.
        sqlstate: the server's code for it, if the server refused the row.
    """

    def __init__(
        self,
        message: str,
        *,
        row: int | None = None,
        column: str | None = None,
        constraint: str | None = None,
        sqlstate: str | None = None,
    ) -> None:
        super().__init__(message, sqlstate=sqlstate)
        self.row = row
        self.column = column
        self.constraint = constraint
