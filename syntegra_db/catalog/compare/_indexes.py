"""Indexes compared."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.catalog.compare._diff import INVALID_SUFFIX, diff_definitions
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._schema import Table

COSINE_INDEX = re.compile(
    r"(ivfflat|hnsw) "
    r"\((embedding vector_cosine_ops|\(\(embedding\)::halfvec\(384\)\) halfvec_cosine_ops)\)"
    r"( WITH \([^()]*\))?"
)


def serves_cosine_search(definition: str) -> bool:
    """Tell whether an index finds the nearest embeddings by cosine distance among all rows.

    That is what `idx_text_summary_embedding` is for; its method and parameters, and whether it holds the numbers in
    half precision, are chosen by the number of rows, after the migration.
    """
    return COSINE_INDEX.fullmatch(definition) is not None


def compare_indexes(table: str, expected: Table, found: Table) -> Iterator[Finding]:
    """Yield the indexes of one table that differ, and of the application's own those that refuse rows or are broken."""
    difference = diff_definitions(expected.indexes, found.indexes)
    for name in difference.missing:
        yield Finding(
            object=_label(name),
            expected=expected.indexes[name],
            found="no such index",
            impact=_impact_if_missing(expected.indexes[name]),
            fix=ddl.create_index(name, table, expected.indexes[name]),
        )
    for name, other in difference.renamed.items():
        yield Finding(
            object=_label(name),
            expected=expected.indexes[name],
            found=f"the same under the name {other}",
            impact="A later migration that changes it by name fails.",
            fix=f"ALTER INDEX {quote(other)} RENAME TO {quote(name)};",
        )
    for name in difference.changed:
        yield from _changed(table, name, expected.indexes[name], found.indexes[name])
    for name in difference.extra:
        # The fix for the constraint of that name takes this index into its service.
        if name not in expected.constraints:
            yield from _extra(name, found.indexes[name])


def _label(index: str) -> str:
    return f"index {index}"


def _impact_if_missing(definition: str) -> str:
    if "embedding" in definition:
        return "A similarity search reads every row."
    if "(source_id)" in definition:
        return "Deleting a data source reads the whole table, and so does a query by this column."
    return "A query by these columns reads the whole table."


def _changed(table: str, name: str, expected: str, found: str) -> Iterator[Finding]:
    definition = found.removesuffix(INVALID_SUFFIX)
    accepted = name == VECTOR_INDEX and serves_cosine_search(definition)
    if definition != expected and not accepted:
        yield Finding(
            object=_label(name),
            expected=expected,
            found=found,
            impact=_impact_if_missing(expected),
            fix=ddl.join_statements(ddl.drop_index(name), ddl.create_index(name, table, expected)),
        )
        return
    if found != definition:
        yield _invalid(name, expected, found, ddl.reindex(name))
    if definition != expected:
        yield Finding(
            object=_label(name),
            expected=expected,
            found=definition,
            impact="None: method and parameters of the vector index follow the number of rows.",
            fix="-- Nothing to mend.",
            is_drift=False,
        )


def _invalid(name: str, expected: str, found: str, fix: str) -> Finding:
    return Finding(
        object=_label(name),
        expected=expected,
        found=found,
        impact="No query uses it, and every write still pays for it, unless it is being built at this moment.",
        fix=fix,
    )


def _extra(name: str, definition: str) -> Iterator[Finding]:
    if definition.endswith(INVALID_SUFFIX):
        yield _invalid(name, "no such index, or a valid one", definition, ddl.drop_index(name))
    elif definition.startswith("UNIQUE "):
        yield Finding(
            object=_label(name),
            expected="no such index",
            found=definition,
            impact="It refuses rows that the models write in good faith.",
            fix=ddl.drop_index(name),
        )
