"""Restore columns of tables that keep their rows: the saved values, by id."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO

from psycopg import sql

from syntegra_db.backup._load import column_types, invalidated_if_interrupted, missing_columns
from syntegra_db.errors import RestoreFailed
from syntegra_db.migrations import find_data_loss, run_in_transaction
from syntegra_db.network import psycopg_connection
from syntegra_db.search_path import table_name
from syntegra_db.sql import execute_raw, quote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from sqlalchemy import Connection

    from syntegra_db.backup._load import TableLoader

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
# Temporary tables; the first one has a number as its suffix.
SAVED, LOST, MIGRATED = "pg_temp.syntegra_db_saved", "pg_temp.syntegra_db_lost", "pg_temp.syntegra_db_migrated"


@dataclass(frozen=True)
class RestoredColumns:
    """The columns of a table that kept its rows, and the number of its rows that got saved values.

    `changed_rows` have neither the saved value nor what the migrations made of it, so they keep their values.
    """

    table: str
    columns: tuple[str, ...]
    rows: int
    changed_rows: int = 0

    @property
    def label(self) -> str:
        """The columns with the name of their table."""
        return ", ".join(f"{self.table}.{name}" for name in self.columns)


@dataclass
class SavedColumns:
    """What a table that keeps its rows gets from a backup: all values of `replaced` columns, some of `narrowed` ones.

    `narrowed` are those whose type or labels could not store every saved value. `source` is the name of a temporary
    table with the saved rows as text.
    """

    table: str
    source: str
    requested: frozenset[str]
    replaced: list[str]
    narrowed: list[str] = field(default_factory=list)


def find_saved_columns(
    tables: Collection[str], before: str | None, revision: str, requested: Collection[tuple[str, str]]
) -> list[SavedColumns]:
    """Return what `tables`, which keep their rows, get after an upgrade from `before` to the backup's `revision`.

    It is what a downgrade from `revision` to `before` loses, and all values of the `requested` columns.
    """
    found = []
    losses = find_data_loss(revision, before) if tables else []
    for number, table in enumerate(tables):
        names = [name for requested_table, name in requested if requested_table == table]
        saved = SavedColumns(table, f"{SAVED}_{number}", frozenset(names), names)
        for loss in losses:
            if loss.table == table and loss.column is not None and loss.column not in saved.replaced:
                if loss.is_complete:
                    saved.replaced.append(loss.column)
                elif loss.column not in saved.narrowed:
                    saved.narrowed.append(loss.column)
        if saved.replaced or saved.narrowed:
            found.append(saved)
    return found


def load_saved_rows(connection: Connection, loader: TableLoader, saved: SavedColumns) -> None:
    """Load the saved rows into the temporary table `saved.source`, and forget columns that the backup does not have.

    Raises:
        RestoreFailed: a requested column is not in the backup, or a column is not in the table.
    """

    def create(names: list[str]) -> sql.Identifier:
        if absent := sorted(saved.requested - set(names)):
            listed = ", ".join(f"{saved.table}.{name}" for name in absent)
            raise RestoreFailed(f"The backup has no values of {listed}. Nothing was changed. Correct the option.")
        saved.replaced = [name for name in saved.replaced if name in names]
        saved.narrowed = [name for name in saved.narrowed if name in names]
        types = column_types(connection, saved.table)
        if missing := [name for name in (*saved.replaced, *saved.narrowed) if name not in types]:
            raise missing_columns(saved.table, missing)
        # Text is not parsed, and does not depend on types that a migration drops.
        columns = (f"{quote(name)} {'bigint' if name == 'id' else 'text'}" for name in names)
        _create_temporary_table(connection, saved.source, *columns)
        return sql.Identifier(*saved.source.split("."))

    loader.load(saved.table, create)


def restore_replaced_columns(connection: Connection, tables: Iterable[SavedColumns]) -> Iterator[RestoredColumns]:
    """Set the saved values of the replaced columns in the rows that still exist, and yield what got them.

    Raises:
        DBAPIError: a statement failed, for example because a restored foreign key refers to no row.
    """
    for saved in tables:
        if saved.replaced:
            types = column_types(connection, saved.table)
            values = {quote(name): f"saved.{quote(name)}::{types[name]}" for name in saved.replaced}
            rows = execute_raw(
                connection,
                f"UPDATE {table_name(connection, saved.table)} AS current "  # noqa: S608  quoted names
                f"SET {', '.join(f'{name} = {value}' for name, value in values.items())} "
                f"FROM {saved.source} AS saved WHERE current.id = saved.id "
                f"AND {_differ([f'current.{name}' for name in values], values.values())}",
            ).rowcount
            yield RestoredColumns(saved.table, tuple(saved.replaced), rows)


def restore_narrowed_columns(
    connection: Connection, tables: Iterable[SavedColumns], before: str | None, revision: str
) -> list[RestoredColumns]:
    """Set the saved values in columns that were narrower, or had fewer ENUM labels, and return what got them.

    A row gets its value back if it has exactly what a downgrade to `before` and an upgrade make of the saved value;
    they are run for that, and rolled back. Other rows were changed since, and keep their values.

    Raises:
        DBAPIError: a statement failed.
    """
    columns = [(saved.table, name) for saved in tables for name in saved.narrowed]
    if not columns:
        return []
    _create_temporary_table(connection, LOST, "number integer", "id bigint", "current text", "saved text")
    for saved in tables:
        for name in saved.narrowed:
            _note_lost_values(connection, saved, name, columns.index((saved.table, name)))
    totals = {
        number: total
        for number in range(len(columns))
        if (total := execute_raw(connection, f"SELECT count(*) FROM {LOST} WHERE number = {number}").scalar_one())  # noqa: S608  of this module
    }
    if totals:
        _note_migrated_values(connection, columns, before, revision)
    restored = []
    for number, total in totals.items():
        table, name = columns[number]
        rows = _set_lost_values(connection, table, name, number, only_unchanged=True)
        restored.append(RestoredColumns(table, (name,), rows, total - rows))
    return restored


def _note_lost_values(connection: Connection, saved: SavedColumns, column: str, number: int) -> None:
    value = f"saved.{quote(column)}::{column_types(connection, saved.table)[column]}"
    execute_raw(
        connection,
        f"INSERT INTO {LOST} SELECT {number}, current.id, current.{quote(column)}::text, saved.{quote(column)} "  # noqa: S608  quoted names
        f"FROM {table_name(connection, saved.table)} AS current JOIN {saved.source} AS saved ON current.id = saved.id "
        f"WHERE {_differ([f'current.{quote(column)}'], [value])}",
    )


def _note_migrated_values(
    connection: Connection, columns: Sequence[tuple[str, str]], before: str | None, revision: str
) -> None:
    """Store what a downgrade to `before` and an upgrade to `revision` make of the lost values; both are rolled back."""
    logger.info("Migrating the saved values down and up, to find the rows that were not changed since")
    _create_temporary_table(connection, MIGRATED, "number integer", "id bigint", "value text")
    # The rollback would empty a temporary table, and the rows may not fit into the memory.
    with TemporaryFile() as file:
        savepoint = connection.begin_nested()
        for number, (table, column) in enumerate(columns):
            _set_lost_values(connection, table, column, number)
        run_in_transaction(connection, "downgrade", before or "base")
        run_in_transaction(connection, "upgrade", revision)
        for number, (table, column) in enumerate(columns):
            rows = (
                f"SELECT {number}, lost.id, current.{quote(column)}::text FROM {LOST} AS lost "  # noqa: S608  quoted names
                f"JOIN {table_name(connection, table)} AS current ON current.id = lost.id WHERE lost.number = {number}"
            )
            _copy_out(connection, rows, file)
        savepoint.rollback()
        file.seek(0)
        _copy_in(connection, MIGRATED, file)


def _set_lost_values(
    connection: Connection, table: str, column: str, number: int, *, only_unchanged: bool = False
) -> int:
    unchanged = (
        f" AND EXISTS (SELECT FROM {MIGRATED} AS migrated WHERE migrated.number = lost.number "  # noqa: S608  of this module
        "AND migrated.id = lost.id AND migrated.value IS NOT DISTINCT FROM lost.current)"
    )
    column_type = column_types(connection, table)[column]
    return execute_raw(
        connection,
        f"UPDATE {table_name(connection, table)} AS current SET {quote(column)} = lost.saved::{column_type} "  # noqa: S608  quoted names
        f"FROM {LOST} AS lost WHERE lost.number = {number} AND current.id = lost.id"
        f"{unchanged if only_unchanged else ''}",
    ).rowcount


def _differ(values: Iterable[str], others: Iterable[str]) -> str:
    """Return SQL for whether values differ in their stored bytes, because not every type has an equality."""
    return f"CAST(ROW({', '.join(values)}) AS record) *<> CAST(ROW({', '.join(others)}) AS record)"


def _create_temporary_table(connection: Connection, name: str, *columns: str) -> None:
    execute_raw(connection, f"CREATE TEMPORARY TABLE {name} ({', '.join(columns)}) ON COMMIT DROP")


def _copy_out(connection: Connection, query: str, file: BinaryIO) -> None:
    cursor = psycopg_connection(connection).cursor()
    with invalidated_if_interrupted(connection), cursor.copy(f"COPY ({query}) TO STDOUT".encode()) as copy:
        file.writelines(copy)


def _copy_in(connection: Connection, table: str, file: BinaryIO) -> None:
    cursor = psycopg_connection(connection).cursor()
    with invalidated_if_interrupted(connection), cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
        while chunk := file.read(CHUNK_BYTES):
            copy.write(chunk)
