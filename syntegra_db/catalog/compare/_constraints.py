"""Compare primary keys, unique constraints, CHECKs and, in a separate pass, foreign keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._expected_objects import APPLICATION_COLUMN
from syntegra_db.catalog._findings import NO_ACTION, Finding
from syntegra_db.catalog.compare._application_objects import (
    REJECTS_NO_ROW,
    REJECTS_ROWS,
    accepts_inserts,
)
from syntegra_db.catalog.compare._diff import INVALID_SUFFIX, diff_definitions
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._schema import Table

NOT_VALID = " NOT VALID"
# By `pg_constraint.confdeltype`.
DELETE_ACTIONS = {
    "c": "A DELETE in {} also deletes the rows that reference it.",
    "n": "A DELETE in {} sets the columns that reference it to NULL, or fails if one is NOT NULL.",
    "d": "A DELETE in {} sets the columns that reference it to their default, or fails if that references nothing.",
}
BLOCKED_DELETE = "It can block a DELETE in {}."
IMPACTS = {
    "PRIMARY KEY": "Two rows can have the same id, and a query by id reads the whole table.",
    "UNIQUE": "No foreign key can reference these columns, and their values can repeat.",
    "CHECK": "Unexpected values can be written, such as a NaN, which makes every sum NaN.",
    "FOREIGN KEY": "Rows can reference a missing data source or one of another client, and remain after it is deleted.",
}


def compare_constraints(table: str, declared: Table, installed: Table, *, foreign_keys: bool) -> Iterator[Finding]:
    """Yield the differences in the foreign keys of one table, or in its other constraints.

    An extra constraint is a note if it accepts each insert of the models, or references a client of the application.
    """
    expected = _select(declared.constraints, foreign_keys=foreign_keys)
    found = _select(installed.constraints, foreign_keys=foreign_keys)
    difference = diff_definitions(expected, found)
    for name in difference.extra:
        impact = _impact_if_accepted(declared, installed, found[name])
        yield _extra(table, name, found[name], impact)
    for name, other in difference.renamed.items():
        yield Finding(
            object=constraint_label(table, name),
            expected=expected[name],
            found=f"named {other}",
            impact="A later migration that refers to it by this name fails.",
            fix=f"ALTER TABLE {quote(table)} RENAME CONSTRAINT {quote(other)} TO {quote(name)};",
        )
    for name in difference.missing:
        yield Finding(
            object=constraint_label(table, name),
            expected=expected[name],
            found="no such constraint",
            impact=_impact_if_missing(expected[name]),
            fix=ddl.add_constraint(
                table,
                name,
                expected[name],
                index_exists=name in installed.indexes,
                is_partitioned=installed.is_partitioned,
            ),
        )
    for name in difference.changed:
        yield _changed(table, name, expected[name], found[name], is_partitioned=installed.is_partitioned)


def _impact_if_accepted(declared: Table, installed: Table, definition: str) -> str | None:
    """Return what an extra constraint does without rejecting an insert of the models, or None if it can reject one."""
    if not accepts_inserts(declared, installed, "constraints", definition):
        return None
    reference = installed.references.get(definition)
    if reference is None:
        return REJECTS_NO_ROW
    action = DELETE_ACTIONS.get(reference.on_delete, BLOCKED_DELETE).format(reference.table)
    if reference.columns == (APPLICATION_COLUMN,):
        return f"A row whose {APPLICATION_COLUMN} is not in {reference.table} is rejected. {action}"
    return f"None for inserts of the models. {action}"


def _select(constraints: dict[str, str], *, foreign_keys: bool) -> dict[str, str]:
    return {
        name: definition
        for name, definition in constraints.items()
        if definition.startswith(ddl.FOREIGN_KEY) == foreign_keys
    }


def constraint_label(table: str, constraint: str) -> str:
    """Return how findings name a constraint."""
    return f"constraint {constraint} on {table}"


def _impact_if_missing(definition: str) -> str:
    return next(impact for kind, impact in IMPACTS.items() if definition.startswith(kind))


def _changed(table: str, name: str, declared: str, installed: str, *, is_partitioned: bool) -> Finding:
    if installed == declared + NOT_VALID:
        impact = "Rows that are older than the constraint may violate it."
        fix = ddl.validate_constraint(table, name)
    elif installed == declared + INVALID_SUFFIX and not is_partitioned:
        impact = "Its index is not used and may not contain every row."
        fix = ddl.reindex(name)
    else:
        impact = _impact_if_missing(declared)
        fix = ddl.join_statements(
            ddl.drop_constraint(table, name), ddl.add_constraint(table, name, declared, is_partitioned=is_partitioned)
        )
    return Finding(object=constraint_label(table, name), expected=declared, found=installed, impact=impact, fix=fix)


def _extra(table: str, name: str, definition: str, impact: str | None) -> Finding:
    return Finding(
        object=constraint_label(table, name),
        expected="no such constraint",
        found=definition,
        impact=impact or REJECTS_ROWS,
        fix=NO_ACTION if impact else ddl.drop_constraint(table, name),
        is_drift=impact is None,
    )
