"""The sessions whose locks a migration waits for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from syntegra_db.errors import server_message

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.exc import SQLAlchemyError

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
    """The sessions that the session `pid` was last seen waiting for."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._blockers: tuple[Blocker, ...] = ()
        self._failure: str | None = None

    def __str__(self) -> str:
        return "; ".join(map(str, self._blockers)) or self._failure or "a session that has since ended"

    def read(self, connection: Connection) -> None:
        """Read the blockers, and keep the previous ones if there are none now."""
        self._blockers = read_blockers(connection, self._pid) or self._blockers

    def record_failure(self, error: SQLAlchemyError) -> None:
        """Keep the reason why the blockers cannot be read, which messages give instead."""
        self._failure = f"unknown sessions, because a second connection failed: {server_message(error)}"
