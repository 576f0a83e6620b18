"""Compare a declared schema with an installed one; the fixes can be run in the order of the findings."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from syntegra_db.catalog._expected_objects import DECLARED_VERSION_TABLE
from syntegra_db.catalog._schema import Table
from syntegra_db.catalog.compare._application_objects import accepts_inserts, preventing_actions
from syntegra_db.catalog.compare._columns import column_label, compare_columns
from syntegra_db.catalog.compare._constraints import compare_constraints, constraint_label
from syntegra_db.catalog.compare._diff import INVALID_SUFFIX, diff_definitions
from syntegra_db.catalog.compare._enums import compare_enums
from syntegra_db.catalog.compare._extension import compare_extension
from syntegra_db.catalog.compare._indexes import (
    compare_indexes,
    equivalent_index_pattern,
    index_label,
    serves_same_search,
)
from syntegra_db.catalog.compare._partitions import compare_partitions
from syntegra_db.catalog.compare._privileges import compare_privileges
from syntegra_db.catalog.compare._sequences import compare_sequences
from syntegra_db.catalog.compare._tables import compare_table, describe_kind, has_comparable_parts, missing_table
from syntegra_db.catalog.compare._tenancy import compare_tenancy
from syntegra_db.catalog.compare._triggers import DISABLED_FOREIGN_KEY, compare_attached_objects
from syntegra_db.catalog.compare._version_table import compare_owner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._findings import Finding
    from syntegra_db.catalog._schema import Schema

__all__ = [
    "DECLARED_VERSION_TABLE",
    "DISABLED_FOREIGN_KEY",
    "INVALID_SUFFIX",
    "accepts_inserts",
    "column_label",
    "compare_attached_objects",
    "compare_enums",
    "compare_extension",
    "compare_owner",
    "compare_partitions",
    "compare_privileges",
    "compare_schemas",
    "compare_tenancy",
    "constraint_label",
    "describe_kind",
    "diff_definitions",
    "equivalent_index_pattern",
    "index_label",
    "preventing_actions",
    "serves_same_search",
]


def compare_schemas(declared: Schema, installed: Schema) -> Iterator[Finding]:
    """Yield the objects of `declared` that are missing or different in `installed`, and extra objects on its tables.

    Types and tables that only `installed` has are ignored.
    """
    yield from compare_enums(declared, installed)
    for name, table in declared.tables.items():
        if name in installed.tables:
            yield from compare_table(name, table, installed.tables[name])
        else:
            yield missing_table(name, table)
    both = [
        (name, table, installed.tables[name])
        for name, table in declared.tables.items()
        if name in installed.tables and has_comparable_parts(table, installed.tables[name])
    ]
    yield from chain.from_iterable(compare_sequences(*tables) for tables in both)
    yield from chain.from_iterable(compare_columns(*tables) for tables in both)
    yield from chain.from_iterable(compare_constraints(*tables, foreign_keys=False) for tables in both)
    # Foreign keys need the keys that they reference. A missing table's may reference another missing table.
    missing = [(name, table, Table()) for name, table in declared.tables.items() if name not in installed.tables]
    yield from chain.from_iterable(compare_constraints(*tables, foreign_keys=True) for tables in both + missing)
    yield from chain.from_iterable(compare_indexes(*tables) for tables in both)
    yield from chain.from_iterable(compare_attached_objects(*tables) for tables in both)
