"""The errors of sessions, searches and bulk loads, which services use: they have no exit status."""

from __future__ import annotations

from syntegra_db.errors._base import SyntegraDBError

# Tenancy.


class InvalidClient(SyntegraDBError, ValueError):
    """The value is not the id of a client: an integer that a bigint can store."""


class UnsupportedSession(SyntegraDBError):
    """The session cannot hold a client: it is of another class, in autocommit, or two-phase."""


class PoliciesBypassed(SyntegraDBError):
    """The policies that separate clients do not apply to the login of an engine; the message says why."""


class RowOfOtherClient(SyntegraDBError):
    """The server rejected a row because its `client_id` is not the client that is set in the transaction.

    Attributes:
        sqlstate: the server's error code, `42501`.
    """

    def __init__(self, message: str, *, sqlstate: str = "42501") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


# Searches and bulk loads.


class InvalidSearchArgument(SyntegraDBError, ValueError):
    """An argument of a search has the wrong type or is out of range."""


class BulkLoadError(SyntegraDBError):
    """The rows could not be loaded.

    Attributes:
        sqlstate: the server's error code, such as `40P01` for a deadlock, or None if the server gave none.
    """

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class BulkLockTimeout(BulkLoadError):
    """Another transaction held a lock that the load needs for longer than the lock timeout."""


class RowRejected(BulkLoadError):
    """A row cannot be stored; the message says why, and shows no value of the row.

    Attributes:
        row: its number in the input, from 1. None if the server checks only after the last row, as for foreign keys.
        column: the name of the column, if one column is the cause.
        constraint: the name of the violated constraint, if any.
        sqlstate: the server's error code, if the server rejected the row.
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


# Tests.


class UnsupportedInRollback(SyntegraDBError):
    """A test with the isolation rollback does something that one transaction cannot do; the message says what."""
