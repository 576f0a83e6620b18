"""Find the package's tables in other schemas than the current one, so a command does not take them for missing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from syntegra_db.catalog._manifest import written_manifests
from syntegra_db.compatibility import supports_package
from syntegra_db.errors import TablesInOtherSchema
from syntegra_db.revisions import IS_UNCHANGED, VERSION_TABLE, describe_revision, require_known_revision
from syntegra_db.search_path import read_session, require_schema_name, search_path_fix
from syntegra_db.settings import describe_database
from syntegra_db.sql import (
    SYSTEM_SCHEMA,
    catalog_query,
    execute_raw,
    is_system_schema,
    lock_for_reading,
    qualify,
    qualify_calls,
    quote,
)
from syntegra_db.wording import shell_quote

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syntegra_db.search_path import Session

# Another application can have a table of the same name, so a table counts if it has half of the declared columns. A
# revision counts only as built-in text: a cast of another type runs its owner's code.
SCHEMAS_WITH_TABLES = """
    SELECT nspname AS schema, has_schema_privilege(pg_namespace.oid, 'USAGE') AS is_usable,
      has_schema_privilege(pg_namespace.oid, 'USAGE') AND EXISTS (
        SELECT FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace = pg_namespace.oid AND relname = 'alembic_version' AND relkind = 'r'
          AND attname = 'version_num' AND attgenerated::text = ''
          AND (atttypid = 'pg_catalog.varchar'::regtype OR atttypid = 'pg_catalog.text'::regtype)
          AND has_table_privilege(attrelid, 'SELECT') AND NOT row_security_active(attrelid)
          AND {is_unchanged}
      ) AS has_revision,
      (SELECT min(rolname::text) FROM pg_roles
       WHERE (pg_roles.oid = nspowner OR pg_roles.oid = ANY (array_agg(relowner))) AND NOT rolsuper
         AND rolname <> current_user AND rolname <> 'pg_database_owner'
         AND NOT EXISTS (SELECT FROM pg_database WHERE datname = current_database() AND datdba = pg_roles.oid)
      ) AS owner
    FROM pg_namespace JOIN pg_class AS installed ON relnamespace = pg_namespace.oid
      JOIN json_each({declared}) AS declared ON relname = key
    WHERE (relkind = 'r' OR relkind = 'p') AND relpersistence <> 't'
      AND NOT nspname ~ '{system_schema}' AND nspname <> '$user' AND json_array_length(value) / 2 <= (
        SELECT count(*) FROM json_array_elements_text(value) AS name JOIN pg_attribute ON attname = name
        WHERE attrelid = installed.oid
      )
    GROUP BY nspname, pg_namespace.oid, nspowner
"""
"""The query for the schemas that have tables of this package, also for the SQL files."""
SELECT_REVISION = "SELECT max(substring(version_num, '^[0-9][0-9][0-9]$')) FROM ONLY {table}"
"""The statement that reads a revision of this package from the version table `{table}`, also for the SQL files."""
TABLES_BY_SCHEMA = catalog_query(
    SCHEMAS_WITH_TABLES.format(
        declared="CAST(:declared AS pg_catalog.json)", system_schema=SYSTEM_SCHEMA, is_unchanged=IS_UNCHANGED
    )
)
SCHEMA_PRIVILEGES = catalog_query("""
    SELECT nspname::text, has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = ANY (:names)
