"""Compare the triggers, rules and policies attached to a table, and find disabled foreign keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.catalog.compare._diff import diff_definitions
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._schema import Table

DISABLED_FOREIGN_KEY = "foreign key trigger"
EXTRA_OBJECT_IMPACTS = {
    "trigger": "Writes to the table have effects that this package does not expect.",
    "rule": "Statements on the table are rewritten in a way that this package does not expect.",
    "policy": "If row-level security is on, it decides which rows a role can read and write.",
}


def compare_attached_objects(table: str, declared: Table, installed: Table) -> Iterator[Finding]:
    """Yield the triggers, rules and policies of one table that differ, and its foreign keys that are not enforced."""
    expected, found = declared.attached_objects, installed.attached_objects
    difference = diff_definitions(expected, found)
    for label in difference.extra:
        compare_extra = _disabled if label.startswith(DISABLED_FOREIGN_KEY) else _extra
        yield compare_extra(table, label, found[label])
    for label in (*difference.missing, *difference.changed):
        yield Finding(
            object=f"{label} on {table}",
            expected=expected[label],
            found=found.get(label, "missing"),
            impact="The effect that the revision declares does not happen.",
            fix=ddl.join_statements(_drop(table, label) if label in found else "", f"{expected[label]};"),
        )


def _disabled(table: str, label: str, found: str) -> Finding:
    trigger = quote(label.removeprefix(f"{DISABLED_FOREIGN_KEY} "))
    return Finding(
        object=f"{label} on {table}",
        expected="enabled",
        found=found,
        impact="The foreign key is not enforced: rows can reference a missing data source, and outlive it.",
        fix=f"ALTER TABLE {quote(table)} ENABLE TRIGGER {trigger};",
    )


def _extra(table: str, label: str, found: str) -> Finding:
    kind = label.split(" ", 1)[0]
    return Finding(
        object=f"{label} on {table}",
        expected=f"no such {kind}",
        found=found,
        impact=EXTRA_OBJECT_IMPACTS[kind],
        fix=_drop(table, label),
    )


def _drop(table: str, label: str) -> str:
    kind, name = label.split(" ", 1)
    return f"DROP {kind.upper()} {quote(name)} ON {quote(table)};"
