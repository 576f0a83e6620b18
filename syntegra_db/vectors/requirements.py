"""What a rebuild of the vector index needs of the role and of pgvector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from syntegra_db.errors import RebuildFailed

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syntegra_db.vectors.sizing import Kind

HALF_SINCE = (0, 7)
HNSW_SINCE = (0, 5)
RIGHTS = text(
    """
    SELECT pg_has_role(relowner, 'USAGE') AS owns, pg_get_userbyid(relowner) AS owner,
           relnamespace::regnamespace::text AS schema, has_schema_privilege(relnamespace, 'CREATE') AS may_create,
           (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS extension_version
    FROM pg_class WHERE oid = to_regclass('text_summary')
    """
)


def require_rights(connection: Connection) -> tuple[int, ...]:
    """Return the version of pgvector if the role may rebuild an index of text_summary.

    Raises:
        RebuildFailed: it does not own the table, or may make nothing in its schema.
    """
    rights = connection.execute(RIGHTS).mappings().one()
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


def require_version(version: tuple[int, ...], kind: Kind) -> None:
    """Return if this pgvector can build `kind`.

    Raises:
        RebuildFailed: it is too old.
    """
    needed = max(HALF_SINCE if kind.is_half else (0, 0), HNSW_SINCE if kind.method == "hnsw" else (0, 0))
    if version < needed:
        raise RebuildFailed(
            f"An {kind} needs pgvector {'.'.join(map(str, needed))} or newer, the database has "
            f"{'.'.join(map(str, version))}, and nothing was built. Let an administrator install a newer one and run "
            "ALTER EXTENSION vector UPDATE; or build another kind."
        )
