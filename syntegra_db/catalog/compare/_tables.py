"""Tables compared as a whole: their kind, persistence, inheritance, row-level security and comment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._schema import Table

KINDS_WITH_STORAGE = ("table", "partition")


def missing_table(name: str, table: Table) -> Iterator[Finding]:
    """Yield the finding of a table that is not there, with all that belongs to it."""
    yield Finding(
        object=f"table {name}",
        expected="table",
        found="no such table",
        impact="Every statement on it fails.",
        fix=ddl.create_table(name, table),
    )


def compare_table(name: str, expected: Table, found: Table) -> Iterator[Finding]:
    """Yield what of a table as a whole differs; what is no table, nor a partition, is not compared further."""
    if found.kind != expected.kind:
        yield Finding(
            object=f"table {name}",
            expected=expected.kind,
            found=found.kind,
            impact="Statements, constraints and indexes of a plain table do not work on it, or not alike.",
            fix=_detach(name, found),
        )
    if found.kind in KINDS_WITH_STORAGE:
        yield from _attributes(name, expected, found)


def _attributes(name: str, expected: Table, found: Table) -> Iterator[Finding]:
    quoted = quote(name)
    for wanted, there, impact, fix in (
        (
            expected.persistence,
            found.persistence,
            "A crash of the server empties the table, and no replica or archive has its rows.",
            f"ALTER TABLE {quoted} SET LOGGED;",
        ),
        (
            _format_relation("inherits from", expected.parents),
            _format_relation("inherits from", () if found.kind == "partition" else found.parents),
            "Queries on the other table read these rows as well, and its changes reach this one.",
            ddl.join_statements(*(f"ALTER TABLE {quoted} NO INHERIT {parent};" for parent in found.parents)),
        ),
        (
            _format_relation("inherited by", expected.children),
            _format_relation("inherited by", found.children),
            "Queries on it read the rows of the other table as well, where its keys do not hold.",
            ddl.join_statements(*(f"ALTER TABLE {child} NO INHERIT {quoted};" for child in found.children)),
        ),
        (
            f"row-level security {expected.row_security}",
            f"row-level security {found.row_security}",
            "A role that is not its owner sees and writes only the rows that a policy allows: without one, none.",
            f"ALTER TABLE {quoted} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;",
        ),
        (
            f"comment {expected.comment}",
            f"comment {found.comment}" if found.comment else "no comment",
            "The data dictionary and \\d+ say something else than is meant.",
            ddl.comment_on("TABLE", quoted, expected.comment),
        ),
    ):
        if wanted != there:
            yield Finding(object=f"table {name}", expected=wanted, found=there, impact=impact, fix=fix)


def _format_relation(relation: str, tables: tuple[str, ...]) -> str:
    return f"{relation} {', '.join(tables) or 'no table'}"


def _detach(name: str, found: Table) -> str:
    if found.kind == "partition":
        return ddl.join_statements(
            *(f"ALTER TABLE {parent} DETACH PARTITION {quote(name)};" for parent in found.parents)
        )
    return "-- No statement makes a table of it: rename it, create the table, copy the rows."
