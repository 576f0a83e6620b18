"""The exceptions of the package, each with its exit status, and the server's message in a database error.

`syntegra-db` and `alembic` exit with the same status. 1 means that a command found differences, 2 wrong usage.
"""

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


# Settings and connections.


class SettingsError(SyntegraDBError):
    """The settings that name the database are missing or invalid."""

    exit_status = 3


class ConnectionFailed(SyntegraDBError):
    """The connection could not be opened or was lost; the message gives the server's reason."""

    exit_status = 4


class ServerUnreachable(ConnectionFailed):
    """No server answers at the configured host and port, or it does not accept connections yet."""

    exit_status = 5


class AuthenticationFailed(ConnectionFailed):
    """The server rejected the user name or the password."""

    exit_status = 6


class DatabaseNotFound(ConnectionFailed):
    """The server has no database of the configured name."""

    exit_status = 7


# Revisions and migrations.


class RevisionError(SyntegraDBError):
    """The revision is unknown, or the database's version table is not usable."""

    exit_status = 8


class DatabaseBehind(RevisionError):
    """The database is at an older revision than the package, or at no revision."""

    exit_status = 9


class DatabaseAhead(RevisionError):
    """The database is at a revision that this version of the package does not know."""

    exit_status = 10


class TablesInOtherSchema(RevisionError):
    """Another schema has the package's tables, and the search_path leads to one without them; nothing was changed."""

    exit_status = 32


class MigrationFailed(SyntegraDBError):
    """A revision could not be applied or reverted; the message gives the database's current revision."""

    exit_status = 11


class SchemaNotVerified(MigrationFailed):
    """The changes were committed, but the installed schema could not be compared with the declared one."""

    exit_status = 30


class CommitUnconfirmed(SyntegraDBError):
    """The connection was lost during COMMIT, and it is unknown whether the changes were committed."""

    exit_status = 29


class LockTimeout(MigrationFailed):
    """Other sessions held a lock for longer than the timeouts allow; the message says what was changed."""

    exit_status = 15


class SchemaDrift(MigrationFailed):
    """The revision was reached, but the schema differs from the one that it declares."""

    exit_status = 16


class ExtensionUnavailable(MigrationFailed):
    """The extension `vector` is missing, and this role cannot create it."""

    exit_status = 12


class UntrustedObject(SyntegraDBError):
    """Another role created what a migration could run, such as a function or a part of `alembic_version`; none ran."""

    exit_status = 31


# Programs on this machine.


class EmbeddedServerError(SyntegraDBError):
    """The embedded PostgreSQL could not be started, stopped or found."""

    exit_status = 13


class ClientProgramNotFound(SyntegraDBError):
    """A PostgreSQL client program, such as psql or pg_dump, is not installed or is too old."""

    exit_status = 14


# Backups.


class BackupFailed(SyntegraDBError):
    """The backup failed; the database is unchanged, and no backup file was left."""

    exit_status = 17


class InvalidBackup(SyntegraDBError):
    """The file is truncated, damaged, or not a backup of this package."""

    exit_status = 18


class BackupRevisionMismatch(SyntegraDBError):
    """The backup is intact, but its revision is unknown, or older than the database's revision."""

    exit_status = 19


class TablesNotEmpty(SyntegraDBError):
    """The tables to restore are not empty, and neither --replace nor --keep was given."""

    exit_status = 20


class RestoreFailed(SyntegraDBError):
    """The rows could not be restored; the database is unchanged."""

    exit_status = 21


class ConfirmationRequired(SyntegraDBError):
    """A command that can delete rows was not confirmed; nothing was changed."""

    exit_status = 22


# Adoption.


class AdoptionNotPossible(SyntegraDBError):
    """The existing tables cannot be adopted as they are; nothing was changed."""

    exit_status = 23


class DecisionRequired(AdoptionNotPossible):
    """The adoption needs decisions about columns or rows, which the plan lists; nothing was changed."""

    exit_status = 24


class AdoptionFailed(SyntegraDBError):
    """The adoption failed, and the server rolled it back; the database is unchanged."""

    exit_status = 25


# The vector index.


class RebuildFailed(SyntegraDBError):
    """The vector index was not rebuilt or not calibrated; the message gives the current index."""

    exit_status = 26


class InsufficientResources(RebuildFailed):
    """A new vector index needs more memory than the limit allows; nothing was changed."""

    exit_status = 27


# Tenancy.


class TenancyError(SyntegraDBError):
    """The rows of clients could not be separated, or a login not be bound to a client; nothing was changed."""

    exit_status = 33


# The command line.


class OutputFailed(SyntegraDBError):
    """A file or the output of the command cannot be read or written; what the command changed remains."""

    exit_status = 28


# Tenancy, in services: these errors have no exit status of their own.


class InvalidClient(SyntegraDBError, ValueError):
    """The value is not the id of a client: an integer that a bigint can store."""


class UnsupportedSession(SyntegraDBError):
    """The session cannot hold a client: it is of another class, in autocommit, or two-phase."""


class PoliciesBypassed(SyntegraDBError):
    """The policies that separate clients do not apply to the login of an engine; the message says why."""


class RowOfOtherClient(SyntegraDBError):
    """The server rejected a row because its `client_id` is not the client that is set in the transaction.

    Attributes:
        sqlstate: the server's error code, `42501`.
    """

    def __init__(self, message: str, *, sqlstate: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


# Searches and bulk loads, which are used by services: their errors have no exit status of their own.


class InvalidSearchArgument(SyntegraDBError, ValueError):
    """An argument of a search has the wrong type or is out of range."""


class BulkLoadError(SyntegraDBError):
    """The rows could not be loaded.

    Attributes:
        sqlstate: the server's error code, such as `40P01` for a deadlock, or None if the server gave none.
    """

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class BulkLockTimeout(BulkLoadError):
    """Another transaction held a lock that the load needs for longer than the lock timeout."""


class RowRejected(BulkLoadError):
    """A row cannot be stored; the message says why, and shows no value of the row.

    Attributes:
        row: its number in the input, from 1. None if the server checks only after the last row, as for foreign keys.
        column: the name of the column, if one column is the cause.
        constraint: the name of the violated constraint, if any.
        sqlstate: the server's error code, if the server rejected the row.
    """

    def __init__(
        self,
        message: str,
        *,
        row: int | None = None,
        column: str | None = None,
        constraint: str | None = None,
        sqlstate: str | None = None,
    ) -> None:
        super().__init__(message, sqlstate=sqlstate)
        self.row = row
        self.column = column
        self.constraint = constraint
