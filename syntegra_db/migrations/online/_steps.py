"""The steps of a revision with online operations: each is committed, and recorded, before the next one begins."""

from __future__ import annotations

import logging
import re
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from alembic.operations.ops import (
    AddColumnOp,
    AddConstraintOp,
    CreateIndexOp,
    CreateTableOp,
    DropColumnOp,
    DropConstraintOp,
    DropIndexOp,
    DropTableOp,
    ExecuteSQLOp,
)
from psycopg.errors import CheckViolation, ForeignKeyViolation, UniqueViolation
from sqlalchemy import DDL
from sqlalchemy.exc import DBAPIError

from syntegra_db.migrations._commit import connection_was_lost
from syntegra_db.sql import catalog_query, execute_raw, qualify, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alembic.operations.ops import MigrateOperation
    from sqlalchemy import Row

    from syntegra_db.migrations.online._script import StepScript
    from syntegra_db.migrations.online._session import StepSession
    from syntegra_db.recorded_steps import BackfillProgress

logger = logging.getLogger(__name__)

CONCURRENTLY = "postgresql_concurrently"
# As `make revision` writes it. It has a name, because dropping the column undoes it.
SET_STORAGE = re.compile(
    r"ALTER TABLE (?P<table>\w+) ALTER (?:COLUMN )?(?P<column>\w+) SET STORAGE \w+;?", re.ASCII | re.IGNORECASE
)
DropOperation = DropTableOp | DropIndexOp | DropColumnOp | DropConstraintOp
INDEX_STATE = catalog_query("""
    SELECT indisvalid, indisunique, relname, ARRAY(
        SELECT attname::text FROM unnest(indkey) WITH ORDINALITY AS key (number, position)
        JOIN pg_attribute ON attrelid = indrelid AND attnum = number ORDER BY position
      ) AS columns
    FROM pg_index JOIN pg_class ON pg_class.oid = indrelid WHERE indexrelid = to_regclass(:name)
""")


class Step(Protocol):
    """One step of a revision."""

    @property
    def description(self) -> str:
        """What it does, such as `create index idx_kpi_summary_unit`."""

    def run(self, session: StepSession, number: int, progress: BackfillProgress | None) -> None:
        """Run it on a database in use, from `progress` on if it was begun, and record it as step `number`."""

    def in_transaction(self) -> Sequence[MigrateOperation]:
        """Return the operations of Alembic that do the same inside one transaction, and block other sessions."""

    def script(self, script: StepScript, number: int) -> str:
        """Return the statements for psql that do the same as `run`."""


@dataclass(frozen=True)
class TransactionStep:
    """Operations of Alembic in one transaction.

    `repeated` replaces them where objects may exist already, if `IF EXISTS` and the like are not enough. `cleanup` are
    those that drop what is there only until a later step. `is_collected` means that the operations are those of the
    revision, and not those of an online operation.
    """

    operations: tuple[MigrateOperation, ...]
    description: str
    repeated: tuple[MigrateOperation, ...] = ()
    cleanup: tuple[MigrateOperation, ...] = ()
    is_collected: bool = False

    def run(self, session: StepSession, number: int, progress: BackfillProgress | None) -> None:  # noqa: ARG002  of Step
        """Run the operations in one transaction."""
        operations: Sequence[MigrateOperation]
        if session.is_repeated:
            tolerated = [part for operation in self.operations for part in tolerant(operation, session.schema)]
            operations = self.repeated or tolerated
        else:
            operations = [in_schema(operation, session.schema) for operation in self.operations]
        with session.recorded_transaction(number):
            for operation in operations:
                session.operations.invoke(operation)

    def in_transaction(self) -> Sequence[MigrateOperation]:
        """Return the operations."""
        return self.operations

    def script(self, script: StepScript, number: int) -> str:
        """Return one transaction."""
        operations = [in_schema(operation, script.schema) for operation in self.operations]
        return script.transaction(number, script.render(*operations))


@dataclass(frozen=True)
class ValidationStep:
    """A statement that reads all rows under a lock that neither readers nor writers wait behind.

    `find_rows` is the query for the rows that make it fail.
    """

    statement: str
    description: str
    find_rows: str

    def run(self, session: StepSession, number: int, progress: BackfillProgress | None) -> None:  # noqa: ARG002  of Step
        """Run the statement in a transaction."""
        with session.unlimited_transaction(number):
            try:
                execute_raw(session.connection, self.statement)
            except DBAPIError as error:
                if isinstance(error.orig, CheckViolation | ForeignKeyViolation):
                    error.add_note(f"Correct the rows that this finds, and run this again: {self.find_rows}")
                raise

    def in_transaction(self) -> Sequence[MigrateOperation]:
        """Return the statement."""
        return [execute(self.statement)]

    def script(self, script: StepScript, number: int) -> str:
        """Return one transaction without a limit for locks."""
        return script.transaction(number, f"SET LOCAL lock_timeout = 0;\n{self.statement};")


