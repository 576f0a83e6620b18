"""Find the names of declared objects that a revision would take from another schema of its search_path.

A revision names no schema, and its search_path includes the schema of the extension `vector`. There, another set of
tables or another application can have objects of the same names, which a revision would drop, change or reference if
they are missing in the schema of the tables. CREATE always creates in that schema.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from syntegra_db.catalog._manifest import written_manifests
from syntegra_db.catalog._schema import Schema
from syntegra_db.errors import MigrationFailed
from syntegra_db.search_path import read_session
from syntegra_db.sql import RELATION_KIND, catalog_query, quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from syntegra_db.catalog._schema import Table

# Their indexes have the same names.
KEY_DEFINITION = re.compile(r"(PRIMARY KEY|UNIQUE|EXCLUDE)\b")
TRIGGER_FUNCTION = re.compile(r'EXECUTE FUNCTION (?:"((?:[^"]|"")+)"|(\w+))\(')
# A name in the session's temporary schema is found last, and a function there is not found.
NAMES_ELSEWHERE = """
    SELECT label, value AS name, (array_agg(kind ORDER BY is_temporary))[1] AS kind,
           (array_agg(nspname::text ORDER BY is_temporary))[1] AS schema, bool_and(is_temporary) AS is_temporary
    FROM json_each({declared}) WITH ORDINALITY AS labels (label, names, label_position)
      CROSS JOIN json_array_elements_text(names) WITH ORDINALITY AS declared (value, position)
      JOIN (
        SELECT 'relation' AS class, {relation_kind} AS kind, relname::text AS name, relnamespace AS namespace
        FROM pg_class
        UNION ALL
        SELECT 'type', CASE WHEN typrelid = 0 THEN 'type' ELSE {relation_kind} END, typname::text, typnamespace
        FROM pg_type LEFT JOIN pg_class ON pg_class.oid = typrelid
        UNION ALL
        SELECT 'function', 'function', proname::text, pronamespace FROM pg_proc
      ) AS installed ON class = CASE WHEN label IN ('type', 'function') THEN label ELSE 'relation' END AND name = value
      JOIN pg_namespace ON pg_namespace.oid = namespace
      CROSS JOIN LATERAL (SELECT namespace = pg_my_temp_schema() AS is_temporary) AS session
    WHERE nspname = ANY ({schemas}) OR is_temporary AND class <> 'function'
    GROUP BY label, label_position, value, position HAVING NOT bool_or(nspname = {schema})
    ORDER BY label_position, position LIMIT 1
"""
"""The query for a declared name that is found in another schema only, also for the SQL files."""
OBJECTS_ELSEWHERE = """
    SELECT pg_class.oid AS object, format('%I.%I', nspname, relname) AS name
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = ANY ({schemas}) AND nspname <> {schema}
    UNION ALL
    SELECT pg_type.oid, format('%I.%I', nspname, typname)
    FROM pg_type JOIN pg_namespace ON pg_namespace.oid = typnamespace
    WHERE nspname = ANY ({schemas}) AND nspname <> {schema}
"""
"""The query for the objects in other declared schemas; the SQL files keep them in a setting."""
# A lock stays until the end of the transaction, also on an object that it has dropped.
CHANGED_ELSEWHERE = """
    SELECT coalesce(relation, objid) AS object FROM pg_locks
    WHERE pid = pg_backend_pid()
      AND coalesce(relation, objid) = ANY ({objects})
      AND (locktype = 'relation' AND mode <> 'AccessShareLock'
        OR locktype = 'object' AND mode = 'AccessExclusiveLock')
