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

from syntegra_db.migrations.authoring._effects import ALTERED_TABLE, is_widened, sql_of
from syntegra_db.migrations.online import TransactionStep, describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from alembic.operations.ops import MigrateOperation

    from syntegra_db.catalog import Schema
    from syntegra_db.migrations.online import Step

SET_NOT_NULL = re.compile(r'ALTER (?:COLUMN )?"?(?P<column>\w+)"? SET NOT NULL', re.IGNORECASE)
ENDING_SQL = re.compile(
    r"\bDROP (?!CONSTRAINT|DEFAULT|NOT NULL|EXPRESSION|IDENTITY|INDEX|FUNCTION)"
    r"|\AALTER (?!INDEX|SEQUENCE)[^;]*\bRENAME (?!CONSTRAINT)",
    re.IGNORECASE,
)
BEGINNING_SQL = re.compile(
    r"\bADD (?:COLUMN|VALUE)\b|\bCREATE (?:OR REPLACE )?(?:TABLE|TRIGGER|VIEW|TYPE)\b", re.IGNORECASE
)
PHASE_OF_ONLINE_SQL = re.compile(r"CREATE OR REPLACE TRIGGER|DROP TRIGGER|ALTER TYPE|ALTER TABLE \S+ ALTER COLUMN")


class PhaseOperations(NamedTuple):
    """What a revision does, in words: `ending` is a contraction, `beginning` an expansion.

    `tables` are the tables that exist already and that one of these operations changes.
    """

    ending: list[str]
    beginning: list[str]
    tables: set[str]


def divide_by_phase(steps: Iterable[Step], before: Schema) -> PhaseOperations:
    """Divide the operations of `steps` on a database with the schema `before`; those of neither kind are left out."""
    found = PhaseOperations([], [], set())
    # The columns that this revision adds, with whether a row of an old service gets a value.
    added: dict[tuple[str, str], bool] = {}
    for step in steps:
        for operation in step.in_transaction():
            sql = _sql(step, operation)
            table = _table_of(operation, sql)
            if isinstance(operation, AddColumnOp):
                added[table, str(operation.column.name)] = operation.column.server_default is not None
            words = step.description if isinstance(operation, ExecuteSQLOp) else describe(operation)
            endings = list(_endings(operation, sql, words, before, added))
            found.ending.extend(endings)
            is_beginning = isinstance(operation, AddColumnOp | CreateTableOp) or BEGINNING_SQL.search(sql)
            if is_beginning:
                found.beginning.append(words)
            if (endings or is_beginning) and table in before.tables:
                found.tables.add(table)
    return found


def _sql(step: Step, operation: MigrateOperation) -> str:
    """Return the SQL to judge: of an online operation, only what begins or ends something for services."""
    sql = sql_of(operation)
    is_online = isinstance(step, TransactionStep) and not step.is_collected
    return "" if is_online and not PHASE_OF_ONLINE_SQL.match(sql) else sql


def _table_of(operation: MigrateOperation, sql: str) -> str:
    altered = ALTERED_TABLE.search(sql)
    return altered["table"] if altered else str(vars(operation).get("table_name"))


def _endings(
    operation: MigrateOperation, sql: str, words: str, before: Schema, added: dict[tuple[str, str], bool]
) -> Iterator[str]:
    table = _table_of(operation, sql)
    if isinstance(operation, DropColumnOp | DropTableOp | RenameTableOp) or ENDING_SQL.search(sql):
        yield words
    column = str(vars(operation).get("column_name"))
    is_not_null = isinstance(operation, AlterColumnOp) and operation.modify_nullable is False
    if set_in_sql := SET_NOT_NULL.search(sql):
        column, is_not_null = set_in_sql["column"], True
    if is_not_null and not _has_value(table, column, before, added):
        yield f"set {table}.{column} NOT NULL, which services of the revision before may not give"
    if isinstance(operation, AlterColumnOp):
        if operation.modify_server_default is None and not _is_nullable(table, column, before):
            yield f"drop the default of {table}.{column}"
        if operation.modify_name is not None:
            yield f"rename column {table}.{column}"
        declared = before.tables[table].columns.get(column) if table in before.tables else None
        if operation.modify_type is not None and declared and not is_widened(declared.type, operation.modify_type):
            yield f"change the type of {table}.{column}"


def _has_value(table: str, column: str, before: Schema, added: dict[tuple[str, str], bool]) -> bool:
    """Return whether a row that a service of the revision before inserts has a value in the column."""
    if (table, column) in added:
        return added[table, column]
    return not _is_nullable(table, column, before)


def _is_nullable(table: str, column: str, before: Schema) -> bool:
    declared = before.tables[table].columns.get(column) if table in before.tables else None
    return declared is None or declared.nullability == "NULL"
