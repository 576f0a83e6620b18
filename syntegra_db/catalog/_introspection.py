"""Read the installed schema from the system catalogs."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import OperationalError

from syntegra_db.catalog import _queries
from syntegra_db.catalog._other_schemas import describe_missing_schema, require_no_tables_elsewhere
from syntegra_db.catalog._protection import Protection, read_protection, without_protection
from syntegra_db.catalog._rejections import find_rejections
from syntegra_db.catalog._schema import Column, Reference, Schema, Table
from syntegra_db.errors import LockTimeout, SettingsError
from syntegra_db.search_path import SETTINGS, format_search_path, read_session, search_path_fix, set_statements
from syntegra_db.sql import execute_raw, quote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy import Connection, RowMapping, TextClause

    from syntegra_db.search_path import Session

LOCK_TIMEOUT_MILLISECONDS = 500
COLUMN_FIELDS = tuple(Column.__dataclass_fields__)
PART_QUERIES = {
    "columns": _queries.COLUMNS,
    "constraints": _queries.CONSTRAINTS,
    "indexes": _queries.INDEXES,
    "sequences": _queries.SEQUENCES,
    "attached_objects": _queries.TRIGGERS_RULES_POLICIES,
}


@dataclass(frozen=True)
class Extension:
    """The extension `vector`; `search_path_fix` adds its schema to the search_path, and is None if it is there."""

    version: str
    schema: str
    search_path_fix: str | None


@dataclass(frozen=True)
class Privileges:
    """The privileges that the session's role is missing: by table, and the sequences that it cannot use.

    `creators` are the other roles, quoted, that may create objects in the schema, such as PUBLIC. `owners` are the
    owners of the tables. Row-level security can hide rows of `hidden` tables from the role.
    """

    role: str
    creators: tuple[str, ...]
    missing: dict[str, tuple[str, ...]]
    unusable_sequences: frozenset[str]
    owners: dict[str, str]
    hidden: frozenset[str]


@dataclass(frozen=True)
class LiveCatalog:
    """The installed schema, equal on all servers at one revision, and what differs between servers.

    The schema has none of the policies of `syntegra-db tenancy`, which are in `protection`.
    """

    schema_name: str
    schema: Schema
    extension: Extension | None
    privileges: Privileges
    protection: Protection | None


def introspect(connection: Connection, tables: Collection[str], types: Collection[str] = ()) -> LiveCatalog:
    """Return the `tables`, the ENUM types that they use, and the ENUM `types` that exist in the current schema.

    Reads system catalogs only, in a savepoint that is rolled back: it changes no setting of the session and keeps no
    lock. The connection must not be in AUTOCOMMIT, which has no savepoints.

    Raises:
        SettingsError: see `require_current_schema`.
        LockTimeout: see `short_lock_timeout`.
    """
    session = require_current_schema(connection)
    with short_lock_timeout(connection):
        path = format_search_path(session.schema, session.extension_schema)
        execute_raw(connection, set_statements({**SETTINGS, "search_path": path}, is_local=True))
        names = {"schema": session.schema, "names": list(tables)}
        role_and_extension = _fetch_all(connection, _queries.ROLE_AND_EXTENSION, **names)[0]
        installed = _fetch_all(connection, _queries.TABLES, **names)
        oids = [row["oid"] for row in installed]
        labels = _fetch_all(connection, _queries.TYPES, schema=session.schema, names=list(types), tables=oids)
        parts = {kind: _fetch_all(connection, query, tables=oids) for kind, query in PART_QUERIES.items()}
        found = {row["name"]: _table(row, parts) for row in installed}
        rejections = find_rejections(connection, found, {row["name"]: row["oid"] for row in installed})
    # With the search_path of the session, from which the schema is read.
    with short_lock_timeout(connection):
        protection = read_protection(connection, found)
    return LiveCatalog(
        schema_name=session.schema or "",
        schema=Schema(
            types={row["name"]: tuple(row["labels"]) for row in labels},
            tables={
                name: replace(table, rejections=rejections[name])
                for name, table in without_protection(found, protection).items()
            },
        ),
        extension=_extension(role_and_extension, session),
        privileges=Privileges(
            role=role_and_extension["role"],
            creators=tuple(quote(name) if name else "PUBLIC" for name in role_and_extension["creators"]),
            missing={row["name"]: tuple(row["missing"]) for row in installed},
            unusable_sequences=frozenset(row["name"] for row in parts["sequences"] if not row["usable"]),
            owners={row["name"]: row["owner"] for row in installed},
            hidden=frozenset(row["name"] for row in installed if row["hides_rows"]),
        ),
        protection=protection,
    )


def require_current_schema(connection: Connection) -> Session:
    """Return the session, whose search_path has a schema that the role may use.

    Raises:
        SettingsError: it has none; the message says which statement changes that.
        TablesInOtherSchema: see `require_no_tables_elsewhere`.
    """
    if reason := describe_missing_schema(connection):
        require_no_tables_elsewhere(connection)
        raise SettingsError(reason)
    return read_session(connection)


def existing_tables(connection: Connection, kinds: str = "rp") -> list[str]:
    """Return the relations of the current schema whose `pg_class.relkind` is in `kinds`, sorted by name."""
    parameters = {"schema": read_session(connection).schema, "kinds": list(kinds)}
    return list(connection.scalars(_queries.EXISTING_TABLES, parameters))


@contextmanager
def short_lock_timeout(connection: Connection) -> Iterator[None]:
    """Wait at most 0.5 s for a lock inside the block, and roll back to its start at the end.

    Raises:
        LockTimeout: another session holds an ACCESS EXCLUSIVE lock on a table that the block reads.
    """
    savepoint = connection.begin_nested()
    try:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_MILLISECONDS}ms'")
        yield
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        raise LockTimeout(
            "Another session, such as a migration, holds an ACCESS EXCLUSIVE lock on one of the tables, so the system "
            "catalogs cannot be read; nothing was changed. Wait until it ends, then run this again."
        ) from None
    finally:
        savepoint.rollback()


def _fetch_all(connection: Connection, query: TextClause, **parameters: object) -> Sequence[RowMapping]:
    return connection.execute(query, parameters).mappings().all()


def _extension(row: RowMapping, session: Session) -> Extension | None:
    if row["version"] is None:
        return None
    schema = row["extension_schema"]
    fix = None if schema in session.schemas else search_path_fix(session, *session.path_items(), schema)
    return Extension(row["version"], quote(schema), fix)


def _table(row: RowMapping, parts: dict[str, Sequence[RowMapping]]) -> Table:
    own = {kind: [part for part in rows if part["table_oid"] == row["oid"]] for kind, rows in parts.items()}
    return Table(
        kind=row["kind"],
        persistence=row["persistence"],
        row_security=row["row_security"],
        parents=tuple(row["parents"]),
        children=tuple(row["children"]),
        partition_key=row["partition_key"],
        comment=row["comment"],
        columns={part["name"]: Column(**{name: part[name] for name in COLUMN_FIELDS}) for part in own["columns"]},
        constraints=_definitions(own["constraints"]),
        indexes=_definitions(own["indexes"]),
        sequences=_definitions(own["sequences"]),
        attached_objects={f"{part['kind']} {part['name']}": part["definition"] for part in own["attached_objects"]},
        references={
            part["definition"]: Reference(tuple(part["columns"]), part["target"], part["on_delete"])
            for part in own["constraints"]
            if part["target"]
        },
    )


def _definitions(parts: Sequence[RowMapping]) -> dict[str, str]:
    return {part["name"]: part["definition"] for part in parts}
