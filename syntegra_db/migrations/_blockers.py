"""Who keeps a migration waiting."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, NamedTuple, Self

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from types import TracebackType

STATEMENT_CHARACTERS = 120
# A statement may be cut off inside a literal.
LITERAL = re.compile(r"'(?:[^']|'')*(?:'|$)|\$(\w*)\$.*?(?:\$\1\$|$)", re.DOTALL)
BLOCKERS = text(
    """
    SELECT pid, application_name, state, query, date_part('epoch', clock_timestamp() - xact_start)
    FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids(:pid))
    """
)


class Blocker(NamedTuple):
    """A session that another one waits for; its statement is the running or the last one.

    The server hides state and statement of another role's session from a role without pg_read_all_stats.
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
    """Return the beginning of `statement` on one line, with its literals masked: they are clients' data."""
    return " ".join(LITERAL.sub("'…'", statement).split())[:STATEMENT_CHARACTERS]


class BlockerMonitor:
    """Remembers whom the session `pid` waited for, asked on a connection of its own while it waits.

    It asks only after `delay` seconds, so that a migration that nobody blocks does not pay for it.
    """

    def __init__(self, engine: Engine, pid: int, delay: float) -> None:
        self._engine = engine
        self._pid = pid
        self._delay = delay
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="syntegra_db blocker watch", daemon=True)
        self.blockers: list[Blocker] = []
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
        return self.failure or "a session that has ended since"

    def _watch(self) -> None:
        if self._done.wait(self._delay):
            return
        try:
            with self._engine.connect() as connection:
                while True:
                    rows = connection.execute(BLOCKERS, {"pid": self._pid}).all()
                    connection.rollback()
                    if rows:
                        self.blockers = [Blocker(*row) for row in rows]
                    if self._done.wait(self._delay):
                        return
        except SQLAlchemyError as error:
            # The migration goes on without names; the reason stands where they would have stood.
            self.failure = f"unknown, since a second connection failed: {str(error).splitlines()[0]}"
