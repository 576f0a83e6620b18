"""Rows that do not fit the shape to be, as decisions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from syntegra_db.adoption.parts import Decision
from syntegra_db.catalog._ddl import FOREIGN_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.adoption.looking import Situation
    from syntegra_db.adoption.rows import Offenders, Rows

REFERENCE = re.compile(r"FOREIGN KEY \((?P<columns>[^)]+)\) REFERENCES (?P<target>\w+)\((?P<target_columns>[^)]+)\)")
INPUT_IS_VALID_SINCE = 160000
MEND = "Correct the rows yourself, since adopt changes no value that is there, and run it again"


def check_rows(situation: Situation, rows: Rows) -> Iterator[Decision]:
    """Yield what a person has to decide about rows: types first, since the other checks need values that convert."""
    tables = [name for name in situation.expected.tables if name in situation.found.tables]
    for (table, column), each in rows.conversions.items():
        if each is not None and each.fits is not None and _can_ask(rows, each.fits):
            offenders = rows.misfitting(table, column, each.fits)
            yield from _decision(f"column {table}.{column}", f"has {each.misfit}", MEND, offenders)
    for table in tables:
        yield from _required(situation, rows, table)
    for table in tables:
        yield from _constraints(situation, rows, table)


def _can_ask(rows: Rows, fits: str) -> bool:
    return rows.version >= INPUT_IS_VALID_SINCE or "pg_input_is_valid" not in fits


def _required(situation: Situation, rows: Rows, table: str) -> Iterator[Decision]:
    for name, wanted in situation.expected.tables[table].columns.items():
        there = situation.found.tables[table].columns.get(name)
        if wanted.nullability == "NULL" or (there is not None and there.nullability == wanted.nullability):
            continue
        if there is None and wanted.default is not None and (table, name) not in rows.expressions:
            continue
        reason = "is required and missing" if there is None else "is required, and rows have no value in it"
        if (table, name) in rows.expressions:
            reason = "is required, and the answer gives rows no value"
        yield from _decision(
            f"column {table}.{name}",
            reason,
            f"--set {table}.{name}=VALUE, or an SQL expression",
            rows.empty(table, name),
        )


def _constraints(situation: Situation, rows: Rows, table: str) -> Iterator[Decision]:
    expected, found = situation.expected.tables[table], situation.found.tables[table]
    for name, definition in expected.constraints.items():
        if definition in found.constraints.values():
            continue
        named = f"constraint {name} on {table}"
        reference = REFERENCE.match(definition)
        if definition.startswith("PRIMARY KEY"):
            yield from _decision(named, "does not hold: rows share an id", MEND, rows.repeated(table))
        elif definition.startswith("CHECK"):
            yield from _decision(named, f"does not hold: {definition}", MEND, rows.breaking(table, definition))
        elif definition.startswith(FOREIGN_KEY) and reference is not None:
            columns, targets = (reference[part].split(", ") for part in ("columns", "target_columns"))
            offenders = rows.astray(table, columns, reference["target"], targets)
            yield from _decision(named, f"does not hold: {definition}", MEND, offenders)


def _decision(named: str, reason: str, advice: str, offenders: Offenders) -> Iterator[Decision]:
    if offenders.count:
        yield Decision(named, reason, advice, offenders.count, offenders.ids)
