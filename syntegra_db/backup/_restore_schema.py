"""The revision of a backup and that of the database: which restores are possible, and ENUM labels that come first."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from syntegra_db.catalog import load_manifest
from syntegra_db.errors import BackupRevisionMismatch, SyntegraDBError
from syntegra_db.migrations import find_data_loss
from syntegra_db.revisions import all_revisions, head_revision
from syntegra_db.settings import describe_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from syntegra_db.backup._footer import Backup


class CommittedUpgrade(NamedTuple):
    """An upgrade from revision `before` that was committed before the rows are restored."""

    before: str | None
    revision: str


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
    known, revision = all_revisions(), backup.metadata.revision
    if before is None or known.index(before) <= known.index(revision):
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
    known = [None, *all_revisions()]
    path = known[known.index(before) : known.index(after) + 1]
    return any(
        set(labels) - set(types[name])
        for types, later in ((load_manifest(old).types, load_manifest(new).types) for old, new in pairwise(path))
        for name, labels in later.items()
        if name in types
    )


@contextmanager
def report_committed_upgrade(upgrade: CommittedUpgrade | None) -> Iterator[None]:
    """Add to an error of the block that `upgrade` stays, and the options that restore the columns it brought back."""
    try:
        yield
    except SyntegraDBError as error:
        if upgrade is None:
            raise
        options = _replace_options(upgrade.revision, upgrade.before)
        again = f" If tables are not empty, run the command again with --keep {options}" if options else ""
        raise type(error)(
            f"{error} The schema, however, stays at revision {upgrade.revision}: rows can use a new ENUM label only "
            f"after it is committed.{again}"
        ) from error


def _replace_options(saved: str, other: str | None) -> str:
    """Return the options of `restore` for the columns whose values a migration from `saved` to `other` loses."""
    labels = dict.fromkeys(f"{loss.table}.{loss.column}" for loss in find_data_loss(saved, other) if loss.column)
    return " ".join(f"--replace-column {shlex.quote(label)}" for label in labels)
