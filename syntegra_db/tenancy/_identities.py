"""The rows in the identity map of a session: the rows of one client are not for another."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import inspect

from syntegra_db.client_setting import CLIENT_COLUMN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import InstanceState, Mapper, Session


@lru_cache(maxsize=1024)
def _has_client(mapper: Mapper[Any]) -> bool:
    """Return whether the rows of a class belong to a client, also of a class of the application, as of a view."""
    return any(CLIENT_COLUMN in table.columns for table in mapper.tables)


@lru_cache(maxsize=1024)
def _paths_to_clients(mapper: Mapper[Any]) -> tuple[str, ...]:
    """Return the relationships of a class without a client whose rows belong to clients."""
    if _has_client(mapper):
        return ()
    return tuple(name for name, path in mapper.relationships.items() if _has_client(path.mapper))


class ClientRows:
    """The rows with a client in a session; a row whose client is not known is for no client."""

    def __init__(self, session: Session) -> None:
        self._session = session
        # Of rows that a rollback expired, or could expire, after their block.
        self._clients: WeakKeyDictionary[InstanceState[Any], int] = WeakKeyDictionary()

    def remove_others(self, client_id: int) -> list[object]:
        """Detach the rows that do not belong to `client_id`, and return them; what is loaded of them stays readable.

        Rows without a client stay, unless a relationship detaches them too, and load again what belongs to clients.
        """
        rows = self._session.identity_map.values()
        others = [row for row in self._all() if self.client_of(row) != client_id]
        for row in others:
            if row in self._session:
                self._session.expunge(row)
        for row in self._session.identity_map.values():
            if loaded := vars(row).keys() & _paths_to_clients(inspect(row).mapper):
                self._session.expire(row, loaded)
        return [row for row in rows if row not in self._session] if others else others

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

    def client_of(self, row: object) -> int | None:
        """Return the client of a row, or None if it is not known."""
        loaded: int | None = vars(row).get(CLIENT_COLUMN)
        return self._clients.get(inspect(row)) if loaded is None else loaded

    def _all(self) -> list[object]:
        return [row for row in self._session.identity_map.values() if _has_client(inspect(row).mapper)]
