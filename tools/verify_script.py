"""Render scripts/verify_analytics_tables.sql from the manifests and the package's own catalog queries."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent, indent
from typing import TYPE_CHECKING

from syntegra_db.catalog import Schema, _queries, load_manifest
from syntegra_db.catalog.compare import equivalent_index_pattern
from syntegra_db.revisions import VERSION_TABLE, all_revisions
from syntegra_db.sql import literal, qualify_calls

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import TextClause

    from syntegra_db.catalog import Column

TEMPLATE = Path(__file__).parent / "templates" / "verify_analytics_tables.sql"
# Creates the analytics tables.
REVISION = "003"
PREVIOUS_REVISION = "002"
PARAMETERS = {
    "schema": ":'schema'",
    "names": "ARRAY(SELECT name FROM expected WHERE kind IN ('table', 'type'))",
    "tables": "ARRAY(SELECT oid FROM tables)",
}
Row = tuple[str, str, str, str]
PARAMETER = re.compile(r"CAST\(:(tables) AS oid\[\]\)|(?<!:):([a-z]+)")


def render() -> str:
    """Return a psql script that compares the tables and types of revision 003, as they are at the server's revision."""
    manifests = {revision: load_manifest(revision) for revision in all_revisions() if revision >= REVISION}
    created, previous = manifests[REVISION], load_manifest(PREVIOUS_REVISION)
    names = {*created.tables, *created.types} - {*previous.tables, *previous.types}
    rows = row_lifetimes({revision: list(expected_rows(manifest, names)) for revision, manifest in manifests.items()})
    return qualify_calls(TEMPLATE.read_text(encoding="utf-8")).format(
        revision=REVISION,
        newest=max(manifests),
        revisions=", ".join(map(literal, manifests)),
        version_table=VERSION_TABLE,
        expected=",\n".join(
            f"    ({', '.join('NULL' if value is None else literal(value) for value in row)})" for row in rows
        ),
        tables=query(_queries.TABLES),
        columns=query(_queries.COLUMNS),
        constraints=query(_queries.CONSTRAINTS),
        indexes=query(_queries.INDEXES),
        sequences=query(_queries.SEQUENCES),
        types=query(_queries.TYPES),
        is_equivalent_index=" OR ".join(dict.fromkeys(equivalent_indexes(manifests.values(), names))),
    )


def row_lifetimes(rows: dict[str, list[Row]]) -> Iterator[tuple[str | None, ...]]:
    """Yield the first revision that has a row, the first after that without it or None, and the row.

    A row that a later revision brings back is yielded again.
    """
    revisions = list(rows)
    for position, revision in enumerate(revisions):
        before = rows[revisions[position - 1]] if position else []
        for row in rows[revision]:
            if row not in before:
                yield revision, next((later for later in revisions[position:] if row not in rows[later]), None), *row


def expected_rows(schema: Schema, names: set[str]) -> Iterator[Row]:
    """Yield the table, kind, name and definition of each object of the types and tables of `schema` in `names`."""
    for name in sorted(names & schema.types.keys()):
        yield "", "type", name, ", ".join(schema.types[name])
    for table in sorted(names & schema.tables.keys()):
        parts = schema.tables[table]
        partitioned = f", partitioned by {parts.partition_key}" if parts.is_partitioned else ""
        yield table, "table", table, f"{len(parts.columns)} columns{partitioned}"
        for name, column in parts.columns.items():
            yield table, "column", name, column_definition(column)
        for kind, definitions in (
            ("index", parts.indexes),
            ("constraint", parts.constraints),
            ("sequence", parts.sequences),
        ):
            for name, definition in definitions.items():
                yield table, kind, name, definition


def equivalent_indexes(schemas: Iterable[Schema], names: set[str]) -> Iterator[str]:
    """Yield the condition for an installed index to be what a rebuild may make of a vector index."""
    for schema in schemas:
        for table in sorted(names & schema.tables.keys()):
            parts = schema.tables[table]
            for name, definition in parts.indexes.items():
                pattern = equivalent_index_pattern(definition, parts.columns)
                if pattern is not None:
                    yield (
                        f"name OPERATOR(pg_catalog.=) {literal(name)} "
                        f"AND installed.definition OPERATOR(pg_catalog.~) {literal(f'^{pattern}$')}"
                    )


def column_definition(column: Column) -> str:
    """Return a column as the template's query composes it."""
    collation = f" COLLATE {column.collation}" if column.collation else ""
    default = f" DEFAULT {column.default}" if column.default else ""
    return f"{column.type}{collation} {column.nullability}{default} STORAGE {column.storage}"


def query(clause: TextClause) -> str:
    """Return the SQL text of a catalog query with expressions of the template in place of its parameters."""
    text = indent(dedent(clause.text.strip("\n")).rstrip(), "  ")
    return PARAMETER.sub(lambda match: PARAMETERS[match[1] or match[2]], text)
