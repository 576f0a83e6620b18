"""Require that no function, operator or type of another role could run in a migration, whose statements name no schema.

A superuser and the migrating role itself are trusted, as in `trusted_tables`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.errors import UntrustedObject
from syntegra_db.sql import execute_raw, literal, quote

if TYPE_CHECKING:
    from sqlalchemy import Connection

# With the names of what PostgreSQL or the extension has; it runs with the search_path `pg_catalog, pg_temp`.
UNTRUSTED_OBJECTS = """
    WITH objects AS (
      SELECT 'ROUTINE' AS kind, 'function' AS label, oid, 'pg_proc'::regclass AS catalog, proname AS name,
             pronamespace AS namespace, proowner AS owner,
             format('(%s)', pg_get_function_identity_arguments(oid)) AS arguments
      FROM pg_proc
      UNION ALL
      SELECT 'OPERATOR', 'operator', oid, 'pg_operator'::regclass, oprname, oprnamespace, oprowner,
             format('(%s, %s)', CASE WHEN oprleft = 0 THEN 'NONE' ELSE format_type(oprleft, NULL) END,
                    format_type(oprright, NULL))
      FROM pg_operator
      UNION ALL
      SELECT 'TYPE', 'type', oid, 'pg_type'::regclass, typname, typnamespace, typowner, ''
      FROM pg_type WHERE typtype <> 'c' AND typcategory <> 'A'
    ), used AS (
      SELECT kind, name FROM objects WHERE namespace = 'pg_catalog'::regnamespace
      UNION
      SELECT kind, name FROM objects JOIN pg_depend ON classid = catalog AND objid = oid AND deptype = 'e'
      WHERE refclassid = 'pg_extension'::regclass
        AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'vector')
    )
    SELECT label, kind,
           format('%I.%s%s', nspname, CASE kind WHEN 'OPERATOR' THEN name ELSE quote_ident(name) END, arguments)
           AS identity,
           quote_ident(rolname) AS creator, quote_ident(current_user) AS role, quote_ident(nspname) AS schema
    FROM objects JOIN pg_namespace ON pg_namespace.oid = namespace JOIN pg_roles ON pg_roles.oid = owner
    WHERE nspname = ANY ({schemas}::name[]) AND NOT rolsuper AND rolname <> current_user
      AND (kind, name) IN (SELECT kind, name FROM used)
    ORDER BY 1, 3
"""


def require_trusted_objects(connection: Connection, schemas: list[str]) -> None:
    """Raise an error if `schemas` have such an object; the search_path must be `pg_catalog, pg_temp`.

    Raises:
        UntrustedObject: the message names the object and its owner, and says what to do.
    """
    found = execute_raw(
        connection, UNTRUSTED_OBJECTS.format(schemas=f"ARRAY[{', '.join(map(literal, schemas))}]")
    ).all()
    if found:
        label, kind, identity, *names = tuple(found[0])
        owner, role, schema = (quote(_unquote(name)) for name in names)
        name = f"{schema}.{identity.removeprefix(f'{names[-1]}.')}"
        more = f" (and {len(found) - 1:,} others)" if len(found) > 1 else ""
        raise UntrustedObject(
            f"The {label} {name}{more}, which {owner} created, could run as {role} during a migration; nothing was "
            f"changed. Run DROP {kind} {name}; or, if you trust it, ALTER {kind} {name} OWNER TO {role}; and then "
            f"REVOKE CREATE ON SCHEMA {schema} FROM {owner}, PUBLIC;"
        )


def _unquote(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
