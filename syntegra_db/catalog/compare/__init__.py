"""Two shapes compared: every difference by name, in an order in which the fixes can be run one after the other."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from syntegra_db.catalog import _ddl as ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.catalog._schema import Table
from syntegra_db.catalog.compare._columns import compare_columns
from syntegra_db.catalog.compare._constraints import compare_constraints
from syntegra_db.catalog.compare._diff import diff_definitions
from syntegra_db.catalog.compare._enums import compare_enums
from syntegra_db.catalog.compare._indexes import compare_indexes
from syntegra_db.catalog.compare._tables import KINDS_WITH_STORAGE, compare_table, missing_table
from syntegra_db.catalog.compare._triggers import compare_attached_objects
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._schema import Schema


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


def compare_sequences(_table: str, expected: Table, found: Table) -> Iterator[Finding]:
    """Yield the sequences of one table that differ; one whose column is missing comes back with the column."""
    wanted = {
        name: definition
        for name, definition in expected.sequences.items()
        if definition.rsplit(".", 1)[1] in found.columns
    }
    difference = diff_definitions(wanted, found.sequences)
    for name in difference.missing:
        yield _sequence(name, wanted[name], "no such sequence", ddl.create_sequence(name, wanted[name]))
    for name, other in difference.renamed.items():
        rename = f"ALTER SEQUENCE {quote(other)} RENAME TO {quote(name)};"
        yield _sequence(name, wanted[name], f"the same under the name {other}", rename)
    for name in difference.changed:
        there = found.sequences[name]
        logged = f"ALTER SEQUENCE {quote(name)} SET LOGGED;" if there.startswith(ddl.UNLOGGED) else ""
        yield _sequence(name, wanted[name], there, ddl.join_statements(logged, ddl.alter_sequence(name, wanted[name])))


def _sequence(name: str, expected: str, found: str, fix: str) -> Finding:
    return Finding(
        object=f"sequence {name}",
        expected=expected,
        found=found,
        impact="New rows get no id, one that is taken or out of range, or the sequence goes its own way when the "
        "table is dropped or restored.",
        fix=fix,
    )
