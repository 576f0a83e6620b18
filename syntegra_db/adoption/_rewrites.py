"""Tables whose columns get another type: one statement a table, so that it is written anew once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from syntegra_db.adoption import _queries
from syntegra_db.adoption._model import SchemaChange, TableRewrite
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from syntegra_db.adoption._conversions import Conversion
    from syntegra_db.adoption._inspection import Inspection
    from syntegra_db.adoption._row_checks import PlannedRows
    from syntegra_db.catalog import Column, Table

# Measured once: 11.3 s under the lock, with checks, checksums, rewrite and indexes, for 288 MB (930,000 rows, 30,000 of
# them with embeddings) of serial_ids.sql of the tests, on two cores and PostgreSQL 18. Other disks differ.
BYTES_PER_SECOND = 25_000_000


def plan_rewrites(
    connection: Connection, situation: Inspection, rows: PlannedRows
) -> tuple[tuple[TableRewrite, ...], tuple[SchemaChange, ...]]:
    """Return the tables that are written anew, and those of which only the catalog changes."""
    rewrites, changes = [], []
    for name in situation.expected.tables:
        if name not in situation.found.tables:
            continue
        converted = {column: each for (table, column), each in rows.conversions.items() if table == name and each}
        logged = situation.found.tables[name].persistence == "unlogged"
        if not converted and not logged:
            continue
        told = tuple(_describe_conversion(situation, name, column) for column in converted)
        statement = tuple(_statement(situation, name, converted)) if converted else ()
        if logged or any(each.rewrites for each in converted.values()):
            size = connection.scalars(_queries.SIZE, {"table": quote(name)}).one()
            rewrites.append(
                TableRewrite(
                    table=name,
                    columns=(*told, *(["unlogged → permanent"] if logged else [])),
                    rows=rows.count(name),
                    bytes=size,
                    seconds=size / BYTES_PER_SECOND,
                    statements=(*statement, *([f"ALTER TABLE {quote(name)} SET LOGGED;"] if logged else [])),
                )
            )
        else:
            found = "another type, of which no value is stored otherwise"
            changes.append(SchemaChange(f"table {name}", ", ".join(told), found, statement))
    return tuple(rewrites), tuple(changes)


def converted_table(
    situation: Inspection, name: str, found: Table, conversions: Mapping[tuple[str, str], Conversion | None]
) -> Table:
    """Return the table as it is after its rewrite."""
    wanted = situation.expected.tables[name].columns
    columns = {
        column: _converted(there, wanted[column]) if (name, column) in conversions else there
        for column, there in found.columns.items()
    }
    if any(table == name for table, _ in conversions):
        stored = {column: wanted.get(column, there).storage for column, there in columns.items()}
        columns = {column: replace(there, storage=stored[column]) for column, there in columns.items()}
    return replace(found, columns=columns, persistence="permanent")


def _converted(there: Column, wanted: Column) -> Column:
    return replace(there, type=wanted.type, collation=wanted.collation, default=wanted.default, storage=wanted.storage)


def _describe_conversion(situation: Inspection, table: str, column: str) -> str:
    found, wanted = (shape.tables[table].columns[column] for shape in (situation.found, situation.expected))
    zone = f", read as {situation.timezone}" if found.type in {"timestamp without time zone", "date"} else ""
    return f"{column}: {found.type} → {wanted.type}{zone}"


def _statement(situation: Inspection, table: str, converted: Mapping[str, Conversion]) -> Iterator[str]:
    actions = []
    for name, each in converted.items():
        column = situation.expected.tables[table].columns[name]
        found = situation.found.tables[table].columns[name]
        alter = f"ALTER COLUMN {quote(name)}"
        using = f" USING {each.using.replace('{}', quote(name))}" if each.using else ""
        collation = f" COLLATE {column.collation}" if column.collation else ""
        if (found.default or "").startswith("GENERATED ALWAYS AS ("):
            actions.append(f"{alter} DROP EXPRESSION")
        elif name != "id":
            actions.append(f"{alter} DROP DEFAULT")
        actions.append(f"{alter} TYPE {column.type}{collation}{using}")
        if column.default and name != "id":
            actions.append(f"{alter} SET DEFAULT {column.default}")
        if column.type.startswith("vector"):
            actions.append(f"{alter} SET STORAGE {column.storage}")
    # Values go to another place while their rows are written anyway.
    actions += [
        f"ALTER COLUMN {quote(name)} SET STORAGE {column.storage}"
        for name, column in situation.expected.tables[table].columns.items()
        if name not in converted and _storage_differs(situation.found.tables[table].columns.get(name), column)
    ]
    yield f"ALTER TABLE {quote(table)} {', '.join(actions)};"


def _storage_differs(found: Column | None, wanted: Column) -> bool:
    return found is not None and found.storage != wanted.storage
