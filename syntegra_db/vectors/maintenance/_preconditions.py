"""What a rebuild of the vector index needs of the role and of pgvector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from syntegra_db.errors import MigrationFailed, RebuildFailed
from syntegra_db.migrations._lock import acquire_session_lock, current_schema, find_lock_holder, lock_key
from syntegra_db.pgvector_support import HALFVEC_PGVECTOR, HNSW_PGVECTOR, VECTOR_INDEX, parse_version

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syntegra_db.vectors.maintenance._resources import IndexSpec

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
    return parse_version(rights["extension_version"])


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
    """Return whether a rebuild of the vector index is running."""
    return find_lock_holder(connection, _rebuild_lock_key(connection)) is not None


def acquire_rebuild_lock(connection: Connection) -> None:
    """Acquire, for the session of `connection`, the lock that allows one rebuild of a database at a time.

    Raises:
        RebuildFailed: another rebuild is running, or connected through a transaction-mode pooler.
    """
    key = _rebuild_lock_key(connection)
    connection.rollback()
    try:
        acquire_session_lock(connection, key, REBUILD_LOCK_TIMEOUT_SECONDS, holder_task="rebuild of the vector index")
    except MigrationFailed as error:
        raise RebuildFailed(str(error)) from None


def _rebuild_lock_key(connection: Connection) -> int:
    return lock_key(VECTOR_INDEX, current_schema(connection))
