"""Compare ENUM types, label by label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.sql import literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._schema import Column, Schema


def compare_enums(declared: Schema, installed: Schema) -> Iterator[Finding]:
    """Yield the ENUM types that are missing, have other labels, or have them in another order."""
    for name, labels in declared.types.items():
        installed_labels = installed.types.get(name)
        if installed_labels is None:
            yield Finding(
                object=f"type {name}",
                expected=", ".join(labels),
                found="no such ENUM type",
                impact="No column can have this type, and statements of the models that name it fail.",
                fix=ddl.create_enum(name, labels),
            )
        elif installed_labels != labels:
            yield Finding(
                object=f"type {name}",
                expected=", ".join(labels),
                found=", ".join(installed_labels),
                impact="The server rejects labels of the models, returns labels that they do not know, or sorts them "
                "differently.",
                fix=_fix(name, labels, installed_labels, _columns_of(name, declared, installed)),
            )


def _columns_of(type_name: str, declared: Schema, installed: Schema) -> list[tuple[str, str, Column]]:
    """Return the columns that have the type in both schemas."""
    return [
        (table_name, column_name, column)
        for table_name, table in declared.tables.items()
        for column_name, column in table.columns.items()
        if table_name in installed.tables
        and column_name in installed.tables[table_name].columns
        and column.type == installed.tables[table_name].columns[column_name].type == type_name
    ]


def _fix(name: str, labels: tuple[str, ...], installed: tuple[str, ...], columns: list[tuple[str, str, Column]]) -> str:
    quoted = quote(name)
    if len(installed) == len(labels):
        pairs = [(old, new) for old, new in zip(installed, labels, strict=True) if old != new]
        if not {old for old, _ in pairs} & set(labels) and not {new for _, new in pairs} & set(installed):
            return ddl.join_statements(
                *(f"ALTER TYPE {quoted} RENAME VALUE {literal(old)} TO {literal(new)};" for old, new in pairs)
            )
    if list(installed) == [label for label in labels if label in installed] and installed:
        return _add_labels(quoted, labels, installed)
    return ddl.recreate_enum(name, labels, columns)


def _add_labels(quoted: str, labels: tuple[str, ...], installed: tuple[str, ...]) -> str:
    statements = []
    for position, label in enumerate(labels):
        if label not in installed:
            neighbour = f"AFTER {literal(labels[position - 1])}" if position else f"BEFORE {literal(installed[0])}"
            statements.append(f"ALTER TYPE {quoted} ADD VALUE {literal(label)} {neighbour};")
    return ddl.join_statements(*statements)
