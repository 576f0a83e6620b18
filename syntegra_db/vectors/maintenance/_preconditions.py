"""Preconditions of a rebuild: privileges, the version of pgvector, and no other rebuild."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from syntegra_db.errors import MigrationFailed, RebuildFailed
from syntegra_db.migrations import acquire_session_lock, current_schema, find_lock_holder, lock_key
from syntegra_db.pgvector_support import HALFVEC_PGVECTOR, HNSW_PGVECTOR, VECTOR_INDEX, parse_version
from syntegra_db.search_path import table_name
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syntegra_db.vectors.maintenance._resources import IndexSpec

# The server ends the build of a rebuild that was killed within about a second.
REBUILD_LOCK_TIMEOUT_SECONDS = 10
TABLE_PRIVILEGES = text(
    """
    SELECT pg_has_role(relowner, 'USAGE') AS owns, pg_get_userbyid(relowner) AS owner, current_user AS role,
           nspname AS schema, has_schema_privilege(relnamespace, 'CREATE') AS can_create
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = to_regclass(:table)
    """
)
PGVECTOR_VERSION = text("SELECT extversion FROM pg_extension WHERE extname = 'vector'")


def is_rebuilding(connection: Connection) -> bool:
    """Return whether a rebuild of the vector index is running."""
    return find_lock_holder(connection, _rebuild_lock_key(connection)) is not None


def acquire_rebuild_lock(connection: Connection) -> None:
    """Acquire the lock that allows one rebuild per database at a time, until the session of `connection` ends.

    Raises:
        RebuildFailed: another rebuild is running, or connected through a transaction-mode pooler.
    """
    key = _rebuild_lock_key(connection)
    connection.rollback()
    try:
        acquire_session_lock(connection, key, REBUILD_LOCK_TIMEOUT_SECONDS, holder_task="rebuild of the vector index")
    except MigrationFailed as error:
        raise RebuildFailed(str(error)) from None


def require_ownership(connection: Connection, name: str) -> None:
    """Raise `RebuildFailed` unless the role owns the table `name` and can create an index in its schema."""
    table = connection.execute(TABLE_PRIVILEGES, {"table": table_name(connection, name)}).mappings().one()
    if not table["owns"]:
        raise RebuildFailed(
            f"Role {quote(table['role'])} does not own {name}, so it cannot rebuild its index; nothing was "
            f"changed. Connect as the owner, {quote(table['owner'])}."
        )
    if not table["can_create"]:
        schema, role = quote(table["schema"]), quote(table["role"])
        raise RebuildFailed(
            f"Role {role} cannot create an index in schema {schema}; nothing was changed. Ask the owner of "
            f"the schema to run: GRANT CREATE ON SCHEMA {schema} TO {role};"
        )


def require_pgvector(connection: Connection, spec: IndexSpec) -> None:
    """Raise `RebuildFailed` unless the installed pgvector can build `spec`."""
    installed: str = connection.scalars(PGVECTOR_VERSION).one()
    required = max(HALFVEC_PGVECTOR if spec.is_half else (0, 0), HNSW_PGVECTOR if spec.method == "hnsw" else (0, 0))
    if parse_version(installed) < required:
        raise RebuildFailed(
            f"An {spec} needs pgvector {'.'.join(map(str, required))} or newer, but the database has {installed}; "
            "nothing was built. Ask an administrator to install a newer version and run ALTER EXTENSION vector "
            "UPDATE, or use another --method or --full."
        )


def _rebuild_lock_key(connection: Connection) -> int:
    # One lock for all embeddings: builds on one table wait for each other anyway, and a restore asks for one holder.
    return lock_key(VECTOR_INDEX, current_schema(connection))
