"""What the operations of a revision do to tables that exist already: locks, how long, and the online form."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from alembic.operations.ops import (
    AddColumnOp,
    AddConstraintOp,
    AlterColumnOp,
    BulkInsertOp,
    CreateCheckConstraintOp,
    CreateForeignKeyOp,
    CreateIndexOp,
    CreateTableCommentOp,
    CreateTableOp,
    CreateUniqueConstraintOp,
    DropColumnOp,
    DropIndexOp,
    DropTableCommentOp,
    DropTableOp,
    ExecuteSQLOp,
)
from sqlalchemy import Computed, DefaultClause, ForeignKeyConstraint, Identity
from sqlalchemy.dialects import postgresql

from syntegra_db.migrations.online import (
    CONCURRENTLY,
    AutocommitStep,
    BackfillStep,
    TransactionStep,
    ValidationStep,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from alembic.operations.ops import MigrateOperation
    from sqlalchemy import Column
    from sqlalchemy.types import TypeEngine

    from syntegra_db.catalog import Schema
    from syntegra_db.migrations.online import Step

ACCESS_EXCLUSIVE = "ACCESS EXCLUSIVE"
ROW_EXCLUSIVE = "ROW EXCLUSIVE"
SHARE_ROW_EXCLUSIVE = "SHARE ROW EXCLUSIVE"
SHARE_UPDATE_EXCLUSIVE = "SHARE UPDATE EXCLUSIVE"
AT_ONCE = "for a moment"
BUILD = "while the index is built"
READ = "while all its rows are read"
REWRITE = "while it is rewritten"
BATCHES = "with the rows of one batch at a time"
OWN_SQL = "as long as its SQL takes"

# Not an expression that the server evaluates for each row.
CONSTANT_CALL = re.compile(r"(?:now|transaction_timestamp|statement_timestamp)\(\)")
CALL = re.compile(r"\w\(")
LIMITED = re.compile(r"(?:character varying|varchar|numeric)\((?P<limit>\d+)(?:, ?(?P<scale>\d+))?\)")
ALTERED_TABLE = re.compile(r'ALTER TABLE (?:IF EXISTS )?(?:ONLY )?"?(?P<table>\w+)"?', re.IGNORECASE)
ALTERED_TYPE = re.compile(r"ALTER (?:COLUMN )?\S+ (?:SET DATA )?TYPE ", re.IGNORECASE)
AT_ONCE_SQL = re.compile(
    r"SET STORAGE|USING INDEX|SET NOT NULL, DROP CONSTRAINT|\A\S+ \S+ \S+ DROP CONSTRAINT (?:IF EXISTS )?\S+\Z",
    re.IGNORECASE,
)
TRIGGER = re.compile(r'(?P<verb>CREATE|DROP) (?:OR REPLACE )?TRIGGER .*? ON "?(?P<table>\w+)"?', re.IGNORECASE)


class Effect(NamedTuple):
    """A lock on a table that exists already, and for how long.

    `online_form` is what does the same without blocking other sessions for long, if the operation does block them.
    """

    lock: str
    table: str
    duration: str
    online_form: str | None = None


def effects(steps: Iterable[Step], before: Schema) -> Iterator[tuple[MigrateOperation | None, list[Effect]]]:
    """Yield each operation of Alembic in `steps`, or None for a backfill or validation, with its effects.

    `before` is the schema of the database.
    """
    created: set[str] = set()
    for step in steps:
        if isinstance(step, BackfillStep):
            yield None, [Effect(ROW_EXCLUSIVE, step.table, BATCHES)]
        elif isinstance(step, ValidationStep):
            yield None, _of_sql(step.statement)
        elif isinstance(step, TransactionStep | AutocommitStep):
            for operation in step.operations if isinstance(step, TransactionStep) else (step.operation,):
                found = [effect for effect in _of_operation(operation, before) if effect.table not in created]
                yield operation, found
                if isinstance(operation, CreateTableOp):
                    created.add(operation.table_name)


def sql_of(operation: MigrateOperation) -> str:
    """Return the SQL that a revision wrote itself; of an operation of Alembic, an empty string."""
    written = vars(operation).get("sqltext", "")
    return str(getattr(written, "statement", written))


def altered_tables(sql: str) -> Iterator[tuple[str, str]]:
    """Yield each table that `sql` alters, with the text of its ALTER TABLE."""
    found = list(ALTERED_TABLE.finditer(sql))
    ends = [*(match.start() for match in found[1:]), len(sql)]
    for match, end in zip(found, ends, strict=False):
        yield match["table"], sql[match.start() : end].rstrip("; \n")


def _of_operation(operation: MigrateOperation, before: Schema) -> list[Effect]:  # noqa: PLR0911  one for each kind
    if isinstance(operation, CreateTableOp):
        keys = (item for item in operation.columns if isinstance(item, ForeignKeyConstraint))
        tables = {key.elements[0].target_fullname.rpartition(".")[0] for key in keys} - {operation.table_name}
        return [Effect(SHARE_ROW_EXCLUSIVE, table, AT_ONCE) for table in sorted(tables)]
    if isinstance(operation, ExecuteSQLOp):
        return _of_sql(sql_of(operation))
    if isinstance(operation, BulkInsertOp):
        return [Effect(ROW_EXCLUSIVE, str(operation.table.name), AT_ONCE)]
    table = str(vars(operation).get("table_name") or vars(operation).get("source_table"))
    if isinstance(operation, CreateIndexOp | DropIndexOp):
        return [_of_index(operation, table)]
    if isinstance(operation, AddConstraintOp):
        return _of_constraint(operation, table)
    if isinstance(operation, AddColumnOp):
        return [Effect(ACCESS_EXCLUSIVE, table, *_of_new_column(operation.column))]
    if isinstance(operation, AlterColumnOp):
        return _of_changed_column(operation, table, before)
    if isinstance(operation, CreateTableCommentOp | DropTableCommentOp):
        return [Effect(SHARE_UPDATE_EXCLUSIVE, table, AT_ONCE)]
    return [Effect(ACCESS_EXCLUSIVE, table, AT_ONCE)]


def _of_index(operation: CreateIndexOp | DropIndexOp, table: str) -> Effect:
    if isinstance(operation, DropIndexOp):
        if operation.kw.get(CONCURRENTLY):
            return Effect(SHARE_UPDATE_EXCLUSIVE, table, "until older transactions have ended")
        return Effect(ACCESS_EXCLUSIVE, table, AT_ONCE, "op.drop_index_online")
    if operation.kw.get(CONCURRENTLY):
        return Effect(SHARE_UPDATE_EXCLUSIVE, table, BUILD)
    return Effect("SHARE", table, BUILD, "op.create_index_online")


def _of_constraint(operation: AddConstraintOp, table: str) -> list[Effect]:
    is_not_valid = bool(vars(operation).get("kw", {}).get("postgresql_not_valid"))
    if isinstance(operation, CreateForeignKeyOp):
        form = None if is_not_valid else "op.create_foreign_key_online"
        duration = AT_ONCE if is_not_valid else READ
        tables = dict.fromkeys((table, operation.referent_table))
        return [Effect(SHARE_ROW_EXCLUSIVE, name, duration, form) for name in tables]
    if isinstance(operation, CreateCheckConstraintOp):
        if is_not_valid:
            return [Effect(ACCESS_EXCLUSIVE, table, AT_ONCE)]
        return [Effect(ACCESS_EXCLUSIVE, table, READ, "op.create_check_constraint_online")]
    is_unique = isinstance(operation, CreateUniqueConstraintOp)
    form = "op.create_unique_constraint_online" if is_unique else "op.create_index_online and ADD … USING INDEX"
    return [Effect(ACCESS_EXCLUSIVE, table, BUILD, form)]


def _of_new_column(column: Column[object]) -> tuple[str, str | None]:
    if column.foreign_keys:
        return READ, "a column without it, then op.create_foreign_key_online"
    if column.unique or column.index:
        return BUILD, "a column without it, then op.create_unique_constraint_online or op.create_index_online"
    default = column.server_default
    if isinstance(default, Computed | Identity):
        return REWRITE, "a column without it, then op.backfill"
    if default is None:
        return AT_ONCE, None if column.nullable else "a nullable column, op.backfill, then op.set_not_null_online"
    value = default.arg if isinstance(default, DefaultClause) else ""
    # A string is a value, not an expression.
    if not isinstance(value, str) and CALL.search(CONSTANT_CALL.sub("", str(value))):
        return REWRITE, "a column without the default, op.backfill, then op.alter_column for the default"
    return AT_ONCE, None


def _of_changed_column(operation: AlterColumnOp, table: str, before: Schema) -> list[Effect]:
    column = before.tables[table].columns.get(operation.column_name) if table in before.tables else None
    found = []
    if operation.modify_type is not None and not (column and is_widened(column.type, operation.modify_type)):
        found.append(Effect(ACCESS_EXCLUSIVE, table, REWRITE, "a new column and op.keep_alike"))
    if operation.modify_nullable is False and not (column and column.nullability != "NULL"):
        found.append(Effect(ACCESS_EXCLUSIVE, table, READ, "op.set_not_null_online"))
    return found or [Effect(ACCESS_EXCLUSIVE, table, AT_ONCE)]


def _of_sql(sql: str) -> list[Effect]:
    found = [_of_alter_table(table, text) for table, text in altered_tables(sql)]
    for match in TRIGGER.finditer(sql):
        lock = ACCESS_EXCLUSIVE if match["verb"].upper() == "DROP" else SHARE_ROW_EXCLUSIVE
        found.append(Effect(lock, match["table"], AT_ONCE))
    return found


def _of_alter_table(table: str, text: str) -> Effect:
    if "VALIDATE CONSTRAINT" in text.upper():
        return Effect(SHARE_UPDATE_EXCLUSIVE, table, READ)
    duration = REWRITE if ALTERED_TYPE.search(text) else AT_ONCE if AT_ONCE_SQL.search(text) else OWN_SQL
    return Effect(ACCESS_EXCLUSIVE, table, duration)


def is_widened(before: str, type_: TypeEngine[object]) -> bool:
    """Return whether every value of the type `before` is a value of `type_` that is stored in the same way."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    after = type_.compile(dialect=dialect).lower().replace("varchar", "character varying")
    if after == before or (before.startswith("character varying") and after in {"text", "character varying"}):
        return True
    old, new = LIMITED.fullmatch(before), LIMITED.fullmatch(after)
    is_same_kind = before.partition("(")[0] == after.partition("(")[0]
    return bool(
        old and new and is_same_kind and old["scale"] == new["scale"] and int(new["limit"]) >= int(old["limit"])
    )


def drops(steps: Iterable[Step]) -> list[str]:
    """Return the columns and tables, with their values, that `steps` drop."""
    return [
        ".".join(filter(None, (vars(operation)["table_name"], vars(operation).get("column_name"))))
        for step in steps
        if isinstance(step, TransactionStep)
        for operation in step.operations
        if isinstance(operation, DropTableOp | DropColumnOp)
    ]
