"""The rows in the identity map of a session: the rows of one client are not for another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import inspect

from syntegra_db.client_setting import CLIENT_COLUMN
from syntegra_db.tenancy._criteria import client_tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import InstanceState, Session


class ClientRows:
    """The rows with a client in a session; a row whose client is not known is for no client."""

    def __init__(self, session: Session) -> None:
        self._session = session
        # Of rows that a rollback expired, or could expire, after their block.
        self._clients: WeakKeyDictionary[InstanceState[Any], int] = WeakKeyDictionary()

    def remove_others(self, client_id: int) -> list[object]:
        """Detach the rows that do not belong to `client_id`, and return them; what is loaded of them stays readable."""
        others = [row for row in self._all() if self._client_of(row) != client_id]
        for row in others:
            self._session.expunge(row)
        return others

    def attach_again(self, rows: Iterable[object], *, expired: bool) -> None:
        """Attach detached rows, in place of other objects for the same rows."""
        for row in rows:
            state = inspect(row)
            # A rollback makes a new row transient, and the caller may have attached it to another session.
            if not state.detached:
                continue
            present = self._session.identity_map.get(state.key)
            if present is not None:
                self._session.expunge(present)
            self._session.add(row)
            if expired:
                self._session.expire(row)

    def remember_client(self, client_id: int) -> None:
        """Remember that the rows in the session belong to `client_id`, whose block ends."""
        for row in self._all():
            self._clients[inspect(row)] = client_id

    def _all(self) -> list[object]:
        # A class of the application may be mapped to a table of the package.
        rows = self._session.identity_map.values()
        return [row for row in rows if any(table.name in client_tables() for table in inspect(row).mapper.tables)]

    def _client_of(self, row: object) -> int | None:
        loaded: int | None = vars(row).get(CLIENT_COLUMN)
        return self._clients.get(inspect(row)) if loaded is None else loaded
