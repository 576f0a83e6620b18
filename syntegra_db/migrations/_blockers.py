"""The sessions whose locks a migration waits for."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, NamedTuple, Self

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from syntegra_db.errors import server_message

if TYPE_CHECKING:
    from types import TracebackType

    from sqlalchemy import Connection, Engine

STATEMENT_CHARACTERS = 120
# The server may cut a statement inside a literal.
LITERAL = re.compile(r"'(?:[^']|'')*(?:'|$)|\$(\w*)\$.*?(?:\$\1\$|$)", re.DOTALL)
BLOCKERS = text(
    """
    SELECT pid, application_name, state, query, date_part('epoch', clock_timestamp() - xact_start)
    FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids(:pid))
    """
)


class Blocker(NamedTuple):
    """A session that another one waits for, with its running or last statement.

    A role without pg_read_all_stats cannot see the state and statement of another role's session.
    """

    pid: int
    application: str
    state: str | None
    statement: str
    transaction_seconds: float | None

    def __str__(self) -> str:
        age = "" if self.transaction_seconds is None else f", in a transaction for {self.transaction_seconds:.0f} s"
        who = f"pid {self.pid} ({self.application or 'no application name'}, {self.state or 'state hidden'}{age})"
        return f"{who}: {mask_literals(self.statement)}"


def mask_literals(statement: str) -> str:
    """Return the first 120 characters of `statement` on one line, with its literals masked: they are clients' data."""
    return " ".join(LITERAL.sub("'…'", statement).split())[:STATEMENT_CHARACTERS]


def read_blockers(connection: Connection, pid: int) -> tuple[Blocker, ...]:
    """Return the sessions that the session `pid` waits for now."""
    return tuple(Blocker(*row) for row in connection.execute(BLOCKERS, {"pid": pid}))


class BlockerMonitor:
    """Record the sessions that the session `pid` waits for, read on a second connection.

    It starts reading after `delay` seconds, so a migration that is not blocked does not open one.
    """

    def __init__(self, engine: Engine, pid: int, delay: float) -> None:
        self._engine = engine
        self._pid = pid
        self._delay = delay
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="syntegra_db blocker monitor", daemon=True)
        self.blockers: tuple[Blocker, ...] = ()
        self.failure: str | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def __str__(self) -> str:
        if self.blockers:
            return "; ".join(str(blocker) for blocker in self.blockers)
        return self.failure or "a session that has since ended"

    def _watch(self) -> None:
        if self._done.wait(self._delay):
            return
        try:
            with self._engine.connect() as connection:
                while True:
                    blockers = read_blockers(connection, self._pid)
                    connection.rollback()
                    self.blockers = blockers or self.blockers
                    if self._done.wait(self._delay):
                        return
        except SQLAlchemyError as error:
            # The migration continues; its message gives this reason instead of names.
            self.failure = f"unknown sessions, because a second connection failed: {server_message(error)}"
