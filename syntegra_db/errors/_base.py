"""The base class of the package's errors, and the server's message in a database error."""

from __future__ import annotations

import unicodedata
from typing import ClassVar

READ_ONLY_TRANSACTION = "25006"
# Unicode's control, format (bidirectional marks), surrogate, line separator and paragraph separator characters.
UNPRINTABLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def server_message(error: BaseException | None) -> str:
    """Return the server's one-line message in a database error, without statement, detail or hint.

    DETAIL and CONTEXT quote rows. An error of the client, such as a failed connection, gives its first line.
    """
    cause = getattr(error, "orig", None) or error
    primary: str | None = getattr(getattr(cause, "diag", None), "message_primary", None)
    first_line = (primary or str(cause or "")).strip().partition("\n")[0] or "no reason given"
    if getattr(cause, "sqlstate", None) == READ_ONLY_TRANSACTION:
        first_line += " (set by default_transaction_read_only or by the session, or the server is a standby)"
    reason = first_line.removeprefix("connection failed: ").removeprefix("connection is bad: ")
    return escape_control_characters(reason, keep="\t")


def escape_control_characters(text: str, *, keep: str = "") -> str:
    r"""Return `text` with JSON escapes such as `\u001b` for control and format characters, except those in `keep`.

    Names and statements come from other roles, and a terminal executes the escape sequences in them.
    """

    def escape(character: str) -> str:
        if character in keep or unicodedata.category(character) not in UNPRINTABLE_CATEGORIES:
            return character
        code_units = character.encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{unit.hex()}" for unit in (code_units[:2], code_units[2:]) if unit)

    return "".join(map(escape, text))


class SyntegraDBError(Exception):
    """Base class of the package's errors: the message says what is wrong, where, and what to do."""

    exit_status: ClassVar[int] = 1

    def __str__(self) -> str:
        return escape_control_characters(super().__str__(), keep="\t")
