"""Compare the sequences of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.catalog.compare._diff import diff_definitions
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._schema import Table


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
