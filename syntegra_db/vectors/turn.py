"""One rebuild of the vector index of a database at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import text

from syntegra_db.errors import LockTimeout, MigrationFailed, RebuildFailed
from syntegra_db.migrations import lock
from syntegra_db.vectors.index import VECTOR_INDEX

if TYPE_CHECKING:
    from sqlalchemy import Connection

# The server notices within a second or so that the client of an interrupted rebuild is gone.
TURN_PATIENCE_SECONDS = 10


def is_rebuilding(connection: Connection) -> bool:
    """Tell whether a rebuild of the vector index is going on."""
    return connection.execute(lock.HOLDER, {"key": _key(connection)}).first() is not None


def take_turn(connection: Connection) -> None:
    """Take the lock that one rebuild of a database holds, as long as its session lasts.

    Raises:
        RebuildFailed: another one is running, or a pooler in transaction mode stands in between.
    """
    key = _key(connection)
    connection.rollback()
    deadline = time.monotonic() + TURN_PATIENCE_SECONDS
    while True:
        try:
            lock.acquire(connection, key, 0)
        except LockTimeout:
            if time.monotonic() < deadline:
                time.sleep(lock.POLL_SECONDS)
                continue
            holder = connection.execute(lock.HOLDER, {"key": key}).first()
            who = f" (pid {holder[0]}, connected since {holder[2]})" if holder else ""
            raise RebuildFailed(
                f"Another rebuild of the vector index is running{who}, and nothing was changed. Wait for it, or end it "
                "with SELECT pg_terminate_backend(pid), and run this again."
            ) from None
        except MigrationFailed:
            raise RebuildFailed(
                "A pooler in transaction mode stands between this rebuild and the server, and a build of hours does "
                "not pass through it. Connect to the server itself, or to a pool in session mode."
            ) from None
        return


def _key(connection: Connection) -> int:
    return lock.lock_key(VECTOR_INDEX, connection.scalars(text("SELECT current_schema()")).one() or "")
