"""Constraints compared: primary keys, unique constraints, CHECKs, and foreign keys in a pass of their own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.catalog.compare._diff import INVALID_SUFFIX, diff_definitions
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from syntegra_db.catalog._schema import Table

NOT_VALID = " NOT VALID"
NAME = re.compile(r"\w+")
TARGET = re.compile(r"^FOREIGN KEY .*\) REFERENCES (?P<table>.+?)\(")
IMPACTS = {
    "PRIMARY KEY": "Two rows can have the same id, and finding a row by its id reads the whole table.",
    "UNIQUE": "No foreign key can refer to these columns, and rows can repeat them.",
    "CHECK": "Values can be written that readers do not expect, such as a NaN that poisons every sum above it.",
    "FOREIGN KEY": "Rows can point at a data source that is not there or is another client's, and deleting one leaves "
    "them behind.",
}


def compare_constraints(
    table: str, expected: Table, found: Table, *, foreign_keys: bool, ours: Collection[str] = ()
) -> Iterator[Finding]:
    """Yield the constraints of one table that differ: its foreign keys, or all the others.

    A foreign key to a table that is not among `ours`, and a CHECK on columns of the application's own, are notes.
    """
    wanted = _only(expected.constraints, foreign_keys=foreign_keys)
    there = _only(found.constraints, foreign_keys=foreign_keys)
    difference = diff_definitions(wanted, there)
    for name in difference.extra:
        yield _extra(table, name, there[name], is_drift=_affects_package(expected, there[name], ours))
    for name, other in difference.renamed.items():
        yield Finding(
            object=_label(table, name),
            expected=wanted[name],
            found=f"the same under the name {other}",
            impact="A later migration that changes it by name fails.",
            fix=f"ALTER TABLE {quote(table)} RENAME CONSTRAINT {quote(other)} TO {quote(name)};",
        )
    for name in difference.missing:
        yield Finding(
            object=_label(table, name),
            expected=wanted[name],
            found="no such constraint",
            impact=_impact_if_missing(wanted[name]),
            fix=ddl.add_constraint(table, name, wanted[name], index_exists=name in found.indexes),
        )
    for name in difference.changed:
        yield _changed(table, name, wanted[name], there[name])


def references_no_column(check: str, table: Table) -> bool:
    """Tell whether the definition of a CHECK names no column of `table`."""
    return check.startswith("CHECK") and table.columns.keys().isdisjoint(NAME.findall(check))


def _affects_package(table: Table, definition: str, ours: Collection[str]) -> bool:
    target = TARGET.search(definition)
    return target["table"] in ours if target else not references_no_column(definition, table)


def _only(constraints: dict[str, str], *, foreign_keys: bool) -> dict[str, str]:
    return {
        name: definition
        for name, definition in constraints.items()
        if definition.startswith(ddl.FOREIGN_KEY) == foreign_keys
    }


def _label(table: str, constraint: str) -> str:
    return f"constraint {constraint} on {table}"


def _impact_if_missing(definition: str) -> str:
    return next(told for kind, told in IMPACTS.items() if definition.startswith(kind))


def _changed(table: str, name: str, expected: str, found: str) -> Finding:
    if found == expected + NOT_VALID:
        impact = "Rows from before it was added may break it."
        fix = ddl.validate_constraint(table, name)
    elif found == expected + INVALID_SUFFIX:
        impact = "Its index is not in use and may not hold every row."
        fix = ddl.reindex(name)
    else:
        impact = _impact_if_missing(expected)
        fix = ddl.join_statements(ddl.drop_constraint(table, name), ddl.add_constraint(table, name, expected))
    return Finding(object=_label(table, name), expected=expected, found=found, impact=impact, fix=fix)


def _extra(table: str, name: str, definition: str, *, is_drift: bool) -> Finding:
    return Finding(
        object=_label(table, name),
        expected="no such constraint",
        found=definition,
        impact="It refuses rows that the models write in good faith."
        if is_drift
        else "It refuses rows that the application does not want, by columns or tables of its own.",
        fix=ddl.drop_constraint(table, name) if is_drift else "-- Nothing to mend.",
        is_drift=is_drift,
    )
