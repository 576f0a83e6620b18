"""What the comparison with the manifest finds once types and keys are ours, as changes that touch no row."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from syntegra_db.adoption.parts import Change
from syntegra_db.catalog import _ddl as sql
from syntegra_db.catalog.compare import compare_schemas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from syntegra_db.adoption.looking import Situation
    from syntegra_db.adoption.parts import Fill
    from syntegra_db.catalog._findings import Finding
    from syntegra_db.catalog._schema import Column, Schema, Table

CONCURRENTLY = re.compile(r"^((?:CREATE|CREATE UNIQUE|DROP|REINDEX) INDEX) CONCURRENTLY ")


@dataclass(frozen=True)
class Changes:
    """What is equal, what stays though it is not ours, and what changes, before rows get values and after."""

    matches: tuple[str, ...]
    stays: tuple[str, ...]
    before_rows: tuple[Change, ...]
    changes: tuple[Change, ...]


def changes_of(situation: Situation, reached: Schema, fills: Sequence[Fill]) -> Changes:
    """Return what stands between `reached`, the shape after the rewrites, and the manifest."""
    before, tables = [], dict(reached.tables)
    for fill in fills:
        if fill.adds_column:
            column = situation.expected.tables[fill.table].columns[fill.column]
            before.append(_added(fill.table, fill.column, column))
            tables[fill.table] = _with_column(tables[fill.table], fill.column, column)
    findings = list(compare_schemas(situation.expected, replace(reached, tables=tables)))
    return Changes(
        matches=tuple(
            _matching(situation, name) for name in situation.expected.tables if name in situation.found.tables
        ),
        stays=tuple(f"{finding.object} ({finding.found})" for finding in findings if not finding.is_drift),
        before_rows=tuple(before),
        changes=tuple(_change(finding) for finding in findings if finding.is_drift),
    )


def in_transaction(remedy: str) -> tuple[str, ...]:
    """Return the statements of a remedy as they are run inside a transaction: none CONCURRENTLY, and no comments."""
    statements = (line for line in remedy.splitlines() if not line.startswith("--"))
    return tuple(CONCURRENTLY.sub(r"\1 ", statement) for statement in statements)


def _change(finding: Finding) -> Change:
    return Change(finding.object, finding.expected, finding.found, in_transaction(finding.fix))


def _added(table: str, name: str, column: Column) -> Change:
    definition = sql.column_definition(table, name, _bare(column))
    statement = f"ALTER TABLE {sql.quote(table)} ADD COLUMN {definition};"
    return Change(f"column {table}.{name}", column.type, "no such column", (statement,))


def _bare(column: Column) -> Column:
    """Return a column that can be added to a table with rows before it has its values."""
    return replace(column, nullability="NULL", default=None, comment=None)


def _with_column(table: Table, name: str, column: Column) -> Table:
    return replace(table, columns={**table.columns, name: _bare(column)})


def _matching(situation: Situation, name: str) -> str:
    """Return what of a table is as it should be, counted by kind."""
    expected, found = situation.expected.tables[name], situation.found.tables[name]
    counts = [
        (len(wanted), sum(there.get(key) == value for key, value in wanted.items()), kind)
        for kind, wanted, there in (
            ("columns", _types(expected), _types(found)),
            ("constraints", expected.constraints, found.constraints),
            ("indexes", expected.indexes, found.indexes),
        )
    ]
    return f"{name}: {', '.join(f'{there} of {wanted} {kind}' for wanted, there, kind in counts)}"


def _types(table: Table) -> dict[str, str]:
    return {name: column.type for name, column in table.columns.items()}
