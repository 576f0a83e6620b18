"""What acts on a table's rows unasked, compared: triggers, rules, policies, and foreign keys that are switched off."""

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
    "trigger": "Writes to the table do something that this package does not know of.",
    "rule": "Statements on the table become others, which this package does not know of.",
    "policy": "Where row-level security is on, it decides which rows a role sees and writes.",
}


def compare_attached_objects(table: str, expected: Table, found: Table) -> Iterator[Finding]:
    """Yield the triggers, rules and policies of one table that differ, and its foreign keys that are not enforced."""
    wanted, there = expected.attached_objects, found.attached_objects
    difference = diff_definitions(wanted, there)
    for named in difference.extra:
        yield (
            _disabled(table, named, there[named])
            if named.startswith(DISABLED_FOREIGN_KEY)
            else _extra(table, named, there[named])
        )
    for named in (*difference.missing, *difference.changed):
        yield Finding(
            object=f"{named} on {table}",
            expected=wanted[named],
            found=there.get(named, "not there"),
            impact="What the revision made it for does not happen.",
            fix=ddl.join_statements(_drop(table, named) if named in there else "", f"{wanted[named]};"),
        )


def _disabled(table: str, named: str, found: str) -> Finding:
    trigger = quote(named.removeprefix(f"{DISABLED_FOREIGN_KEY} "))
    return Finding(
        object=f"{named} on {table}",
        expected="enabled",
        found=found,
        impact="The foreign key is not enforced: rows can point at a data source that is not there, and deleting "
        "one leaves them behind.",
        fix=f"ALTER TABLE {quote(table)} ENABLE TRIGGER {trigger};",
    )


def _extra(table: str, named: str, found: str) -> Finding:
    kind = named.split(" ", 1)[0]
    return Finding(
        object=f"{named} on {table}",
        expected=f"no such {kind}",
        found=found,
        impact=EXTRA_OBJECT_IMPACTS[kind],
        fix=_drop(table, named),
    )


def _drop(table: str, named: str) -> str:
    kind, name = named.split(" ", 1)
    return f"DROP {kind.upper()} {quote(name)} ON {quote(table)};"