""")


class SchemaWithTables(NamedTuple):
    """A schema with tables of this package.

    `has_revision` means that the role can read the revision there. `owner` is the role that owns the schema or one of
    the tables, or None if it is this role, a superuser or the owner of the database.
    """

    name: str
    is_usable: bool
    has_revision: bool
    owner: str | None


def declared_columns() -> str:
    """Return the columns of each table in the first manifest that has it, as JSON with one line per table.

    With those of the newest, sets at earlier revisions would count less, and files of released revisions would change.
    """
    columns: dict[str, list[str]] = {}
    for manifest in written_manifests().values():
        for name, table in manifest.tables.items():
            columns.setdefault(name, [*table.columns])
    return json.dumps(columns).replace("], ", "],\n        ")


def schemas_with_tables(connection: Connection) -> list[SchemaWithTables]:
    """Return the schemas with tables of this package; first are those on the search_path."""
    path = read_session(connection).path_schemas()
    rows = connection.execute(TABLES_BY_SCHEMA, {"declared": declared_columns()})
    schemas = [SchemaWithTables(*row) for row in rows]
    return sorted(
        schemas, key=lambda schema: (path.index(schema.name) if schema.name in path else len(path), schema.name)
    )


def later_schemas_with_tables(connection: Connection) -> list[str]:
    """Return the schemas with tables of this package that follow on the search_path, where no command reads them."""
    session = read_session(connection)
    if session.is_named:
        return []
    path = session.path_schemas()
    names = [schema.name for schema in schemas_with_tables(connection) if schema.is_usable]
    return [name for name in names if name in path and name != session.schema]


def require_no_tables_elsewhere(connection: Connection) -> None:
    """Raise an error if the current schema has no table of this package, and another one has: call it at no revision.

    A schema that the caller named passes. One that the role may not use counts too: it hides its tables.

    Raises:
        TablesInOtherSchema: the message names the schema, and how to use it or to create a second set of tables.
    """
    session = read_session(connection)
    schemas = [schema for schema in schemas_with_tables(connection) if schema.is_usable or session.schema]
    if session.is_named or not schemas or session.schema in {schema.name for schema in schemas}:
        return
    revisions = _read_revisions(connection, schemas)
    target, second = "no existing schema", ""
    if session.schema and is_system_schema(session.schema):
        target = "one of PostgreSQL itself"
    elif session.schema:
        target = f"schema {quote(session.schema)}"
        second = f" For a second set of tables: syntegra-db upgrade --schema {shell_quote(session.schema)}"
    first = revisions[0][0]
    fix = _path_fix(session, first.name)
    fix = fix.removeprefix("-- ") if fix.startswith("-- ") else f"To use them, run: {fix}"
    if not first.is_usable:
        fix = (
            f"Role {quote(session.role)} may not use that schema. To use it, ask its owner to run: GRANT USAGE ON "
            f"SCHEMA {quote(first.name)} TO {quote(session.role)};"
        )
    raise TablesInOtherSchema(
        f"The tables of this package in the {describe_database(connection.engine.url)} are in schema "
        f"{' and '.join(_describe_set(*item, is_only=len(schemas) == 1) for item in revisions)}, but the search_path "
        f"leads to {target}; nothing was changed. {fix}{second}"
    )


def _describe_set(schema: SchemaWithTables, revision: str | None, *, is_only: bool) -> str:
    notes = [] if is_only or revision is None else [describe_revision(revision)]
    if schema.owner is not None:
        notes.append(f"of role {quote(schema.owner)}")
    return f"{quote(schema.name)} ({', '.join(notes)})" if notes else quote(schema.name)


def _read_revisions(
    connection: Connection, schemas: list[SchemaWithTables]
) -> list[tuple[SchemaWithTables, str | None]]:
    """Return `schemas` with their revisions, the newest first, and last those that the role may not use."""
    query = qualify_calls(SELECT_REVISION)
    locked = {schema.name for schema in schemas if schema.has_revision}
    for name in sorted(locked):
        lock_for_reading(connection, qualify(name, VERSION_TABLE))
    # One may have been replaced before its lock was granted.
    readable = locked & {schema.name for schema in schemas_with_tables(connection) if schema.has_revision}
    revisions = [
        (
            schema,
            execute_raw(connection, query.format(table=qualify(schema.name, VERSION_TABLE))).scalar()
            if schema.name in readable
            else None,
        )
        for schema in schemas
    ]
    return sorted(revisions, key=lambda item: (item[0].is_usable, item[1] or ""), reverse=True)


def _path_fix(session: Session, *first: str) -> str:
    """Return `search_path_fix` for `first` and the present path without PostgreSQL's own schemas."""
    names = [*first, *(name for name in session.path_items() if not is_system_schema(name))]
    return search_path_fix(session, *(names or ["public"]))


def require_usable_revision(connection: Connection, revision: str | None) -> None:
    """Raise an error unless commands can work at `revision`, which the current schema of `connection` is at.

    Raises:
        DatabaseAhead, RevisionError: see `require_known_revision`.
        TablesInOtherSchema: it is None, and see `require_no_tables_elsewhere`.
    """
    is_supported = supports_package(connection, revision)
    require_known_revision(revision, read_session(connection).schema, is_supported=is_supported)
    if revision is None:
        require_no_tables_elsewhere(connection)


def describe_missing_schema(connection: Connection) -> str | None:
    """Return why no tables can be in the session's schema, and the statement that changes it; None if they can.

    Raises:
        SettingsError: see `require_schema_name`.
    """
    session = read_session(connection)
    path = f"search_path ({session.search_path})"
    if session.schema and is_system_schema(session.schema):
        if session.is_named:
            require_schema_name(session.schema)
        return (
            f"The {path} leads to a schema of PostgreSQL itself, where no tables can be created. Set another one: "
            f"{_path_fix(session).removeprefix('-- ')}"
        )
    if session.schema is not None and not session.is_named:
        return None
    candidates = [session.schema] if session.schema else session.path_schemas()
    names = [name for name in dict.fromkeys(candidates) if not is_system_schema(name)]
    is_usable: dict[str, bool] = {row[0]: row[1] for row in connection.execute(SCHEMA_PRIVILEGES, {"names": names})}
    if session.schema and is_usable.get(session.schema):
        return None
    role, place = quote(session.role), "" if session.schema else f" of the {path}"
    if unusable := [quote(name) for name in names if name in is_usable]:
        return (
            f"Role {role} may not use schema {' or '.join(unusable)}{place}. Ask its owner to run: GRANT USAGE ON "
            f"SCHEMA {unusable[0]} TO {role};"
        )
    if not names:
        return f"No schema{place} exists. Set another one: {_path_fix(session).removeprefix('-- ')}"
    schema = f"schema {quote(names[0])}" if session.schema else "schema"
    return f"No {schema}{place} exists. Create it: CREATE SCHEMA {quote(names[0])};"
