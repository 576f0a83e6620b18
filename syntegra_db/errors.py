"""Everything that can go wrong on purpose.

Each class carries the exit status that a command line ends with, so that `syntegra-db` and `alembic`
agree. 1 and 2 are left to a command's own verdict and to wrong usage.
"""

from __future__ import annotations

from typing import ClassVar

# As a shell has it: 128 and the number of SIGINT.
EXIT_INTERRUPTED = 130


def server_message(error: BaseException | None) -> str:
    """Return the server's one-line message in a database error, without statement, detail or hint.

    DETAIL and CONTEXT quote rows. An error of the client, such as a failed connection, gives its first line.
    """
    cause = getattr(error, "orig", None) or error
    primary: str | None = getattr(getattr(cause, "diag", None), "message_primary", None)
    first_line = (primary or str(cause or "")).strip().partition("\n")[0] or "no reason given"
    return first_line.removeprefix("connection failed: ").removeprefix("connection is bad: ")


class SyntegraDBError(Exception):
    """Base of the package's errors: one sentence that says what is wrong, where, and what to do."""

    exit_status: ClassVar[int] = 1


class SettingsError(SyntegraDBError):
    """The settings that say where the database is cannot be used."""

    exit_status = 3


class ConnectionFailed(SyntegraDBError):
    """No session could be opened, for a reason that only the server's own words tell."""

    exit_status = 4


class ServerUnreachable(ConnectionFailed):
    """Nothing answers at the configured host and port, or it is not ready yet."""

    exit_status = 5


class AuthenticationFailed(ConnectionFailed):
    """The server is there and refused the user name or password."""

    exit_status = 6


class DatabaseNotFound(ConnectionFailed):
    """The server let the user in, but has no database of that name."""

    exit_status = 7


class RevisionError(SyntegraDBError):
    """The revision that the database says it is at does not fit."""

    exit_status = 8


class DatabaseBehind(RevisionError):
    """The database is at an older revision than the package, or at none."""

    exit_status = 9


class DatabaseAhead(RevisionError):
    """The database is at a revision that this package does not know."""

    exit_status = 10


class MigrationFailed(SyntegraDBError):
    """A revision could not be applied or taken back; the database stands where the message says."""

    exit_status = 11


class LockTimeout(MigrationFailed):
    """Other sessions kept a lock for longer than the migration may wait; nothing was changed by it."""

    exit_status = 15


class SchemaDrift(MigrationFailed):
    """The revision was reached, and the catalog is not what that revision should hold."""

    exit_status = 16


class ExtensionUnavailable(MigrationFailed):
    """The extension `vector` is missing, and this role may not or cannot create it."""

    exit_status = 12


class EmbeddedServerError(SyntegraDBError):
    """The embedded PostgreSQL could not be started, stopped or found."""

    exit_status = 13


class ClientProgramNotFound(SyntegraDBError):
    """A client program of PostgreSQL, such as psql, is nowhere to be found."""

    exit_status = 14


class BackupFailed(SyntegraDBError):
    """No backup was made; the database is untouched, and no file has the name of one."""

    exit_status = 17


class InvalidBackup(SyntegraDBError):
    """The file is cut short, damaged, or not a backup of this package."""

    exit_status = 18


class BackupRevisionMismatch(SyntegraDBError):
    """The backup is whole, but its revision is unknown to this package, or the database is past it."""

    exit_status = 19


class TablesNotEmpty(SyntegraDBError):
    """The tables to restore hold rows, and nobody said what is to become of them."""

    exit_status = 20


class RestoreFailed(SyntegraDBError):
    """The rows could not be restored; the database is as it was before."""

    exit_status = 21


class ConfirmationRequired(SyntegraDBError):
    """A rollback without a backup was not agreed to."""

    exit_status = 22


class AdoptionNotPossible(SyntegraDBError):
    """A database that was made by hand cannot be adopted as it is; nothing was changed."""

    exit_status = 23


class DecisionRequired(AdoptionNotPossible):
    """It can be adopted once a person has decided about columns or rows that the plan names; nothing was changed."""

    exit_status = 24


class AdoptionFailed(SyntegraDBError):
    """The adoption did not come to its end, and the server took all of it back."""

    exit_status = 25


class RebuildFailed(SyntegraDBError):
    """The vector index was not rebuilt or not measured; the message says which index stands."""

    exit_status = 26


class InsufficientResources(RebuildFailed):
    """The server has not the memory or the disk for a new vector index; nothing was changed."""

    exit_status = 27
