"""Columns compared, attribute by attribute."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.catalog._schema import Column
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._schema import Table

NOT_NULL = "NOT NULL"
IMPACTS = {
    "type": "Values that the models write are refused, cut or stored as something else.",
    "storage": "Values are kept in another place than was measured; an exact search of vectors out of line takes about "
    "three times as long.",
    "default": "A row that leaves the column to the server gets another value, or is refused.",
    "collation": "Sorting and comparing follow other rules, and an index may not fit the query.",
    "comment": "The data dictionary and \\d+ say something else than is meant.",
}


def compare_columns(table: str, expected: Table, found: Table) -> Iterator[Finding]:
    """Yield the columns of one table that are missing, otherwise, not asked for, or in another order."""
    for name, column in expected.columns.items():
        if name in found.columns:
            yield from _attributes(table, name, column, found.columns[name])
        else:
            yield Finding(
                object=_label(table, name),
                expected=column.type,
                found="no such column",
                impact="Every statement of the models on this table fails.",
                fix=ddl.add_column(table, name, column),
            )
    for name, column in found.columns.items():
        if name not in expected.columns:
            yield _extra(table, name, column)
    there = [name for name in found.columns if name in expected.columns]
    wanted = [name for name in expected.columns if name in found.columns]
    if there != wanted:
        yield _column_order_finding(table, wanted, there)


def _label(table: str, column: str) -> str:
    return f"column {table}.{column}"


def _attributes(table: str, name: str, expected: Column, found: Column) -> Iterator[Finding]:
    for attribute in (field.name for field in fields(Column)):
        wanted, there = getattr(expected, attribute), getattr(found, attribute)
        if wanted == there:
            continue
        yield Finding(
            object=_label(table, name),
            expected=_format_attribute(attribute, wanted),
            found=_format_attribute(attribute, there),
            impact=_nullability(there) if attribute == "nullability" else IMPACTS[attribute],
            fix=_fix(table, name, attribute, expected, found),
        )


def _format_attribute(attribute: str, value: str | None) -> str:
    if attribute in {"type", "nullability"}:
        return value or ""
    return f"{attribute} {value}" if value else f"no {attribute}"


def _nullability(found: str) -> str:
    if found == NOT_NULL:
        return "Inserts that leave the column empty fail."
    if found == "NULL":
        return "Rows without a value can be written, and readers do not expect them."
    return "Rows from before may hold NULL, and readers do not expect it."


def _fix(table: str, name: str, attribute: str, expected: Column, found: Column) -> str:
    if attribute in {"type", "collation"}:
        return ddl.alter_column_type(table, name, expected)
    if attribute == "comment":
        return ddl.comment_on("COLUMN", f"{quote(table)}.{quote(name)}", expected.comment)
    if attribute == "nullability":
        return ddl.alter_column(table, name, f"{'DROP' if expected.nullability == 'NULL' else 'SET'} {NOT_NULL}")
    if attribute == "storage":
        return ddl.join_statements(
            ddl.alter_column(table, name, f"SET STORAGE {expected.storage}"),
            "-- Values that are there already stay where they are until they are written again.",
        )
    return _default_fix(table, name, expected, found)


def _default_fix(table: str, name: str, expected: Column, found: Column) -> str:
    there = found.default or ""
    if there.endswith(" VIRTUAL"):
        return ddl.join_statements(
            f"ALTER TABLE {quote(table)} DROP COLUMN {quote(name)};", ddl.add_column(table, name, expected)
        )
    special = "IDENTITY" if there.endswith(" IDENTITY") else "EXPRESSION" if there.startswith("GENERATED") else None
    return ddl.join_statements(
        ddl.alter_column(table, name, f"DROP {special}") if special else "",
        ddl.alter_column(table, name, f"SET DEFAULT {expected.default}") if expected.default else "",
        ddl.alter_column(table, name, "DROP DEFAULT") if not special and not expected.default else "",
    )


def _extra(table: str, name: str, column: Column) -> Finding:
    refuses = column.nullability != "NULL" and column.default is None
    return Finding(
        object=_label(table, name),
        expected="no such column",
        found=f"{column.type} {column.nullability}{f' DEFAULT {column.default}' if column.default else ''}",
        impact="Every insert of the models fails, since it gives no value."
        if refuses
        else "None for this package, which does not use it.",
        fix=ddl.alter_column(table, name, f"DROP {NOT_NULL}") if refuses else "-- Nothing to mend.",
        is_drift=refuses,
    )


def _column_order_finding(table: str, expected: list[str], found: list[str]) -> Finding:
    return Finding(
        object=f"table {table}",
        expected=f"columns in the order {', '.join(expected)}",
        found=f"in the order {', '.join(found)}",
        impact="INSERT and COPY without a list of columns put values into other columns.",
        fix="-- Only a new table has another order; name the columns in INSERT and COPY.",
        is_drift=False,
    )
