"""Plan the conversion of columns: one statement per table, so each table is rewritten once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from syntegra_db.adoption import _queries
from syntegra_db.adoption._model import SchemaChange, TableRewrite
from syntegra_db.sql import quote, quote_name

if TYPE_CHECKING:
    from syntegra_db.adoption._inspection import Inspection
    from syntegra_db.adoption._row_checks import PlannedRows
    from syntegra_db.catalog import Table
    from syntegra_db.catalog.conversions import Conversion

# Measured once: 11.3 s under the lock, with checks, checksums, rewrite and indexes, for 288 MB (930,000 rows, 30,000 of
# them with embeddings) of the tests' serial_ids.sql, on two cores and PostgreSQL 18. Other disks differ.
BYTES_PER_SECOND = 25_000_000
DATE_AND_TIME = {"timestamp without time zone", "date"}


def plan_rewrites(rows: PlannedRows) -> tuple[tuple[TableRewrite, ...], tuple[SchemaChange, ...]]:
    """Return the tables that are rewritten, and those that change in the catalog only."""
    rewrites, changes = [], []
    inspection = rows.inspection
    for name, declared, installed in inspection.tables():
        converted = {
            column: conversion
            for (table, column), conversion in inspection.conversions.items()
            if table == name and conversion
        }
        is_unlogged = installed.persistence == "unlogged"
        descriptions = [
            _describe_conversion(inspection, column, installed.columns[column].type, declared.columns[column].type)
            for column in converted
        ]
        statements = [_alter_table(name, declared, installed, converted)] if converted else []
        if is_unlogged or any(conversion.rewrites for conversion in converted.values()):
            if is_unlogged:
                descriptions.append("unlogged → permanent")
                statements.append(f"ALTER TABLE {quote(name)} SET LOGGED;")
            size = rows.connection.scalars(_queries.SIZE, {"table": quote_name(name)}).one()
            rewrites.append(
                TableRewrite(
                    table=name,
                    columns=tuple(descriptions),
                    rows=rows.count(name),
                    bytes=size,
                    seconds=size / BYTES_PER_SECOND,
                    statements=tuple(statements),
                )
            )
        elif converted:
            found = "another type with the same stored values"
            changes.append(SchemaChange(f"table {name}", ", ".join(descriptions), found, tuple(statements)))
    return tuple(rewrites), tuple(changes)


def converted_table(inspection: Inspection, name: str, table: Table) -> Table:
    """Return `table` as it is after its conversion."""
    declared = inspection.declared.tables[name].columns
    columns = dict(table.columns)
    converted = [column for converted_name, column in inspection.conversions if converted_name == name]
    for column in converted:
        new = declared[column]
        columns[column] = replace(columns[column], type=new.type, collation=new.collation, default=new.default)
    if converted:
        columns = {
            column: replace(old, storage=declared[column].storage if column in declared else old.storage)
            for column, old in columns.items()
        }
    return replace(table, columns=columns, persistence="permanent")


def _describe_conversion(inspection: Inspection, column: str, old: str, new: str) -> str:
    zone = f", read as {inspection.timezone}" if old in DATE_AND_TIME else ""
    return f"{column}: {old} → {new}{zone}"


def _alter_table(table: str, declared: Table, installed: Table, converted: dict[str, Conversion]) -> str:
    actions = []
    for name, conversion in converted.items():
        column = declared.columns[name]
        alter = f"ALTER COLUMN {quote(name)}"
        using = f" USING {conversion.using.replace('{}', quote(name))}" if conversion.using else ""
        collation = f" COLLATE {column.collation}" if column.collation else ""
        if (installed.columns[name].default or "").startswith("GENERATED ALWAYS AS ("):
            actions.append(f"{alter} DROP EXPRESSION")
        elif name != "id":
            actions.append(f"{alter} DROP DEFAULT")
        actions.append(f"{alter} TYPE {column.type}{collation}{using}")
        if column.default and name != "id":
            actions.append(f"{alter} SET DEFAULT {column.default}")
        if column.type.startswith("vector"):
            actions.append(f"{alter} SET STORAGE {column.storage}")
    # Only a rewrite moves stored values to the declared storage.
    actions += [
        f"ALTER COLUMN {quote(name)} SET STORAGE {column.storage}"
        for name, column in declared.columns.items()
        if name not in converted and name in installed.columns and installed.columns[name].storage != column.storage
    ]
    return f"ALTER TABLE {quote(table)} {', '.join(actions)};"
