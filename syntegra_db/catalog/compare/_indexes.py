"""Compare indexes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import NO_ACTION, Finding
from syntegra_db.catalog.compare._application_objects import REJECTS_NO_ROW, REJECTS_ROWS, accepts_inserts
from syntegra_db.catalog.compare._diff import INVALID_SUFFIX, diff_definitions
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from syntegra_db.catalog._schema import Column, Table

VECTOR_METHODS = ("ivfflat ", "hnsw ")
# As the server writes them, with the name of the column or its expression in half precision.
COSINE_INDEX = re.compile(
    r"(ivfflat|hnsw) \((?:(?P<column>\S+|\".+\") vector_cosine_ops"
    r"|\(\((?P<half>\S+|\".+\")\)::halfvec\(\d+\)\) halfvec_cosine_ops)\)( WITH \([^()]*\))?"
)


def equivalent_index_pattern(declared: str, columns: Mapping[str, Column]) -> str | None:
    """Return the regular expression of the indexes that serve the searches of a declared one by cosine distance.

    It is None if the declared index serves none. The method, the parameters and the precision are chosen after the
    migration, by the number of rows; the column and its dimensions are declared.
    """
    match = COSINE_INDEX.fullmatch(declared)
    if match is None:
        return None
    quoted = match["column"] or match["half"]
    declared_type = next((column.type for name, column in columns.items() if quote(name) == quoted), "")
    name, half = re.escape(quoted), re.escape(declared_type.replace("vector", "halfvec", 1))
    return (
        r"(ivfflat|hnsw) "
        rf"\(({name} vector_cosine_ops|\(\({name}\)::{half}\) halfvec_cosine_ops)\)"
        r"( WITH \([^()]*\))?"
    )


def serves_same_search(declared: str, columns: Mapping[str, Column], definition: str) -> bool:
    """Return whether an index serves the searches by cosine distance of a declared one, over all rows."""
    pattern = equivalent_index_pattern(declared, columns)
    return pattern is not None and re.fullmatch(pattern, definition) is not None


def compare_indexes(table: str, declared: Table, installed: Table) -> Iterator[Finding]:
    """Yield the indexes that are missing or different, and extra ones that are unique, invalid or reject rows."""
    difference = diff_definitions(declared.indexes, installed.indexes)
    for name in difference.missing:
        yield Finding(
            object=index_label(name),
            expected=declared.indexes[name],
            found="no such index",
            impact=_impact_if_missing(declared.indexes[name]),
            fix=ddl.create_index(name, table, declared.indexes[name], is_partitioned=installed.is_partitioned),
        )
    for name, other in difference.renamed.items():
        yield Finding(
            object=index_label(name),
            expected=declared.indexes[name],
            found=f"named {other}",
            impact="A later migration that names it fails.",
            fix=f"ALTER INDEX {quote(other)} RENAME TO {quote(name)};",
        )
    for name in difference.changed:
        yield from _changed(table, name, declared, installed)
    for name in difference.extra:
        # The fix for a missing constraint of that name uses this index.
        if name not in declared.constraints:
            yield from _extra(name, declared, installed)


def index_label(index: str) -> str:
    """Return how findings name an index."""
    return f"index {index}"


def _impact_if_missing(definition: str) -> str:
    if definition.startswith(VECTOR_METHODS):
        return "A vector search reads every row."
    if "(source_id)" in definition:
        return "Deleting a data source, or a query by this column, reads the whole table."
    return "A query by these columns reads the whole table."


def _changed(table: str, name: str, declared_table: Table, installed_table: Table) -> Iterator[Finding]:
    declared = declared_table.indexes[name]
    installed, is_partitioned = installed_table.indexes[name], installed_table.is_partitioned
    definition = installed.removesuffix(INVALID_SUFFIX)
    recreate = ddl.join_statements(
        ddl.drop_index(name, is_partitioned=is_partitioned),
        ddl.create_index(name, table, declared, is_partitioned=is_partitioned),
    )
    accepted = serves_same_search(declared, declared_table.columns, definition)
    if definition != declared and not accepted:
        yield Finding(
            object=index_label(name),
            expected=declared,
            found=installed,
            impact=_impact_if_missing(declared),
            fix=recreate,
        )
        return
    if installed != definition:
        yield _invalid(name, declared, installed, recreate if is_partitioned else ddl.reindex(name))
    if definition != declared:
        yield Finding(
            object=index_label(name),
            expected=declared,
            found=definition,
            impact="None: the vector index is rebuilt to match the number of rows.",
            fix=NO_ACTION,
            is_drift=False,
        )


def _invalid(name: str, declared: str, installed: str, fix: str) -> Finding:
    return Finding(
        object=index_label(name),
        expected=declared,
        found=installed,
        impact="No query uses it, but every write updates it; it may be under construction now.",
        fix=fix,
    )


def _extra(name: str, declared: Table, installed: Table) -> Iterator[Finding]:
    definition = installed.indexes[name]
    drop = ddl.drop_index(name, is_partitioned=installed.is_partitioned)
    if definition.endswith(INVALID_SUFFIX):
        yield _invalid(name, "no such index, or a valid one", definition, drop)
        return
    is_drift = not accepts_inserts(declared, installed, "indexes", definition)
    if is_drift or definition.startswith("UNIQUE "):
        yield Finding(
            object=index_label(name),
            expected="no such index",
            found=definition,
            impact=REJECTS_ROWS if is_drift else REJECTS_NO_ROW,
            fix=drop if is_drift else NO_ACTION,
            is_drift=is_drift,
        )
