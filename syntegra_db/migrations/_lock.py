"""One migrator at a time."""

from __future__ import annotations

import hashlib
import logging
import time
from typing import TYPE_CHECKING, cast

from sqlalchemy import text

from syntegra_db.errors import LockTimeout, MigrationFailed

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Connection

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
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


def lock_key(version_table: str, schema: str) -> int:
    """Return the key of the advisory lock for a version table: a signed 64-bit number.

    PostgreSQL keeps advisory locks apart by database, so that the name of the table is all there is to add.
    """
    digest = hashlib.sha256(f"syntegra_db:{schema}.{version_table}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def acquire_migration_lock(connection: Connection, key: int, patience: float) -> None:
    """Take the migrators' lock on the session of `connection`, waiting at most `patience` seconds.

    It is the session that migrates: the lock lasts exactly as long as work may still be going on in the server, even
    when the migrating process was killed. It is polled, a transaction a try, since a session that waits inside
    pg_advisory_lock() deadlocks with CREATE INDEX CONCURRENTLY.

    Raises:
        LockNotObtained: another session still holds it; the message says which.
        MigrationFailed: a pooler in transaction mode stands in between, where no session lock means anything.
    """
    _reject_transaction_pooling(connection)
    deadline = time.monotonic() + patience
    announced = False
    while not _try_lock(connection, key):
        holder = connection.execute(LOCK_HOLDER, {"key": key}).first()
        connection.rollback()
        if time.monotonic() >= deadline:
            raise LockTimeout(
                f"Another migration is still running after {patience:g} s ({_describe_holder(holder)}); nothing was "
                f"changed. Wait for it, or end it with SELECT pg_terminate_backend(pid), and run this again."
            )
        if holder is not None and not announced:
            logger.info("Waiting for another migration to end: %s", _describe_holder(holder))
            announced = True
        time.sleep(POLL_SECONDS)


def _try_lock(connection: Connection, key: int) -> bool:
    obtained = bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}))
    connection.commit()
    return obtained


def _describe_holder(holder: tuple[int, str, str] | None) -> str:
    if holder is None:
        return "it just ended"
    pid, application, since = holder
    return (
        f"pid {pid}, {application or 'no application name'}, connected since {since or 'a time hidden from this role'}"
    )


def _reject_transaction_pooling(connection: Connection) -> None:
    """Return if a lock would stay with this connection; asked first, for one taken in vain would be left behind.

    A pooler makes up the process id that it gives a client at start. Where it differs from the server's, a second
    client that keeps a transaction open shows whether sessions change hands between transactions.
    """
    announced_pid = cast("psycopg.Connection", connection.connection.dbapi_connection).pgconn.backend_pid
    session_pid = _backend_pid(connection)
    if announced_pid == session_pid:
        return
    with connection.engine.connect() as other:
        other.scalar(text("SELECT 1"))
        moved = _backend_pid(connection) != session_pid
    if moved:
        raise MigrationFailed(
            "A pooler in transaction mode stands between this migration and the server, and the lock that keeps "
            "migrations apart does not pass through it. Connect to the server itself, or to a pool in session mode."
        )


def _backend_pid(connection: Connection) -> int:
    pid: int = connection.scalars(text("SELECT pg_backend_pid()")).one()
    connection.rollback()
    return pid
