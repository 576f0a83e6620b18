"""What a rebuild of the vector index needs of the role and of pgvector."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import text

from syntegra_db.errors import LockTimeout, MigrationFailed, RebuildFailed
from syntegra_db.migrations import _lock
from syntegra_db.vectors._index import VECTOR_INDEX

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syntegra_db.vectors.maintenance._resources import IndexSpec

HALFVEC_PGVECTOR = (0, 7)
HNSW_PGVECTOR = (0, 5)
TABLE_PRIVILEGES = text(
    """
    SELECT pg_has_role(relowner, 'USAGE') AS owns, pg_get_userbyid(relowner) AS owner,
           relnamespace::regnamespace::text AS schema, has_schema_privilege(relnamespace, 'CREATE') AS may_create,
           (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS extension_version
    FROM pg_class WHERE oid = to_regclass('text_summary')
    """
)


def require_ownership(connection: Connection) -> tuple[int, ...]:
    """Return the version of pgvector if the role may rebuild an index of text_summary.

    Raises:
        RebuildFailed: it does not own the table, or may make nothing in its schema.
    """
    rights = connection.execute(TABLE_PRIVILEGES).mappings().one()
    role = connection.scalars(text("SELECT current_user")).one()
    if not rights["owns"]:
        raise RebuildFailed(
            f"Only the owner of text_summary, {rights['owner']}, may rebuild its index, and this is {role}; nothing "
            "was changed. Connect as the owner."
        )
    if not rights["may_create"]:
        raise RebuildFailed(
            f"{role} may not create an index in schema {rights['schema']}, and nothing was built. Let its owner run: "
            f"GRANT CREATE ON SCHEMA {rights['schema']} TO {role};"
        )
    return tuple(map(int, rights["extension_version"].split(".")[:2]))


def require_pgvector(version: tuple[int, ...], kind: IndexSpec) -> None:
    """Return if this pgvector can build `kind`.

    Raises:
        RebuildFailed: it is too old.
    """
    needed = max(HALFVEC_PGVECTOR if kind.is_half else (0, 0), HNSW_PGVECTOR if kind.method == "hnsw" else (0, 0))
    if version < needed:
        raise RebuildFailed(
            f"An {kind} needs pgvector {'.'.join(map(str, needed))} or newer, the database has "
            f"{'.'.join(map(str, version))}, and nothing was built. Let an administrator install a newer one and run "
            "ALTER EXTENSION vector UPDATE; or build another kind."
        )


# The server notices within a second or so that the client of an interrupted rebuild is gone.
REBUILD_LOCK_TIMEOUT_SECONDS = 10


def is_rebuilding(connection: Connection) -> bool:
    """Tell whether a rebuild of the vector index is going on."""
    return connection.execute(_lock.LOCK_HOLDER, {"key": _key(connection)}).first() is not None


def acquire_rebuild_lock(connection: Connection) -> None:
    """Take the lock that one rebuild of a database holds, as long as its session lasts.

    Raises:
        RebuildFailed: another one is running, or a pooler in transaction mode stands in between.
    """
    key = _key(connection)
    connection.rollback()
    deadline = time.monotonic() + REBUILD_LOCK_TIMEOUT_SECONDS
    while True:
        try:
            _lock.acquire_migration_lock(connection, key, 0)
        except LockTimeout:
            if time.monotonic() < deadline:
                time.sleep(_lock.POLL_SECONDS)
                continue
            holder = connection.execute(_lock.LOCK_HOLDER, {"key": key}).first()
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
    return _lock.lock_key(VECTOR_INDEX, connection.scalars(text("SELECT current_schema()")).one() or "")
