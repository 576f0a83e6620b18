"""Compare the extension `vector`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.pgvector_support import ITERATIVE_SCAN_PGVECTOR, MIN_PGVECTOR, parse_version
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._introspection import LiveCatalog
    from syntegra_db.catalog._schema import Schema


def compare_extension(expected: Schema, found: LiveCatalog) -> Iterator[Finding]:
    """Yield what is wrong with the extension `vector`, where a column of `expected` needs it."""
    columns = (column for table in expected.tables.values() for column in table.columns.values())
    if not any(column.type.startswith("vector") for column in columns):
        return
    extension = found.extension
    if extension is None:
        yield _extension("no such extension", "No embedding can be stored or searched.", "CREATE EXTENSION vector;")
        return
    version = parse_version(extension.version)
    if version < ITERATIVE_SCAN_PGVECTOR:
        too_old = version < MIN_PGVECTOR
        yield _extension(
            f"version {extension.version}",
            "Numbers lose digits on their way to the client, and older ones still corrupt ivfflat indexes."
            if too_old
            else "A search with a filter can return fewer rows than it was asked for: iterative scans came with 0.8.",
            ddl.join_statements(
                "-- Where the server itself has no newer pgvector, install one first.", "ALTER EXTENSION vector UPDATE;"
            ),
            is_drift=too_old,
        )
    if extension.search_path is not None:
        yield _extension(
            f"in schema {extension.schema}, which is not on the search_path",
            "Sessions like this one find neither the type nor its operators.",
            f"ALTER ROLE {quote(found.privileges.role)} SET search_path = {extension.search_path}, {extension.schema};",
            is_drift=False,
        )


def _extension(found: str, impact: str, fix: str, *, is_drift: bool = True) -> Finding:
    return Finding(
        object="extension vector",
        expected=f"version {'.'.join(map(str, MIN_PGVECTOR))} or newer, best "
        f"{'.'.join(map(str, ITERATIVE_SCAN_PGVECTOR))}",
        found=found,
        impact=impact,
        fix=fix,
        is_drift=is_drift,
    )
