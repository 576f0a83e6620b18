"""Compare the extension `vector`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.pgvector_support import ITERATIVE_SCAN_PGVECTOR, MIN_PGVECTOR, parse_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._introspection import LiveCatalog
    from syntegra_db.catalog._schema import Schema


def compare_extension(declared: Schema, installed: LiveCatalog) -> Iterator[Finding]:
    """Yield the problems of the extension `vector`, if a column of `declared` needs it."""
    columns = (column for table in declared.tables.values() for column in table.columns.values())
    if not any(column.type.startswith("vector") for column in columns):
        return
    extension = installed.extension
    if extension is None:
        yield _extension("no such extension", "No embedding can be stored or searched.", "CREATE EXTENSION vector;")
        return
    version = parse_version(extension.version)
    if version < ITERATIVE_SCAN_PGVECTOR:
        too_old = version < MIN_PGVECTOR
        yield _extension(
            f"version {extension.version}",
            "Vectors lose digits in text format, and versions before 0.3.1 corrupt ivfflat indexes."
            if too_old
            else "A search with a filter can return fewer rows than requested: it has no iterative scans.",
            ddl.join_statements(
                "-- First install a newer pgvector on the server, unless it has one.", "ALTER EXTENSION vector UPDATE;"
            ),
            is_drift=too_old,
        )
    if extension.search_path_fix is not None:
        yield _extension(
            f"in schema {extension.schema}, which is not on the search_path",
            "Sessions with this search_path find neither the type nor its operators.",
            extension.search_path_fix,
            is_drift=False,
        )


def _extension(installed: str, impact: str, fix: str, *, is_drift: bool = True) -> Finding:
    return Finding(
        object="extension vector",
        expected=f"version {'.'.join(map(str, MIN_PGVECTOR))} or newer, recommended "
        f"{'.'.join(map(str, ITERATIVE_SCAN_PGVECTOR))}",
        found=installed,
        impact=impact,
        fix=fix,
        is_drift=is_drift,
    )
