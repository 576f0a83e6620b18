"""The results of a session that are not read to their end: those of one client are not for another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from sqlalchemy import CursorResult

if TYPE_CHECKING:
    from sqlalchemy import Result


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
        results = [*self._of_objects, *self._streams]
        self._of_objects.clear()
        self.forget_streams()
        for result in results:
            result.close()

    def forget_streams(self) -> None:
        """Forget the results whose cursor ends with the transaction."""
        self._streams.clear()