@dataclass(frozen=True)
class AutocommitStep:
    """An operation of Alembic that cannot run inside a transaction; `cleanup` is as in `TransactionStep`."""

    operation: MigrateOperation
    description: str
    cleanup: tuple[MigrateOperation, ...] = ()

    def run(self, session: StepSession, number: int, progress: BackfillProgress | None) -> None:  # noqa: ARG002  of Step
        """Run it, then record it; if an index is there already, an interrupted run has built it."""
        with session.autocommit():
            if isinstance(self.operation, CreateIndexOp) and self.operation.kw.get(CONCURRENTLY):
                _create_index(session, self.operation)
            else:
                for operation in tolerant(self.operation, session.schema):
                    session.operations.invoke(operation)
        session.finish(number)

    def in_transaction(self) -> Sequence[MigrateOperation]:
        """Return the operation without CONCURRENTLY."""
        return [not_concurrently(self.operation)]

    def script(self, script: StepScript, number: int) -> str:
        """Return the statement without a limit for locks, after the drop of an invalid index of its name."""
        statements = script.render(*tolerant(self.operation, script.schema))
        drop = ""
        if isinstance(self.operation, CreateIndexOp):
            drop = script.drop_invalid_index(str(self.operation.index_name))
        return script.autocommit(number, drop + statements)


def is_built_by(session: StepSession, operation: CreateIndexOp) -> bool:
    """Return whether the index that `operation` builds is installed, valid or not, on its table and columns."""
    state = _index_state(session, operation)
    # Of expressions, only their number is known.
    return (
        state is not None
        and (state.relname, state.indisunique) == (operation.table_name, bool(operation.unique))
        and (
            not all(isinstance(column, str) for column in operation.columns)
            or state.columns[: len(operation.columns)] == list(operation.columns)
        )
    )


def _index_state(session: StepSession, operation: CreateIndexOp) -> Row[Any] | None:
    name = qualify(session.schema, str(operation.index_name))
    return session.connection.execute(INDEX_STATE, {"name": name}).first()


def _create_index(session: StepSession, operation: CreateIndexOp) -> None:
    if _is_invalid(session, operation):
        logger.info("Dropping the invalid index %s, left by an interrupted run", operation.index_name)
        _drop_index(session, operation)
    elif is_built_by(session, operation):
        logger.info("The index %s is already there", operation.index_name)
        return
    try:
        session.operations.invoke(in_schema(operation, session.schema))
    except DBAPIError as error:
        if not connection_was_lost(error):
            session.connection.rollback()
            if _is_invalid(session, operation):
                # It slows writers down, and a unique one rejects their rows.
                _drop_index(session, operation)
        if isinstance(error.orig, UniqueViolation):
            error.add_note(f"Correct the rows that this finds, and run this again: {_find_duplicates(operation)}")
        raise


def _find_duplicates(operation: CreateIndexOp) -> str:
    columns = ", ".join(quote(column) if isinstance(column, str) else str(column) for column in operation.columns)
    condition = operation.kw.get("postgresql_where")
    where = "" if condition is None else f" WHERE {condition}"
    return (
        f"SELECT {columns}, count(*) FROM {quote(operation.table_name)}{where} GROUP BY {columns} HAVING count(*) > 1;"  # noqa: S608  printed
    )


def _is_invalid(session: StepSession, operation: CreateIndexOp) -> bool:
    """Return whether the index that `operation` builds is on its table, but not valid."""
    state = _index_state(session, operation)
    return state is not None and state.relname == operation.table_name and not state.indisvalid


def _drop_index(session: StepSession, operation: CreateIndexOp) -> None:
    name = qualify(session.schema, str(operation.index_name))
    session.connection.rollback()
    execute_raw(session.connection, f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def not_concurrently(operation: MigrateOperation) -> MigrateOperation:
    """Return an operation that can run inside a transaction."""
    copied = copy(operation)
    if isinstance(copied, CreateIndexOp | DropIndexOp):
        copied.kw = {name: value for name, value in copied.kw.items() if name != CONCURRENTLY}
    return copied


def tolerant(operation: MigrateOperation, schema: str) -> Iterator[MigrateOperation]:
    """Yield the operations that do the same if its object exists already, or no longer; see `in_schema`."""
    if isinstance(operation, AddConstraintOp):
        names = vars(operation)
        name, table = str(names["constraint_name"]), str(names.get("table_name") or names["source_table"])
        yield DropConstraintOp(name, table, if_exists=True, schema=schema)
        yield operation
        return
    copied = in_schema(operation, schema)
    if isinstance(copied, CreateTableOp | CreateIndexOp | AddColumnOp):
        copied.if_not_exists = True
    elif isinstance(copied, DropOperation):
        copied.if_exists = True
    yield copied


def in_schema(operation: MigrateOperation, schema: str) -> MigrateOperation:
    """Return a copy of `operation`; what it drops or indexes is in `schema`: the next one can have the same name."""
    copied = copy(operation)
    if isinstance(copied, DropOperation | CreateIndexOp):
        copied.schema = schema
    return copied


def execute(statement: str) -> ExecuteSQLOp:
    """Return the operation that executes `statement` as written."""
    return ExecuteSQLOp(DDL(statement.replace("%", "%%")))  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


def describe(operation: MigrateOperation) -> str:
    """Return an operation of Alembic in words, such as `add column kpi_summary.unit`."""
    if isinstance(operation, ExecuteSQLOp):
        storage = SET_STORAGE.fullmatch(str(operation.sqltext))
        return f"set storage of {storage['table']}.{storage['column']}" if storage else "execute SQL"
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(operation).__name__.removesuffix("Op")).lower()
    names = vars(operation)
    column = names["column"].name if "column" in names else names.get("column_name")
    parts = (names.get("index_name") or names.get("constraint_name"),) if column is None else ()
    name = next(filter(None, parts), None) or ".".join(filter(None, (names.get("table_name"), column)))
    return f"{words} {name}".rstrip()
