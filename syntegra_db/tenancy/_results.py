"""The results of a session that are not read to their end: those of one client are not for another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakSet

from psycopg import AsyncServerCursor, ServerCursor
from sqlalchemy import CursorResult
from sqlalchemy.exc import ResourceClosedError

if TYPE_CHECKING:
    from sqlalchemy import Result


def _reject(*_: object) -> NoReturn:
    raise ResourceClosedError("This result object is closed.")


# An iterator in use goes on to fetch from the cursor of its result, which SQLAlchemy replaces by None.
_CLOSED_CURSOR: Any = SimpleNamespace(fetchone=_reject, fetchmany=_reject, fetchall=_reject, close=lambda: None)


class OpenResults:
    """The results that may still read rows from the server, or make objects of rows."""

    def __init__(self) -> None:
        self._of_objects: WeakSet[Result[Any]] = WeakSet()
        # SQLAlchemy allows no weak references to these.
        self._streams: list[CursorResult[Any]] = []

    def add(self, result: Result[Any]) -> None:
        """Remember `result`, unless all its rows are in memory and stay rows."""
        if not isinstance(result, CursorResult):
            self._of_objects.add(result)
        elif result.context._is_server_side:  # noqa: SLF001  also by an option of the engine
            self._streams.append(result)

    def close(self) -> None:
        """Close the results: PostgreSQL reads the rest of a cursor for the client for which it was begun."""
        results, streams = [*self._of_objects], self._streams
        self._of_objects.clear()
        self._streams = []
        for result in [*results, *streams]:
            result.close()
        for stream in streams:
            stream.cursor = _CLOSED_CURSOR

    def check_cursors(self) -> None:
        """Let the driver look for each cursor before it closes it: closing one that a rollback removed is an error."""
        for result in [*self._of_objects, *self._streams]:
            cursor = getattr(getattr(result, "raw", result), "cursor", None)
            # Under asyncio, SQLAlchemy wraps that of the driver.
            driver = getattr(cursor, "_cursor", cursor)
            if isinstance(driver, ServerCursor | AsyncServerCursor):
                driver._described = False  # noqa: SLF001  it has no public method

    def forget_streams(self) -> None:
        """Forget the results whose cursor ends with the transaction."""
        self._streams.clear()
