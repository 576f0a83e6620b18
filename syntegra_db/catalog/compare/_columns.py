"""Compare columns, attribute by attribute."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import NO_ACTION, Finding
from syntegra_db.catalog._schema import Column
from syntegra_db.catalog.compare._application_objects import preventing_actions
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._schema import Table

NOT_NULL = "NOT NULL"
IMPACTS = {
    "type": "Values that the models write are rejected, truncated or converted.",
    "storage": "Vectors are stored out of line, and an exact search takes about three times as long.",
    "default": "An insert without a value for this column stores another value or fails.",
    "collation": "Sorting and comparing follow other rules, and queries may not use an index.",
    "comment": "The data dictionary and \\d+ show another description.",
}


def compare_columns(table: str, declared: Table, installed: Table) -> Iterator[Finding]:
    """Yield the columns of one table that are missing, different, extra or in another order."""
    for name, column in declared.columns.items():
        if name in installed.columns:
            yield from _attributes(table, name, column, installed.columns[name])
        else:
            yield Finding(
                object=column_label(table, name),
                expected=column.type,
                found="no such column",
                impact="Every statement of the models on this table fails.",
                fix=ddl.add_column(table, name, column),
            )
    for name in installed.columns:
        if name not in declared.columns:
            yield _extra(table, name, declared, installed)
    declared_order = [name for name in declared.columns if name in installed.columns]
    installed_order = [name for name in installed.columns if name in declared.columns]
    if installed_order != declared_order:
        yield _column_order_finding(table, declared_order, installed_order)


def column_label(table: str, column: str) -> str:
    """Return how findings name a column."""
    return f"column {table}.{column}"


def _attributes(table: str, name: str, declared: Column, installed: Column) -> Iterator[Finding]:
    for attribute in (field.name for field in fields(Column)):
        expected, found = getattr(declared, attribute), getattr(installed, attribute)
        if expected == found:
            continue
        yield Finding(
            object=column_label(table, name),
            expected=_format_attribute(attribute, expected),
            found=_format_attribute(attribute, found),
            impact=_nullability_impact(found) if attribute == "nullability" else IMPACTS[attribute],
            fix=_fix(table, name, attribute, declared, installed),
        )


def _format_attribute(attribute: str, value: str | None) -> str:
    if attribute in {"type", "nullability"}:
        return value or ""
    return f"{attribute} {value}" if value else f"no {attribute}"


def _nullability_impact(installed: str) -> str:
    if installed == NOT_NULL:
        return "Inserts without a value fail."
    if installed == "NULL":
        return "Rows without a value can be written; applications do not expect them."
    return "Existing rows may be NULL; applications do not expect it."


def _fix(table: str, name: str, attribute: str, declared: Column, installed: Column) -> str:
    if attribute in {"type", "collation"}:
        return ddl.alter_column_type(table, name, declared)
    if attribute == "comment":
        return ddl.comment_on("COLUMN", f"{quote(table)}.{quote(name)}", declared.comment)
    if attribute == "nullability":
        return ddl.alter_column(table, name, f"{'DROP' if declared.nullability == 'NULL' else 'SET'} {NOT_NULL}")
    if attribute == "storage":
        return ddl.join_statements(
            ddl.alter_column(table, name, f"SET STORAGE {declared.storage}"),
            "-- Existing values keep their storage until they are written again.",
        )
    return _default_fix(table, name, declared, installed)


def _default_fix(table: str, name: str, declared: Column, installed: Column) -> str:
    default = installed.default or ""
    if default.endswith(" VIRTUAL"):
        return ddl.join_statements(
            f"ALTER TABLE {quote(table)} DROP COLUMN {quote(name)};", ddl.add_column(table, name, declared)
        )
    special = "IDENTITY" if default.endswith(" IDENTITY") else "EXPRESSION" if default.startswith("GENERATED") else None
    return ddl.join_statements(
        ddl.alter_column(table, name, f"DROP {special}") if special else "",
        ddl.alter_column(table, name, f"SET DEFAULT {declared.default}") if declared.default else "",
        ddl.alter_column(table, name, "DROP DEFAULT") if not special and not declared.default else "",
    )


def _extra(table: str, name: str, declared: Table, installed: Table) -> Finding:
    column = installed.columns[name]
    actions = preventing_actions(declared, installed, "columns", name)
    is_required = actions == (f"DROP {NOT_NULL}",)
    return Finding(
        object=column_label(table, name),
        expected="no such column",
        found=f"{column.type} {column.nullability}{f' DEFAULT {column.default}' if column.default else ''}",
        impact="None: this package does not use the column."
        if actions is None
        else "Every insert of the models fails, because it gives no value."
        if is_required
        else "Inserts of the models can fail, because they give no value and its type or expression can reject that.",
        fix=ddl.alter_column(table, name, *actions) if actions else NO_ACTION,
        is_drift=actions is not None,
    )


def _column_order_finding(table: str, declared: list[str], installed: list[str]) -> Finding:
    return Finding(
        object=f"table {table}",
        expected=f"columns in the order {', '.join(declared)}",
        found=f"in the order {', '.join(installed)}",
        impact="INSERT and COPY without a column list write values to the wrong columns.",
        fix="-- The order of an existing table cannot change; name the columns in INSERT and COPY.",
        is_drift=False,
    )
