"""The revision of a backup and that of the database: which restores are possible, and ENUM labels that come first."""

from __future__ import annotations

import logging
import shlex
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from sqlalchemy.exc import DBAPIError

from syntegra_db.catalog import load_manifest
from syntegra_db.errors import BackupRevisionMismatch, RestoreFailed, SyntegraDBError, server_message
from syntegra_db.migrations import find_data_loss
from syntegra_db.revisions import all_revisions, head_revision, position_of, revision_path
from syntegra_db.settings import describe_database

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from sqlalchemy import Connection

    from syntegra_db.backup._footer import Backup

logger = logging.getLogger(__name__)

LABEL_REASON = "rows can use a new ENUM label only after it is committed."
RESTORE_COLUMNS = (
    "If the schema was upgraded and the rows were not restored, restore the columns with this command, which also "
    "replaces values that were changed since the backup"
)


class CommittedUpgrade(NamedTuple):
    """An upgrade from revision `before` that is committed before the rows are restored.

    `hint` is the command that restores the columns that it brings back if the restore does not finish, or empty.
    """

    before: str | None
    revision: str
    hint: str

    @property
    def state(self) -> str:
        """What holds if the rows are not restored after it."""
        return f"The schema, however, stays at revision {self.revision}: {LABEL_REASON} {self.hint}".rstrip()


def plan_committed_upgrade(
    before: str | None, backup: Backup, replace_columns: Collection[tuple[str, str]], *, keeps_rows: bool
) -> CommittedUpgrade:
    """Return the upgrade to the revision of `backup`, and log how to restore the columns if it is all that is done.

    After the upgrade the same command would find no column to bring back in tables that keep their rows.
    """
    revision, path = backup.metadata.revision, shlex.quote(str(backup.path))
    requested = [f"{table}.{name}" for table, name in replace_columns]
    options = _replace_options(revision, before, requested) if keeps_rows else ""
    hint = f"{RESTORE_COLUMNS}: syntegra-db restore {path} --keep {options}" if options else ""
    logger.warning("Upgrading the schema to revision %s first: %s %s", revision, LABEL_REASON, hint)
    return CommittedUpgrade(before, revision, hint)


def require_known_backup_revision(backup: Backup) -> None:
    """Raise `BackupRevisionMismatch` unless this package has the revision of `backup`."""
    revision = backup.metadata.revision
    if revision not in all_revisions():
        raise BackupRevisionMismatch(
            f"{backup.path} is of revision {revision}, which this package does not know: its newest revision is "
            f"{head_revision()}. Nothing was changed. Install the version of syntegra-db that made the backup, or a "
            "newer one."
        )


def reject_downgrade(before: str | None, backup: Backup, connection: Connection) -> None:
    """Raise `BackupRevisionMismatch` if the database, at `before`, is newer than `backup`."""
    revision = backup.metadata.revision
    if position_of(before) <= position_of(revision):
        return
    then = ""
    if options := _replace_options(revision, before):
        then = (
            f"; then restore the columns that revision {before} drops or narrows: syntegra-db restore "
            f"{shlex.quote(str(backup.path))} --keep {options}"
        )
    raise BackupRevisionMismatch(
        f"{backup.path} is of revision {revision}, but the {describe_database(connection.engine.url)} is already at "
        f"{before}. Nothing was changed. Roll back first: syntegra-db rollback {revision}{then}"
    )


def adds_labels(before: str | None, after: str) -> bool:
    """Return whether an upgrade from `before` to `after` adds a label to an ENUM type that exists already."""
    return any(
        set(labels) - set(types[name])
        for types, later in (
            (load_manifest(old).types, load_manifest(new).types) for old, new in pairwise(revision_path(before, after))
        )
        for name, labels in later.items()
        if name in types
    )


@contextmanager
def report_committed_upgrade(describe_state: Callable[[], str]) -> Iterator[None]:
    """Add the sentences of `describe_state`, if any, to an error or interruption of the block.

    Raises:
        RestoreFailed: a statement failed, and there is such a state.
    """
    try:
        yield
    except (KeyboardInterrupt, SyntegraDBError, DBAPIError, psycopg.Error) as error:
        state = describe_state()
        if not state:
            raise
        if isinstance(error, KeyboardInterrupt):
            error.add_note(state)
            raise
        if isinstance(error, SyntegraDBError):
            raise type(error)(f"{error} {state}") from error
        raise RestoreFailed(f"No row was restored: {server_message(error)}. {state}") from None


def _replace_options(saved: str, other: str | None, requested: Iterable[str] = ()) -> str:
    """Return the options of `restore` for the columns whose values a migration from `saved` to `other` loses.

    Those of the `requested` columns follow.
    """
    lost = (f"{loss.table}.{loss.column}" for loss in find_data_loss(saved, other) if loss.column)
    return " ".join(f"--replace-column {shlex.quote(label)}" for label in dict.fromkeys([*lost, *requested]))
