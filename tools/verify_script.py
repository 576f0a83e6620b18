"""Render scripts/verify_analytics_tables.sql from the manifests and the package's own catalog queries."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent, indent
from typing import TYPE_CHECKING

from syntegra_db.catalog import Schema, _queries, load_manifest
from syntegra_db.catalog.compare import COSINE_INDEX
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.revisions import VERSION_TABLE
from syntegra_db.search_path import qualify_calls
from syntegra_db.sql import literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import TextClause

    from syntegra_db.catalog import Column

TEMPLATE = Path(__file__).parent / "templates" / "verify_analytics_tables.sql"
REVISION = "003"
PREVIOUS_REVISION = "002"
PARAMETERS = {
    "schema": ":'schema'",
    "names": "ARRAY(SELECT name FROM expected WHERE kind IN ('table', 'type'))",
    "tables": "ARRAY(SELECT oid FROM tables)",
}
PARAMETER = re.compile(r"CAST\(:(tables) AS oid\[\]\)|(?<!:):([a-z]+)")


def render() -> str:
    """Return a psql script that compares the tables and types that revision 003 creates with those of a server."""
    manifest, previous = load_manifest(REVISION), load_manifest(PREVIOUS_REVISION)
    tables = {name: table for name, table in manifest.tables.items() if name not in previous.tables}
    types = {name: labels for name, labels in manifest.types.items() if name not in previous.types}
    rows = expected_rows(Schema(types, tables))
    return qualify_calls(TEMPLATE.read_text(encoding="utf-8")).format(
        revision=REVISION,
        version_table=VERSION_TABLE,
        expected=",\n".join(f"    ({', '.join(map(literal, row))})" for row in rows),
        tables=query(_queries.TABLES),
        columns=query(_queries.COLUMNS),
        constraints=query(_queries.CONSTRAINTS),
        indexes=query(_queries.INDEXES),
        sequences=query(_queries.SEQUENCES),
        types=query(_queries.TYPES),
        vector_index=literal(VECTOR_INDEX),
        accepted_vector_index=literal(f"^{COSINE_INDEX.pattern}$"),
    )


def expected_rows(schema: Schema) -> Iterator[tuple[str, str, str, str]]:
    """Yield the table, kind, name and definition of each object of `schema`."""
    for name, labels in schema.types.items():
        yield "", "type", name, ", ".join(labels)
    for table, parts in schema.tables.items():
        yield table, "table", table, f"{len(parts.columns)} columns"
        for name, column in parts.columns.items():
            yield table, "column", name, column_definition(column)
        for kind, definitions in (
            ("index", parts.indexes),
            ("constraint", parts.constraints),
            ("sequence", parts.sequences),
        ):
            for name, definition in definitions.items():
                yield table, kind, name, definition


def column_definition(column: Column) -> str:
    """Return a column as the template's query composes it."""
    collation = f" COLLATE {column.collation}" if column.collation else ""
    default = f" DEFAULT {column.default}" if column.default else ""
    return f"{column.type}{collation} {column.nullability}{default} STORAGE {column.storage}"


def query(clause: TextClause) -> str:
    """Return the SQL text of a catalog query with expressions of the template in place of its parameters."""
    text = indent(dedent(clause.text.strip("\n")).rstrip(), "  ")
    return PARAMETER.sub(lambda match: PARAMETERS[match[1] or match[2]], text)
