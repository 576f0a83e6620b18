"""Find the package's tables in other schemas than the current one, so a command does not take them for missing."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from syntegra_db.catalog._manifest import written_manifests
from syntegra_db.errors import TablesInOtherSchema
from syntegra_db.revisions import require_known_revision
from syntegra_db.search_path import catalog_query, read_session, search_path_fix
from syntegra_db.settings import describe_database
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from sqlalchemy import Connection

TABLES_BY_SCHEMA = catalog_query("""
    SELECT nspname::text, relname::text, array_agg(attname::text)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE (relkind = 'r' OR relkind = 'p') AND relname = ANY (:tables) AND attnum > 0 AND NOT attisdropped
      AND relpersistence <> 't' AND has_schema_privilege(pg_namespace.oid, 'USAGE')
    GROUP BY nspname, relname
    ORDER BY nspname
""")
SCHEMA_PRIVILEGES = catalog_query("""
    SELECT nspname::text, has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = ANY (:names)
""")


def schemas_with_tables(connection: Connection) -> list[str]:
    """Return the schemas with tables of this package that the role may use: first those on the search_path.

    Another application can have a table of the same name, so a table counts if it has half of the declared columns.
    """
    declared = {name: table for manifest in written_manifests().values() for name, table in manifest.tables.items()}
    rows = connection.execute(TABLES_BY_SCHEMA, {"tables": list(declared)})
    found = {
        row[0]
        for row in rows
        if 2 * len(declared[row[1]].columns.keys() & set(row[2])) >= len(declared[row[1]].columns)
    }
    path = read_session(connection).path_schemas()
    return sorted(found, key=lambda name: (path.index(name) if name in path else len(path), name))


def later_schemas_with_tables(connection: Connection) -> list[str]:
    """Return the schemas with tables of this package that follow on the search_path, where no command reads them."""
    session = read_session(connection)
    if session.is_named:
        return []
    path = session.path_schemas()
    return [name for name in schemas_with_tables(connection) if name in path and name != session.schema]


def require_no_tables_elsewhere(connection: Connection) -> None:
    """Raise an error if the current schema has no table of this package, and another one has: call it at no revision.

    A schema that the caller named passes.

    Raises:
        TablesInOtherSchema: the message names the schema, and how to use it or to create a second set of tables.
    """
    session = read_session(connection)
    schemas = schemas_with_tables(connection)
    if session.is_named or not schemas or session.schema in schemas:
        return
    leads_to = f"leads to schema {quote(session.schema)}" if session.schema else "leads to no existing schema"
    fix = search_path_fix(session, schemas[0], *session.path_items())
    fix = fix.removeprefix("-- ") if fix.startswith("-- ") else f"To use them, run: {fix}"
    second = (
        f" For a second set of tables: syntegra-db upgrade --schema {shlex.quote(session.schema)}"
        if session.schema
        else ""
    )
    raise TablesInOtherSchema(
        f"The tables of this package in the {describe_database(connection.engine.url)} are in schema "
        f"{' and '.join(map(quote, schemas))}, but the search_path {leads_to}; nothing was changed. {fix}{second}"
    )


def require_usable_revision(connection: Connection, revision: str | None) -> None:
    """Raise an error unless commands can work at `revision`, which the current schema of `connection` is at.

    Raises:
        DatabaseAhead, RevisionError: see `require_known_revision`.
        TablesInOtherSchema: it is None, and see `require_no_tables_elsewhere`.
    """
    require_known_revision(revision, read_session(connection).schema)
    if revision is None:
        require_no_tables_elsewhere(connection)


def describe_missing_schema(connection: Connection) -> str | None:
    """Return why the session has no schema, and the statement that gives it one; None if it has one."""
    session = read_session(connection)
    if session.schema is not None and not session.is_named:
        return None
    names = list(dict.fromkeys([session.schema] if session.schema else session.path_schemas()))
    is_usable: dict[str, bool] = {row[0]: row[1] for row in connection.execute(SCHEMA_PRIVILEGES, {"names": names})}
    if session.schema and is_usable.get(session.schema):
        return None
    role, place = quote(session.role), "" if session.schema else f" of the search_path ({session.search_path})"
    if unusable := [quote(name) for name in names if name in is_usable]:
        return (
            f"Role {role} may not use schema {' or '.join(unusable)}{place}. Ask its owner to run: GRANT USAGE ON "
            f"SCHEMA {unusable[0]} TO {role};"
        )
    if not names:
        return f"The search_path is empty. Set it: {search_path_fix(session, 'public')}"
    schema = f"schema {quote(names[0])}" if session.schema else "schema"
    return f"No {schema}{place} exists. Create it: CREATE SCHEMA {quote(names[0])};"
