"""ENUM types compared, label by label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.sql import literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._schema import Column, Schema


def compare_enums(expected: Schema, found: Schema) -> Iterator[Finding]:
    """Yield the ENUM types that are missing or have other labels, or the same in another order."""
    for name, labels in expected.types.items():
        there = found.types.get(name)
        if there is None:
            yield Finding(
                object=f"type {name}",
                expected=", ".join(labels),
                found="no such ENUM type",
                impact="No column can have this type, and the models' statements that name it fail.",
                fix=ddl.create_enum(name, labels),
            )
        elif there != labels:
            yield Finding(
                object=f"type {name}",
                expected=", ".join(labels),
                found=", ".join(there),
                impact="The models write labels that the server refuses, read labels that they do not know, or "
                "compare them in another order.",
                fix=_fix(name, labels, there, _columns_of(name, expected, found)),
            )


def _columns_of(type_name: str, expected: Schema, found: Schema) -> list[tuple[str, str, Column]]:
    """Return the columns that have the type and should."""
    return [
        (table_name, column_name, column)
        for table_name, table in expected.tables.items()
        for column_name, column in table.columns.items()
        if table_name in found.tables
        and column_name in found.tables[table_name].columns
        and column.type == found.tables[table_name].columns[column_name].type == type_name
    ]


def _fix(name: str, labels: tuple[str, ...], found: tuple[str, ...], columns: list[tuple[str, str, Column]]) -> str:
    quoted = quote(name)
    if len(found) == len(labels):
        pairs = [(old, new) for old, new in zip(found, labels, strict=True) if old != new]
        if not {old for old, _ in pairs} & set(labels) and not {new for _, new in pairs} & set(found):
            return ddl.join_statements(
                *(f"ALTER TYPE {quoted} RENAME VALUE {literal(old)} TO {literal(new)};" for old, new in pairs)
            )
    if list(found) == [label for label in labels if label in found] and found:
        return _add_labels(quoted, labels, found)
    return ddl.recreate_enum(name, labels, columns)


def _add_labels(quoted: str, labels: tuple[str, ...], found: tuple[str, ...]) -> str:
    statements = []
    for place, label in enumerate(labels):
        if label not in found:
            where = f"AFTER {literal(labels[place - 1])}" if place else f"BEFORE {literal(found[0])}"
            statements.append(f"ALTER TYPE {quoted} ADD VALUE {literal(label)} {where};")
    return ddl.join_statements(*statements)