"""
"""The query for those of these objects that the open transaction has changed, also for the SQL files."""
FIND_OBJECTS_ELSEWHERE = catalog_query(OBJECTS_ELSEWHERE.format(schemas=":schemas", schema=":schema"))
FIND_CHANGED_ELSEWHERE = catalog_query(CHANGED_ELSEWHERE.format(objects="CAST(:objects AS pg_catalog.oid[])"))
FIND_NAME_ELSEWHERE = catalog_query(
    NAMES_ELSEWHERE.format(
        declared="CAST(:declared AS pg_catalog.json)",
        schemas=":schemas",
        schema=":schema",
        relation_kind=RELATION_KIND.format(relkind="relkind"),
    )
)


def declared_names(*revisions: str | None, in_all: bool = False) -> str:
    """Return the names of what any of `revisions` declares, or only of what each of them does, as JSON by kind.

    The revision of a checkout that has no manifest yet, and no revision, declare nothing.
    """
    manifests = written_manifests()
    sets = [_names(manifests.get(revision or "", Schema())) for revision in revisions]
    kinds = dict.fromkeys(kind for names in sets for kind in names)
    chosen = {kind: list(dict.fromkeys(name for names in sets for name in names.get(kind, ()))) for kind in kinds}
    if in_all:
        chosen = {
            kind: [name for name in names if all(name in other.get(kind, ()) for other in sets)]
            for kind, names in chosen.items()
        }
    return json.dumps({kind: names for kind, names in chosen.items() if names})


def require_own_names(connection: Connection, names: str, consequence: str) -> None:
    """Raise an error if one of `names`, from `declared_names`, would be found in another schema than the current one.

    `consequence` ends the sentence of the message.

    Raises:
        MigrationFailed: the message names the object and both schemas.
    """
    session = read_session(connection)
    parameters = {"declared": names, "schemas": session.declared_schemas(), "schema": session.schema}
    found = connection.execute(FIND_NAME_ELSEWHERE, parameters).first()
    if found is not None:
        schema, name = quote(session.schema or ""), quote(found.name)
        if found.is_temporary:
            other = f"this session has the temporary {found.kind} {name}"
            remedy = f"Rename or drop the temporary {found.kind}, and create"
        else:
            place = f"schema {quote(found.schema)}, which the search_path includes for the extension vector,"
            other, remedy = f"{place} has the {found.kind} {name}", "Create"
        raise MigrationFailed(
            f"The {found.label} {name} is missing in schema {schema}, and {other}: {consequence}. {remedy} "
            f"the {found.label} in schema {schema}; `syntegra-db verify` prints the statement."
        )


class ObjectsElsewhere:
    """The objects in the schema of the extension if the tables are in another one: a migration must not change them."""

    def __init__(self, connection: Connection) -> None:
        session = read_session(connection)
        schemas = session.declared_schemas()
        self._connection = connection
        # A dropped one has no name any more.
        self._names: dict[int, str] = {}
        if schemas != [session.schema]:
            rows = connection.execute(FIND_OBJECTS_ELSEWHERE, {"schemas": schemas, "schema": session.schema})
            self._names = {row.object: row.name for row in rows}
        # The caller of a migration may have changed some in the same transaction.
        self._changed_before = self._changed()

    def require_unchanged(self, cause: str) -> None:
        """Raise an error if the open transaction has locked one as a statement does that changes or references it.

        Raises:
            MigrationFailed: the message begins with `cause`, and the transaction must be rolled back.
        """
        if changed := self._changed() - self._changed_before:
            # A table has a shorter name than its parts.
            name = min((self._names[number] for number in changed), key=len)
            raise MigrationFailed(
                f"{cause} would have changed {name}, which is in another schema, because a table was renamed or "
                "dropped at the same time. This was rolled back; `syntegra-db verify` shows what is missing."
            )

    def _changed(self) -> set[int]:
        if not self._names:
            return set()
        return set(self._connection.scalars(FIND_CHANGED_ELSEWHERE, {"objects": list(self._names)}))


def _names(schema: Schema) -> dict[str, list[str]]:
    tables = schema.tables
    # What is missing with a table is named after it.
    return {
        "table": list(tables),
        "type": list(schema.types),
        "function": [name for table in tables.values() for name in _trigger_functions(table)],
        "sequence": [name for table in tables.values() for name in table.sequences],
        "index": [name for table in tables.values() for name in _indexes(table)],
    }


def _indexes(table: Table) -> Iterator[str]:
    yield from table.indexes
    yield from (name for name, definition in table.constraints.items() if KEY_DEFINITION.match(definition))


def _trigger_functions(table: Table) -> Iterator[str]:
    for definition in table.attached_objects.values():
        if match := TRIGGER_FUNCTION.search(definition):
            yield match[1].replace('""', '"') if match[1] else match[2]
