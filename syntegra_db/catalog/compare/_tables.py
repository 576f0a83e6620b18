"""Compare tables as a whole: kind, persistence, inheritance, row-level security and comment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._schema import Table

KINDS_WITH_STORAGE = ("table", "partition")


def missing_table(name: str, table: Table) -> Finding:
    """Return the finding for a missing table; its fix also creates the table's indexes and constraints."""
    return Finding(
        object=f"table {name}",
        expected="table",
        found="no such table",
        impact="Every statement on it fails.",
        fix=ddl.create_table(name, table),
    )


def compare_table(name: str, declared: Table, installed: Table) -> Iterator[Finding]:
    """Yield the differences of a table as a whole; only the kind is compared if it is not `has_comparable_parts`."""
    if describe_kind(installed) != describe_kind(declared):
        yield Finding(
            object=f"table {name}",
            expected=describe_kind(declared),
            found=describe_kind(installed),
            impact=(
                "Old months cannot be detached, and `syntegra-db partitions` cannot create the next ones."
                if declared.is_partitioned
                else "Statements, constraints and indexes of a plain table fail or work differently."
            ),
            fix=_conversion(name, declared, installed),
        )
    if has_comparable_parts(declared, installed):
        yield from _attributes(name, declared, installed)


def has_comparable_parts(declared: Table, installed: Table) -> bool:
    """Return whether columns, constraints and indexes of the installed table can be changed to the declared ones."""
    return installed.kind in KINDS_WITH_STORAGE or (declared.is_partitioned and installed.is_partitioned)


def describe_kind(table: Table) -> str:
    """Return the kind of a table, with the key of a partitioned one."""
    return f"{table.kind} by {table.partition_key}" if table.is_partitioned else table.kind


def _attributes(name: str, declared: Table, installed: Table) -> Iterator[Finding]:
    quoted = quote(name)
    for expected, found, impact, fix in (
        (
            declared.persistence,
            installed.persistence,
            "A server crash empties the table, and no replica or archive contains its rows.",
            f"ALTER TABLE {quoted} SET LOGGED;",
        ),
        (
            _format_relation("inherits from", declared.parents),
            _format_relation("inherits from", () if installed.kind == "partition" else installed.parents),
            "Queries on the other table also return these rows, and changes to it apply to this table.",
            ddl.join_statements(*(f"ALTER TABLE {quoted} NO INHERIT {parent};" for parent in installed.parents)),
        ),
        (
            _format_relation("inherited by", declared.children),
            _format_relation("inherited by", installed.children),
            "Queries on this table also return rows of the other table, which this table's keys do not check.",
            ddl.join_statements(*(f"ALTER TABLE {child} NO INHERIT {quoted};" for child in installed.children)),
        ),
        (
            f"row-level security {declared.row_security}",
            f"row-level security {installed.row_security}",
            "Roles other than the owner can read and write only rows that a policy allows: without a policy, none.",
            f"ALTER TABLE {quoted} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;",
        ),
        (
            f"comment {declared.comment}" if declared.comment else "no comment",
            f"comment {installed.comment}" if installed.comment else "no comment",
            "The data dictionary and \\d+ show another description.",
            ddl.comment_on("TABLE", quoted, declared.comment),
        ),
    ):
        if expected != found:
            yield Finding(object=f"table {name}", expected=expected, found=found, impact=impact, fix=fix)


def _format_relation(relation: str, tables: tuple[str, ...]) -> str:
    return f"{relation} {', '.join(tables) or 'no table'}"


def _conversion(name: str, declared: Table, installed: Table) -> str:
    if installed.kind == "partition":
        return ddl.join_statements(
            *(f"ALTER TABLE {parent} DETACH PARTITION {quote(name)};" for parent in installed.parents)
        )
    if declared.is_partitioned:
        return (
            "-- No statement converts it: rename it, create the partitioned table and its partitions by month, then "
            "copy the rows."
        )
    return "-- No statement converts it: rename it, create the table, then copy the rows."
