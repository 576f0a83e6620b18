"""Which operations end the work of services of the revision before, and which ones begin something for new ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from alembic.operations.ops import (
    AddColumnOp,
    AlterColumnOp,
    CreateTableOp,
    DropColumnOp,
    DropTableOp,
    ExecuteSQLOp,
    RenameTableOp,
)

from syntegra_db.migrations.authoring._effects import altered_tables, is_widened, sql_of
from syntegra_db.migrations.online import KeepAlikeOp, OnlineOperation, TransactionStep, describe

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from alembic.operations.ops import MigrateOperation

    from syntegra_db.catalog import Schema
    from syntegra_db.migrations.online import AlikeColumns

SET_NOT_NULL = re.compile(r'ALTER (?:COLUMN )?"?(?P<column>\w+)"? SET NOT NULL', re.IGNORECASE)
ENDING_SQL = re.compile(
    r"\bDROP (?!CONSTRAINT|DEFAULT|NOT NULL|EXPRESSION|IDENTITY|INDEX|FUNCTION)"
    r"|\AALTER (?!INDEX|SEQUENCE)[^;]*\bRENAME (?!CONSTRAINT)",
    re.IGNORECASE,
)
BEGINNING_SQL = re.compile(
    r"\bADD (?:COLUMN|VALUE)\b|\bCREATE (?:OR REPLACE )?(?:TABLE|TRIGGER|VIEW|TYPE)\b", re.IGNORECASE
)
RENAMED_TYPE = re.compile(r'\bALTER TYPE "?(?P<name>\w+)"? RENAME TO\b', re.IGNORECASE)
CREATED_TYPE = re.compile(r'\bCREATE TYPE "?(?P<name>\w+)"?', re.IGNORECASE)
PHASE_OF_ONLINE_SQL = re.compile(r"CREATE OR REPLACE TRIGGER|DROP TRIGGER|ALTER TYPE|ALTER TABLE \S+ ALTER COLUMN")


class PhaseOperations(NamedTuple):
    """What a revision does, in words: `ending` is a contraction, `beginning` an expansion.

    `tables` are the tables that exist already and that one of these operations changes.
    """

    ending: list[str]
    beginning: list[str]
    tables: set[str]


class _Columns(NamedTuple):
    """The columns that services of the revision before write.

    `added` are those that this revision adds, with whether a row of an old service gets a value.
    """

    before: Schema
    added: dict[tuple[str, str], bool]
    alike: set[AlikeColumns]

    def is_nullable(self, table: str, column: str) -> bool:
        declared = self.before.tables[table].columns.get(column) if table in self.before.tables else None
        return declared is None or declared.nullability == "NULL"

    def has_value(self, table: str, column: str) -> bool:
        """Return whether a row that a service of the revision before inserts has a value in the column."""
        others = {
            pair.new if column == pair.old else pair.old
            for pair in self.alike
            if pair.table == table and column in pair[1:]
        }
        return any(
            self.added.get((table, name), not self.is_nullable(table, name)) for name in (column, *sorted(others))
        )


def divide_by_phase(
    operations: Iterable[MigrateOperation], before: Schema, alike: Collection[AlikeColumns]
) -> PhaseOperations:
    """Divide `operations` on a database with the schema `before`; those of neither kind are left out.

    `alike` are the columns that earlier revisions keep alike.
    """
    operations = list(operations)
    found = PhaseOperations([], [], set())
    columns = _Columns(before, {}, set(alike))
    replaced = _replaced_types(operations)
    for operation in operations:
        if isinstance(operation, KeepAlikeOp):
            columns.alike.add(operation.columns)
        for part, sql, words in _parts(operation):
            if isinstance(part, AddColumnOp):
                columns.added[part.table_name, str(part.column.name)] = part.column.server_default is not None
            endings = list(_endings(part, sql, words, columns))
            found.ending.extend(endings)
            is_beginning = isinstance(part, AddColumnOp | CreateTableOp) or _begins(sql, replaced)
            if is_beginning:
                found.beginning.append(words)
            if endings or is_beginning:
                found.tables.update(
                    {_table_of(part), *(table for table, _ in altered_tables(sql))} & before.tables.keys()
                )
    return found


def _replaced_types(operations: Iterable[MigrateOperation]) -> set[str]:
    """Return the types that take the name of another one, or lose their own: they are not new to services."""
    return {
        match["name"].lower()
        for operation in operations
        for _, sql, _ in _parts(operation)
        for match in RENAMED_TYPE.finditer(sql)
    }


def _begins(sql: str, replaced: Collection[str]) -> bool:
    """Return whether `sql` creates something that is not one of the `replaced` types."""
    new = CREATED_TYPE.sub(lambda match: "" if match["name"].lower() in replaced else match[0], sql)
    return BEGINNING_SQL.search(new) is not None


def _parts(operation: MigrateOperation) -> Iterator[tuple[MigrateOperation, str, str]]:
    """Yield the operations of Alembic, their SQL to judge, and their words.

    Of an online operation, only what begins or ends something for services is judged.
    """
    if not isinstance(operation, OnlineOperation):
        yield operation, sql_of(operation), describe(operation)
        return
    for step in operation.steps():
        for part in step.in_transaction():
            sql = sql_of(part)
            if isinstance(step, TransactionStep) and not PHASE_OF_ONLINE_SQL.match(sql):
                sql = ""
            yield part, sql, step.description if isinstance(part, ExecuteSQLOp) else describe(part)


def _table_of(operation: MigrateOperation) -> str:
    return str(vars(operation).get("table_name"))


def _endings(operation: MigrateOperation, sql: str, words: str, columns: _Columns) -> Iterator[str]:
    if isinstance(operation, DropColumnOp | DropTableOp | RenameTableOp) or ENDING_SQL.search(sql):
        yield words
    required = [
        (table, match["column"]) for table, text in altered_tables(sql) for match in SET_NOT_NULL.finditer(text)
    ]
    if isinstance(operation, AlterColumnOp):
        yield from _endings_of_column(operation, columns)
        if operation.modify_nullable is False:
            required.append((operation.table_name, operation.column_name))
    for table, column in required:
        if not columns.has_value(table, column):
            yield f"set {table}.{column} NOT NULL, which services of the revision before may not give"


def _endings_of_column(operation: AlterColumnOp, columns: _Columns) -> Iterator[str]:
    table, column = operation.table_name, operation.column_name
    if operation.modify_server_default is None and not columns.is_nullable(table, column):
        yield f"drop the default of {table}.{column}"
    if operation.modify_name is not None:
        yield f"rename column {table}.{column}"
    tables = columns.before.tables
    declared = tables[table].columns.get(column) if table in tables else None
    if operation.modify_type is not None and declared and not is_widened(declared.type, operation.modify_type):
        yield f"change the type of {table}.{column}"
