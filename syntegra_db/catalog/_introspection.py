"""What a server really holds, read from the system catalogs."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import OperationalError

from syntegra_db.catalog import _queries
from syntegra_db.catalog._schema import Column, Schema, Table
from syntegra_db.errors import LockTimeout, SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy import Connection, RowMapping, TextClause

LOCK_TIMEOUT_MILLISECONDS = 500


@dataclass(frozen=True)
class Extension:
    """The extension `vector` and the schema it is in; `search_path` is the session's where that schema is not on it."""

    version: str
    schema: str
    search_path: str | None


@dataclass(frozen=True)
class Privileges:
    """What the role of the session may not do: privileges by table, and the sequences that it may not use."""

    role: str
    missing: dict[str, tuple[str, ...]]
    unusable_sequences: frozenset[str]


@dataclass(frozen=True)
class LiveCatalog:
    """The shape, which is the same wherever the same revision stands, and what differs from server to server."""

    schema: Schema
    extension: Extension | None
    privileges: Privileges


def introspect(connection: Connection, tables: Collection[str], types: Collection[str] = ()) -> LiveCatalog:
    """Return what the current schema holds of `tables`, of the ENUM types they use and of the ENUM types `types`.

    Reads system catalogs only, in eleven short statements. It works in a savepoint of the connection's transaction,
    which it begins if need be, and rolls back to it: no setting of the session is changed, and no lock is kept.
    The connection must not be in AUTOCOMMIT, where there is no savepoint.

    Raises:
        SettingsError: see `require_current_schema`.
        LockNotObtained: another session keeps one of the tables under ACCESS EXCLUSIVE.
    """
    require_current_schema(connection)
    with _rolled_back(connection):
        here = _fetch_all(connection, _queries.SESSION_CONTEXT, lock_timeout=f"{LOCK_TIMEOUT_MILLISECONDS}ms")[0]
        tables_found = _fetch_all(connection, _queries.TABLES, schema=here["schema"], names=list(tables))
        oids = [row["oid"] for row in tables_found]
        labels = _fetch_all(connection, _queries.TYPES, schema=here["schema"], names=list(types), tables=oids)
        sequences = _fetch_all(connection, _queries.SEQUENCES, tables=oids)
        parts = {
            "columns": _fetch_all(connection, _queries.COLUMNS, tables=oids),
            "constraints": _fetch_all(connection, _queries.CONSTRAINTS, tables=oids),
            "indexes": _fetch_all(connection, _queries.INDEXES, tables=oids),
            "attachments": _fetch_all(connection, _queries.TRIGGERS_RULES_POLICIES, tables=oids),
            "sequences": sequences,
        }
    return LiveCatalog(
        schema=Schema(
            types={row["name"]: tuple(row["labels"]) for row in labels},
            tables={row["name"]: _table(row, parts) for row in tables_found},
        ),
        extension=_extension(here),
        privileges=Privileges(
            role=here["role"],
            missing={row["name"]: tuple(row["lacking"]) for row in tables_found},
            unusable_sequences=frozenset(row["name"] for row in sequences if not row["usable"]),
        ),
    )


def require_current_schema(connection: Connection) -> None:
    """Return if there is a current schema, where the tables stand.

    Raises:
        SettingsError: no schema of the search_path exists that the role may use.
    """
    here = _fetch_all(connection, _queries.SCHEMA)[0]
    if here["schema"] is None:
        raise SettingsError(
            f"No schema of the search_path ({here['search_path']}) exists that role {here['role']} may use. Correct "
            f"the path, or let the owner of the schema run: GRANT USAGE ON SCHEMA … TO {here['role']};"
        )


def existing_tables(connection: Connection, kinds: str = "rp") -> list[str]:
    """Return the relations of the current schema whose `pg_class.relkind` is in `kinds`, sorted by name."""
    return list(connection.scalars(_queries.EXISTING_TABLES, {"kinds": list(kinds)}))


@contextmanager
def _rolled_back(connection: Connection) -> Iterator[None]:
    """Undo whatever is set inside, and say in a sentence what keeps a table from being read."""
    savepoint = connection.begin_nested()
    try:
        yield
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        raise LockTimeout(
            "Another session keeps one of the tables under an ACCESS EXCLUSIVE lock, as a migration does, so that its "
            "definition cannot be read; nothing was changed. Wait for it to end and run this again."
        ) from None
    finally:
        savepoint.rollback()


def _fetch_all(connection: Connection, query: TextClause, **parameters: object) -> Sequence[RowMapping]:
    return connection.execute(query, parameters).mappings().all()


def _extension(here: RowMapping) -> Extension | None:
    if here["version"] is None:
        return None
    return Extension(version=here["version"], schema=here["home"], search_path=here["search_path"])


def _table(row: RowMapping, parts: dict[str, Sequence[RowMapping]]) -> Table:
    own = {kind: [part for part in rows if part["table_oid"] == row["oid"]] for kind, rows in parts.items()}
    return Table(
        kind=row["kind"],
        persistence=row["persistence"],
        row_security=row["row_security"],
        parents=tuple(row["parents"]),
        children=tuple(row["children"]),
        comment=row["comment"],
        columns={part["name"]: _column(part) for part in own["columns"]},
        constraints=_definitions(own["constraints"]),
        indexes=_definitions(own["indexes"]),
        sequences=_definitions(own["sequences"]),
        attached_objects={f"{part['kind']} {part['name']}": part["definition"] for part in own["attachments"]},
    )


def _column(part: RowMapping) -> Column:
    attributes: dict[str, Any] = {name: part[name] for name in Column.__dataclass_fields__}
    return Column(**attributes)


def _definitions(parts: Sequence[RowMapping]) -> dict[str, str]:
    return {part["name"]: part["definition"] for part in parts}
