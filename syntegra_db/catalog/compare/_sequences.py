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


def compare_sequences(_table: str, declared: Table, installed: Table) -> Iterator[Finding]:
    """Yield the sequences of one table that differ; the fix for a missing column also creates its sequence."""
    expected = {
        name: definition
        for name, definition in declared.sequences.items()
        if definition.rsplit(".", 1)[1] in installed.columns
    }
    difference = diff_definitions(expected, installed.sequences)
    for name in difference.missing:
        yield _sequence(name, expected[name], "no such sequence", ddl.create_sequence(name, expected[name]))
    for name, other in difference.renamed.items():
        rename = f"ALTER SEQUENCE {quote(other)} RENAME TO {quote(name)};"
        yield _sequence(name, expected[name], f"named {other}", rename)
    for name in difference.changed:
        found = installed.sequences[name]
        logged = f"ALTER SEQUENCE {quote(name)} SET LOGGED;" if found.startswith(ddl.UNLOGGED) else ""
        yield _sequence(
            name, expected[name], found, ddl.join_statements(logged, ddl.alter_sequence(name, expected[name]))
        )


def _sequence(name: str, declared: str, installed: str, fix: str) -> Finding:
    return Finding(
        object=f"sequence {name}",
        expected=declared,
        found=installed,
        impact="Inserts fail or get an id that is in use or out of range, or the sequence is not dropped and restored "
        "with its table.",
        fix=fix,
    )
