"""Taking the database back to an older revision, with the rows of the tables that go in a file that was proven."""

from __future__ import annotations

import logging
import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy.exc import DBAPIError

from syntegra_db.backup import _session
from syntegra_db.backup._dump import create_backup, verify_backup
from syntegra_db.catalog import require_no_drift
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import InvalidBackup, MigrationFailed, RevisionError, server_message
from syntegra_db.migrations import run_in_transaction
from syntegra_db.migrations._data_loss import describe_data_loss, tables_to_drop
from syntegra_db.migrations._lock import migration_lock
from syntegra_db.migrations._options import MigrationOptions
from syntegra_db.migrations._retry import retry_in_savepoint
from syntegra_db.revisions import all_revisions, current_revision, describe_revision, require_known_revision
from syntegra_db.settings import describe_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

    from syntegra_db.backup._footer import Backup

logger = logging.getLogger(__name__)

RELATIVE_TARGET = re.compile(r"-(\d+)")


class RollbackResult(NamedTuple):
    """What a rollback did: the proven file, the revision that the database is at now, and what brings all back."""

    backup: Backup
    revision: str | None
    restore_command: str


def rollback(
    target: str,
    url: URL,
    path: Path | None = None,
    *,
    options: MigrationOptions | None = None,
    report: Callable[[_session.RowProgress], None] | None = None,
) -> RollbackResult:
    """Back up the database at `url`, prove the file, then take the database back to `target`, or `base`.

    Nobody writes to the tables that go between the backup's moment and their end, so that the file has every row that
    they ever had; reading goes on until they go. Whatever ends it before leaves the database as it was.

    Raises:
        RevisionError: the database is not past `target`, or there is no such revision.
        BackupFailed, BackupUnusable: the backup could not be made or proven; the database is as it was.
        MigrationFailed: the server refused the downgrade; the database is as it was, and the backup stays.
        LockNotObtained: others kept a table, or the migration lock.
        CatalogDiffers: the revision is reached, and the schema is not what it should be there.
        ProgramMissing: there is no pg_dump or pg_restore that is as new as the server.
        ConnectionFailed: there is no connection; one of its subclasses says why.
    """
    options = options or MigrationOptions()
    engine = unpooled_engine(url, "syntegra_db rollback")
    with connect(engine) as connection, migration_lock(connection, options.migration_lock_timeout):
        before = current_revision(connection)
        revision = resolve_target(target, before)
        connection.rollback()
        try:
            with connection.begin():
                going = _block_writes(connection, before, revision, options)
                backup = create_backup(url, path, options=options, report=report)
                _verify_against_tables(connection, backup, going)
                retry_in_savepoint(
                    connection, lambda: run_in_transaction(connection, "downgrade", revision or "base"), options
                )
        except DBAPIError as error:
            raise MigrationFailed(
                f"The {describe_database(url)} was not taken back: {server_message(error)}. It is at revision "
                f"{before}, as it was; mend the cause and run this again."
            ) from None
    with connect(engine) as fresh:
        require_no_drift(fresh, f"The database is back at {describe_revision(revision)}")
    keep = " --keep" if revision else ""
    return RollbackResult(backup, revision, f"syntegra-db restore {shlex.quote(str(backup.path))}{keep}")


def describe_rollback_loss(target: str, url: URL) -> str:
    """Return the tables that go with their rows, such as `clusters (6 rows)`.

    Raises:
        RevisionError: as `rollback`.
    """
    with connect(unpooled_engine(url)) as connection:
        before = current_revision(connection)
        return describe_data_loss(connection, tables_to_drop(before, resolve_target(target, before)))


def resolve_target(target: str, before: str | None) -> str | None:
    """Return the revision that `target` means to a database at `before`, None for `base`; it is an older one.

    Raises:
        RevisionError: it is not, or there is no such revision.
    """
    require_known_revision(before)
    known = [None, *all_revisions()]
    place = known.index(before)
    steps = RELATIVE_TARGET.fullmatch(target)
    if steps is not None:
        return known[max(0, place - int(steps[1]))]
    wanted = None if target == "base" else target
    if wanted not in known:
        raise RevisionError(f"There is no revision {target}. `alembic history` lists the revisions.")
    if known.index(wanted) >= place:
        raise RevisionError(
            f"The database is at {describe_revision(before)}, and {target} is not before it: "
            "there is nothing to roll back. `syntegra-db status` shows where it stands."
        )
    return wanted


def _block_writes(
    connection: Connection, before: str | None, revision: str | None, options: MigrationOptions
) -> list[str]:
    """Keep writers from the tables that go, and return these."""
    _session.begin_unlimited_transaction(connection)
    going = _session.existing_tables(connection, tables_to_drop(before, revision))
    _session.lock_tables(connection, going, "SHARE ROW EXCLUSIVE", options)
    return going


def _verify_against_tables(connection: Connection, backup: Backup, going: list[str]) -> None:
    """Return if the file can be read to its end, and has as many rows as the tables that go."""
    logger.info("Reading %s back", backup.path)
    verify_backup(backup)
    for name, rows in _session.count_rows(connection, going).items():
        saved = backup.contents.tables[name].rows
        if saved != rows:
            raise InvalidBackup(
                f"{backup.path} has {saved:,} rows of {name}, and the table has {rows:,}. Nothing was taken back; run "
                "this again."
            )
