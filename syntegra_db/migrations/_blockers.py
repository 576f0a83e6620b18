"""The sessions whose locks a migration waits for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from syntegra_db.errors import escape_control_characters, server_message

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.exc import SQLAlchemyError

STATEMENT_CHARACTERS = 120
# The tokens of PostgreSQL's lexer. `doubtful` begins a literal without an end, because the server cuts statements, or a
# string with a backslash, whose end depends on the session's standard_conforming_strings.
LETTER = r"[A-Za-z_\x80-\U0010ffff]"
TOKEN = re.compile(
    rf"""
    (?P<space> \s+ | --[^\r\n]* )
    | (?P<comment> /\* )
    | (?P<string> [eE]'(?:[^'\\]|\\.|'')*+' | '(?:[^'\\]|'')*+' )
    | (?P<dollar_quoted> \$(?P<tag>(?:{LETTER}(?:{LETTER}|\d)*)?)\$.*?\$(?P=tag)\$ )
    | (?P<kept> {LETTER}(?:{LETTER}|[\d$])* | "(?:[^"]|"")*+" | \$\d+ )
    | (?P<number> \.?\d(?:[\w.]|(?<=[eE])[+-])* )
    | (?P<doubtful> ['"$] )
    | (?P<other> . )
    """,
    re.ASCII | re.DOTALL | re.VERBOSE,
)
MASKS = {"space": " ", "comment": " ", "string": "'…'", "dollar_quoted": "'…'", "number": "…"}
COMMENT_MARK = re.compile(r"/\*|\*/")
FIRST_WORD = re.compile(r"[A-Za-z]+")
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
        application = escape_control_characters(self.application or "no application name")
        who = f"pid {self.pid} ({application}, {self.state or 'state hidden'}{age})"
        return f"{who}: {mask_literals(self.statement)}"


def mask_literals(statement: str) -> str:
    """Return the first 120 characters of `statement` on one line, without comments and with its literals masked.

    Literals are clients' data. If the end of one is in doubt, only the first word is returned.
    """
    parts: list[str] = []
    position = 0
    while token := TOKEN.match(statement, position):
        position = token.end()
        kind = token.lastgroup
        if kind == "comment":
            position = _end_of_comment(statement, position)
        if kind == "doubtful" or position < 0:
            word = FIRST_WORD.match("".join(parts).lstrip())
            return f"{word[0] if word else ''} …".lstrip()
        parts.append(MASKS.get(kind or "", token[0]))
    return escape_control_characters(" ".join("".join(parts).split()))[:STATEMENT_CHARACTERS]


def _end_of_comment(statement: str, position: int) -> int:
    """Return where the comment ends whose text begins at `position`, or -1; comments can contain comments."""
    depth = 1
    for mark in COMMENT_MARK.finditer(statement, position):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return -1


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
