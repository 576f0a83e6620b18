"""The errors of commands, each with its exit status: `syntegra-db` and `alembic` exit with the same one."""

from __future__ import annotations

from syntegra_db.errors._base import SyntegraDBError

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
