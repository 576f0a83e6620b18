"""Sessions of each login of a database with two clients, and the rows that they must see."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from support.logins import set_client
from support.two_clients import VIEWERS, Viewer, rows_of_others
from syntegra_db.bulk import BulkLoadError
from syntegra_db.errors import RowOfOtherClient
from syntegra_db.tenancy import client, session_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from support.viewed_statements import Observed


class Rows(NamedTuple):
    """The rows of a table: the ids and sources of those that a session must see, and the ids of all."""

    own: list[tuple[int, int | None]]
    every: list[int]

    @property
    def ids(self) -> list[int]:
        """The ids that the session must see."""
        return [row[0] for row in self.own]


class Kind(NamedTuple):
    """A session of a login, which sets its client in a block or with the setting alone."""

    viewer: Viewer
    in_block: bool


KINDS = {
    "block": Kind(VIEWERS["service"], in_block=True),
    "setting": Kind(VIEWERS["service"], in_block=False),
    "reader": Kind(VIEWERS["reader"], in_block=True),
    "bound": Kind(VIEWERS["bound"], in_block=False),
    "no client": Kind(VIEWERS["service without client"], in_block=False),
    "no block": Kind(VIEWERS["service without client"], in_block=True),
}


class Sessions:
    """Opens a session of each of `KINDS`, and checks that it changed no row of others."""

    def __init__(self, engines: dict[str, Engine], observed: Observed) -> None:
        self._engines, self._owner = engines, observed.owner
        self._others = rows_of_others(observed.owner)

    def __iter__(self) -> Iterator[Kind]:
        return iter(KINDS.values())

    @contextmanager
    def open(self, kind: Kind) -> Iterator[Session]:
        """Yield a session whose transaction is rolled back."""
        with ExitStack() as stack:
            engine, setting = self._engines[kind.viewer.login], kind.viewer.setting
            session = stack.enter_context(session_factory(engine)() if kind.in_block else Session(engine))
            if not kind.in_block:
                set_client(session, int(setting) if setting else None)
            elif setting:
                stack.enter_context(client(session, int(setting)))
            yield session
            assert rows_of_others(session.connection().connection.driver_connection) == self._others  # type: ignore[arg-type]
            session.rollback()

    def rows(self, kind: Kind, model: Any) -> Rows:
        """Return the rows of a table as the owner sees them."""
        source = "source_id" if hasattr(model, "source_id") else "NULL::bigint"
        table = model.__tablename__
        own = self._owner.execute(f"SELECT id, {source} FROM {kind.viewer.sees}.{table}".encode()).fetchall()
        every = self._owner.execute(f"SELECT id FROM public.{table}".encode()).fetchall()
        return Rows(sorted(own), [row[0] for row in every])

    def outcome(self, kind: Kind, work: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of `work` for a session and `arguments`, or the SQLSTATE of its error."""
        with self.open(kind) as session:
            try:
                with session.begin_nested():
                    return work(session, *arguments)
            except (DBAPIError, RowOfOtherClient, BulkLoadError) as error:
                return getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlstate", None)
