"""The advisory lock that lets one migration run at a time."""

from __future__ import annotations

import hashlib
import logging
import select
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from syntegra_db.catalog import require_current_schema
from syntegra_db.errors import LockTimeout, MigrationFailed, SettingsError, escape_control_characters
from syntegra_db.network import limit_session, psycopg_connection
from syntegra_db.revisions import VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
POOL_SECONDS = 5
LOCK_HOLDER = text(
    """
    SELECT pid, application_name, to_char(backend_start, 'YYYY-MM-DD HH24:MI:SS TZ')
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
      AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND classid = ((CAST(:key AS bigint) >> 32) & 4294967295)::oid
      AND objid = (CAST(:key AS bigint) & 4294967295)::oid
    """
)


class LockHolder(NamedTuple):
    """The session that holds an advisory lock."""

    pid: int
    application: str
    connected_since: str | None

    def __str__(self) -> str:
        application = escape_control_characters(self.application or "no application name")
        return (
            f"pid {self.pid}, {application}, connected since {self.connected_since or 'a time hidden from this role'}"
        )


@contextmanager
def migration_lock(connection: Connection, timeout: float) -> Iterator[None]:
    """Hold the migration lock of the connection's current schema, and close the connection at the end.

    It belongs to the session that migrates: it lasts exactly as long as the server may still be working, even after the
    migrating process was killed. `timeout` is in seconds.

    Raises:
        LockTimeout: another migration still holds it; the message says which session.
        MigrationFailed: no schema of the search path exists, or a transaction-mode pooler moves the session.
    """
    key = lock_key(VERSION_TABLE, current_schema(connection))
    connection.rollback()
    # Not back to a pool, where the lock would outlive the migration.
    connection.detach()
    acquire_session_lock(connection, key, timeout, holder_task="migration")
    try:
        yield
    finally:
        connection.close()


def current_schema(connection: Connection) -> str:
    """Return the schema that new tables go to: the first one of the search path that exists, or the one that is named.

    Raises:
        MigrationFailed: it does not exist, or this role may not use it.
        TablesInOtherSchema: see `require_no_tables_elsewhere`.
    """
    try:
        return require_current_schema(connection).schema or ""
    except SettingsError as error:
        raise MigrationFailed(str(error)) from None


def lock_key(relation: str, schema: str) -> int:
    """Return the key of the advisory lock for a relation: a signed 64-bit number.

    PostgreSQL keeps advisory locks apart by database, so the key needs the relation's name only.
    """
    digest = hashlib.sha256(f"syntegra_db:{schema}.{relation}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def acquire_session_lock(connection: Connection, key: int, timeout: float, *, holder_task: str) -> None:
    """Acquire an advisory lock for the session of `connection` within `timeout` seconds.

    It is polled with one transaction per attempt, because a session that waits inside pg_advisory_lock() deadlocks
    with CREATE INDEX CONCURRENTLY. `holder_task` names in messages what the lock allows one of. The session gets the
    limits of `limit_session`.

    Raises:
        LockTimeout: another session still holds it; the message says which.
        MigrationFailed: connected through a transaction-mode pooler, where session locks do not work.
    """
    _reject_transaction_pooling(connection, holder_task)
    limit_session(connection)
    connection.commit()
    deadline = time.monotonic() + timeout
    announced = False
    while not _try_lock(connection, key):
        holder = find_lock_holder(connection, key)
        connection.rollback()
        if time.monotonic() >= deadline:
            end = f"Wait for it, or end it with SELECT pg_terminate_backend({holder.pid}); and run" if holder else "Run"
            raise LockTimeout(
                f"Another {holder_task} is still running after {timeout:g} s ({holder or 'it just ended'}); nothing "
                f"was changed. {end} this again."
            )
        if holder is not None and not announced:
            logger.info("Waiting for another %s to end: %s", holder_task, holder)
            announced = True
        time.sleep(POLL_SECONDS)


def find_lock_holder(connection: Connection, key: int) -> LockHolder | None:
    """Return the session that holds the advisory lock `key` in this database, or None."""
    row = connection.execute(LOCK_HOLDER, {"key": key}).first()
    return None if row is None else LockHolder(*row)


def _try_lock(connection: Connection, key: int) -> bool:
    obtained = bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}))
    connection.commit()
    return obtained


def _reject_transaction_pooling(connection: Connection, task: str) -> None:
    """Raise `MigrationFailed` if a pooler moves this connection between server sessions.

    Checked before the lock is taken, because a lock on another session would be left behind. A pooler invents the
    process id that it gives a client at start. If it differs from the server's, a second client with an open
    transaction shows whether sessions change between transactions.
    """
    announced_pid = psycopg_connection(connection).pgconn.backend_pid
    session_pid = _backend_pid(connection)
    if announced_pid == session_pid:
        return
    with connection.engine.connect() as other:
        driver = psycopg_connection(other).pgconn
        driver.send_query(b"BEGIN; SELECT")
        driver.flush()
        is_served, _, _ = select.select([driver.socket], [], [], POOL_SECONDS)
        moved = _backend_pid(connection) != session_pid
        # Its transaction is unknown to SQLAlchemy.
        other.invalidate()
    if not is_served:
        raise MigrationFailed(
            f"This {task} is connected through a pooler that has no second connection to the server within "
            f"{POOL_SECONDS} s. Make its pool larger, or connect to the server itself. Nothing was changed."
        )
    if moved:
        raise MigrationFailed(
            f"This {task} is connected through a transaction-mode pooler, which loses the lock that allows one {task} "
            "at a time. Connect to the server itself, or to a pool in session mode."
        )


def _backend_pid(connection: Connection) -> int:
    pid: int = connection.scalars(text("SELECT pg_backend_pid()")).one()
    connection.rollback()
    return pid
