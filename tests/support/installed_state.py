"""The schema of a database with the privileges, to compare it before and after a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.pg_dump import dump

if TYPE_CHECKING:
    from support.servers import Database

# An access list that only has what PostgreSQL gives the owner and PUBLIC means the same as none.
ACCESS_LISTS = """
    SELECT kind, name, ARRAY(SELECT unnest(privileges)::text ORDER BY 1) FROM (
    SELECT 'class', relname::text,
      coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner))
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S', 'p')
    UNION ALL SELECT attrelid::regclass::text, attname::text, attacl FROM pg_attribute WHERE attacl IS NOT NULL
      AND attrelid::regclass::text NOT LIKE 'pg_%'
    UNION ALL SELECT 'schema', nspname::text, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace
    WHERE nspname !~ '^pg_(toast_)?temp_'
    UNION ALL SELECT 'database', datname::text, coalesce(datacl, acldefault('d', datdba))
    FROM pg_database WHERE datname = current_database()
    ) AS lists (kind, name, privileges) ORDER BY 1, 2
"""


def state_of(database: Database) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the lines of pg_dump without rows, and the access lists; the order of grants has no meaning."""
    return sorted(dump(database, "--schema-only").splitlines()), database.query(ACCESS_LISTS)
