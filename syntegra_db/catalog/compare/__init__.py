"""Two shapes compared: every difference by name, in an order in which the fixes can be run one after the other."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from syntegra_db.catalog._schema import Table
from syntegra_db.catalog.compare._columns import compare_columns
from syntegra_db.catalog.compare._constraints import compare_constraints, references_no_column
from syntegra_db.catalog.compare._diff import INVALID_SUFFIX, DefinitionDiff, diff_definitions
from syntegra_db.catalog.compare._enums import compare_enums
from syntegra_db.catalog.compare._extension import compare_extension
from syntegra_db.catalog.compare._indexes import COSINE_INDEX, compare_indexes, serves_cosine_search
from syntegra_db.catalog.compare._privileges import compare_privileges
from syntegra_db.catalog.compare._sequences import compare_sequences
from syntegra_db.catalog.compare._tables import KINDS_WITH_STORAGE, compare_table, missing_table
from syntegra_db.catalog.compare._triggers import DISABLED_FOREIGN_KEY, compare_attached_objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._findings import Finding
    from syntegra_db.catalog._schema import Schema

__all__ = [
    "COSINE_INDEX",
    "DISABLED_FOREIGN_KEY",
    "INVALID_SUFFIX",
    "DefinitionDiff",
    "compare_attached_objects",
    "compare_enums",
    "compare_extension",
    "compare_privileges",
    "compare_schemas",
    "diff_definitions",
    "references_no_column",
    "serves_cosine_search",
]


def compare_schemas(expected: Schema, found: Schema) -> Iterator[Finding]:
    """Yield what of `expected` is missing or otherwise in `found`, and what hangs on its tables unasked.

    Types and tables that only `found` has are left alone.
    """
    yield from compare_enums(expected, found)
    for name, table in expected.tables.items():
        there = found.tables.get(name)
        yield from missing_table(name, table) if there is None else compare_table(name, table, there)
    both = [
        (name, table, found.tables[name])
        for name, table in expected.tables.items()
        if name in found.tables and found.tables[name].kind in KINDS_WITH_STORAGE
    ]
    yield from chain.from_iterable(compare_sequences(*tables) for tables in both)
    yield from chain.from_iterable(compare_columns(*tables) for tables in both)
    yield from chain.from_iterable(compare_constraints(*tables, foreign_keys=False) for tables in both)
    # After all keys, and for a missing table as well, since its foreign key may refer to another missing one.
    missing = [(name, table, Table()) for name, table in expected.tables.items() if name not in found.tables]
    yield from chain.from_iterable(
        compare_constraints(*tables, foreign_keys=True, ours=expected.tables) for tables in both + missing
    )
    yield from chain.from_iterable(compare_indexes(*tables) for tables in both)
    yield from chain.from_iterable(compare_attached_objects(*tables) for tables in both)
