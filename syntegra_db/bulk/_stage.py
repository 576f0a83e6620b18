"""A temporary table that takes the rows of a load, and the statement that writes them from there into the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg import sql
from sqlalchemy import TwoPhaseTransaction

from syntegra_db.bulk._server_errors import concerns_row
from syntegra_db.errors import BulkLoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from sqlalchemy import Connection

    from syntegra_db.bulk._dumpers import ColumnFormat

STAGE = "syntegra_db_stage"
# Qualified, so the search_path cannot hide the session's own temporary table.
STAGE_IDENTIFIER = sql.Identifier("pg_temp", STAGE)
CREATE_STAGE = """
    CREATE TEMPORARY TABLE {stage} (LIKE {target} INCLUDING CONSTRAINTS INCLUDING STORAGE) ON COMMIT DROP
"""
# A temporary table is read in the order in which COPY wrote it.
PART = sql.SQL("(SELECT {columns} FROM {stage} LIMIT {count} OFFSET {first})")
SAVE_BEFORE_ALL = sql.SQL("SAVEPOINT syntegra_db_rows")
RETURN_BEFORE_ALL = sql.SQL("ROLLBACK TO SAVEPOINT syntegra_db_rows")
DROP_STAGE = sql.SQL("DROP TABLE {}").format(STAGE_IDENTIFIER)
EMPTY_STAGE = sql.SQL("TRUNCATE {}").format(STAGE_IDENTIFIER)
RELEASE_ALL = sql.SQL("RELEASE SAVEPOINT syntegra_db_rows")
SAVE_BEFORE_PART = sql.SQL("SAVEPOINT syntegra_db_part")
RETURN_BEFORE_PART = sql.SQL("ROLLBACK TO SAVEPOINT syntegra_db_part")


class CopyStep(NamedTuple):
    """A COPY FROM STDIN of the input, or of its next block."""

    query: sql.Composed
    table: str
    in_blocks: bool = False


class WriteStep(NamedTuple):
    """A statement that writes staged rows; the next block, if any, is formatted while the server executes it."""

    query: sql.Composed


class StepResult(NamedTuple):
    """The result of a step.

    Attributes:
        row: the first row of its last statement, if any.
        written: the number of rows that it wrote.
        more: whether rows may follow the block that it copied.
    """

    row: Any
    written: int
    more: bool = False


class LocatedError(Exception):
    """The server's error for a row whose number in the input is known."""

    def __init__(self, error: psycopg.Error, row: int) -> None:
        super().__init__(row)
        self.error = error
        self.row = row


if TYPE_CHECKING:
    # An error of the server is thrown into the generator at the step that failed.
    Step = sql.SQL | sql.Composed | CopyStep | WriteStep
    Steps = Generator[Step, StepResult, int]


def require_transaction(connection: Connection, load: str) -> None:
    """Raise `BulkLoadError` if `connection` cannot stage the rows of `load`: in autocommit or in two phases."""
    driver: Any = connection.connection.driver_connection
    if driver.autocommit:
        raise BulkLoadError(f"{load} needs a transaction, but this connection is in AUTOCOMMIT.")
    if isinstance(connection.get_transaction(), TwoPhaseTransaction):
        raise BulkLoadError(
            f"{load} uses a temporary table, which PostgreSQL does not allow in a two-phase transaction."
        )


def copy_step(target: sql.Identifier, columns: Sequence[ColumnFormat], table: str) -> CopyStep:
    """Return the COPY of `columns` into `target`, whose name without its schema is `table`."""
    return CopyStep(sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(target, name_list(columns)), table)


def name_list(columns: Sequence[ColumnFormat]) -> sql.Composed:
    """Return the names of `columns` for a statement."""
    return sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)


def create_stage(target: sql.Identifier, left_out: Sequence[str], keys: Sequence[ColumnFormat] = ()) -> sql.Composed:
    """Return the statements that create the stage.

    The stage has the types and CHECKs of `target`, so COPY reports the row that violates one. `left_out` are the
    columns that the rows do not have. Two rows with the same `keys` are rejected.
    """
    statements = [sql.SQL(CREATE_STAGE).format(stage=STAGE_IDENTIFIER, target=target)]
    if left_out:
        drops = sql.SQL(", ").join(sql.SQL("DROP COLUMN {}").format(sql.Identifier(name)) for name in left_out)
        statements.append(sql.SQL("ALTER TABLE {} {}").format(STAGE_IDENTIFIER, drops))
    if keys:
        # With this index the server reports a row that has the key of an earlier one.
        index = sql.SQL("CREATE UNIQUE INDEX ON {} ({}) NULLS NOT DISTINCT")
        statements.append(index.format(STAGE_IDENTIFIER, name_list(keys)))
    return sql.SQL("; ").join(statements)


def write_in_blocks(columns: Sequence[ColumnFormat], statement: Callable[[sql.Composable], sql.Composed]) -> Steps:
    """Yield the steps that write the input through the stage, one block after another, with `write_located`."""
    copy = copy_step(STAGE_IDENTIFIER, columns, STAGE)._replace(in_blocks=True)
    before = written = 0
    block = yield copy
    while block.written:
        written += yield from write_located(columns, block.written, statement, before)
        before += block.written
        if not block.more:
            break
        # So the stage stays in memory, and its rows are those of the next block.
        yield EMPTY_STAGE
        block = yield copy
    return written


def write_located(
    columns: Sequence[ColumnFormat],
    rows: int,
    statement: Callable[[sql.Composable], sql.Composed],
    before: int = 0,
) -> Steps:
    """Yield the statement that writes the staged rows; if it rejects a row, yield it on parts, to find that row.

    Unlike COPY, a statement does not report the number of the row that it rejects. The part before that row is
    written again, so a failure takes about twice the time of the load. As with COPY, the transaction has failed then.

    Args:
        columns: the columns of the rows.
        rows: the number of staged rows.
        statement: returns the statement that writes the rows of a relation into the target.
        before: the number of rows of the input that come before the staged ones.

    Raises:
        LocatedError: the server rejects a row.
        psycopg.Error: the server rejects the statement for another reason.
    """
    yield SAVE_BEFORE_ALL
    try:
        result = yield WriteStep(statement(STAGE_IDENTIFIER))
    except psycopg.Error as error:
        if not concerns_row(error):
            raise
        yield from _locate(columns, rows, statement, before)
        # Another transaction has just removed the reason.
        yield RETURN_BEFORE_ALL
        result = yield statement(STAGE_IDENTIFIER)
    yield RELEASE_ALL
    return result.written


def _locate(
    columns: Sequence[ColumnFormat],
    rows: int,
    statement: Callable[[sql.Composable], sql.Composed],
    before: int,
) -> Generator[Step, StepResult]:
    """Write the rows before the first one that is rejected, and then that one."""

    def part(first: int, count: int) -> sql.Composed:
        numbers = {"first": sql.Literal(first), "count": sql.Literal(count)}
        return statement(PART.format(stage=STAGE_IDENTIFIER, columns=name_list(columns), **numbers))

    yield RETURN_BEFORE_ALL
    yield SAVE_BEFORE_PART
    first, count = 0, rows
    while count > 1:
        half = count // 2
        try:
            yield part(first, half)
        except psycopg.Error as error:
            if not concerns_row(error):
                raise
            yield RETURN_BEFORE_PART
            count = half
        else:
            yield SAVE_BEFORE_PART
            first += half
            count -= half
    try:
        yield part(first, 1)
    except psycopg.Error as error:
        if concerns_row(error):
            raise LocatedError(error, before + first + 1) from None
        raise
