"""Plan the values that the operator supplies for missing columns and NULLs."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from syntegra_db.adoption._model import Backfill
from syntegra_db.errors import DecisionRequired, server_message
from syntegra_db.sql import execute_query, literal, quote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from sqlalchemy import Connection

    from syntegra_db.adoption._inspection import Inspection
    from syntegra_db.adoption._supplied_expressions import Problem

PLAIN_VALUE = re.compile(r"[\w .:+{}-]+")


def plan_backfills(connection: Connection, inspection: Inspection, problems: Mapping[str, Problem]) -> list[Backfill]:
    """Return the columns that get the supplied values; `rows` is not counted yet. `problems` are of `find_problems`.

    Raises:
        DecisionRequired: a value is for an unknown or nullable column, or is not valid.
    """
    backfills = []
    tables = {name: (declared, installed) for name, declared, installed in inspection.tables()}
    for name, value in inspection.supplied.values.items():
        table, column = name.split(".")
        declared, installed = tables.get(table, (None, None))
        if declared is None or installed is None or column not in declared.columns or column == "id":
            raise DecisionRequired(
                f"--set {name}: there is no such column of revision {inspection.revision} to backfill."
            )
        new, old = declared.columns[column], installed.columns.get(column)
        if new.nullability == "NULL" and old is not None:
            raise DecisionRequired(f"--set {name}: the column is nullable, and adopt changes no existing value.")
        if old is None or old.nullability == "NULL":
            expression = parse_column_value(connection, inspection, table, column, value, problem=problems.get(name))
            backfills.append(Backfill(table, column, expression, 0, old is None))
    return backfills


def parse_column_value(  # noqa: PLR0913  the parts of an assignment
    connection: Connection,
    inspection: Inspection,
    table: str,
    column: str,
    value: str,
    *,
    problem: Problem | None = None,
) -> str:
    """Return a supplied value for a column, which may be missing, as SQL; see `find_problems` for its `problem`.

    Raises:
        DecisionRequired: see `parse_fill_value`.
    """
    columns = inspection.installed.tables[table].columns
    is_missing = column not in columns
    kind = (inspection.declared.tables[table].columns if is_missing else columns)[column].type
    # An ENUM type may not be installed yet.
    is_enum = is_missing and kind in inspection.declared.types
    expression = parse_fill_value(connection, table, columns, "text" if is_enum else kind, value, problem=problem)
    return f"({expression})::text::{kind}" if is_enum else expression


def parse_fill_value(  # noqa: PLR0913  the parts of an assignment
    connection: Connection, table: str, columns: Collection[str], kind: str, value: str, *, problem: Problem | None
) -> str:
    """Return a supplied value as SQL: a constant if it is a plain value of the type `kind`, else an expression.

    An expression may use the columns of the row, subqueries, and functions that are not volatile, because it is
    evaluated several times: to plan, to check the rows and to store the values.

    Raises:
        DecisionRequired: it is neither.
    """
    constant = literal(value)
    is_plain = PLAIN_VALUE.fullmatch(value) and "::" not in value and value not in columns and value.upper() != "NULL"
    if is_plain:
        with suppress(DBAPIError), rolled_back(connection):
            execute_query(connection, f"SELECT CAST({constant} AS {kind})")
            return constant
    if problem is not None:
        raise DecisionRequired(f"--set {table}.…={value}: {problem.describe(kind)} Nothing was changed.")
    try:
        with rolled_back(connection):
            is_volatile = _is_volatile(connection, table, kind, value)
    except DBAPIError as error:
        raise DecisionRequired(
            f"--set {table}.…={value}: neither a value of type {kind} nor an SQL expression ({server_message(error)}). "
            "Nothing was changed."
        ) from None
    if is_volatile:
        raise DecisionRequired(
            f"--set {table}.…={value}: an expression cannot use a volatile function, such as random() or nextval(), "
            "an aggregate or a window function. Nothing was changed."
        )
    return f"({value})"


def _is_volatile(connection: Connection, table: str, kind: str, value: str) -> bool:
    """Return whether the expression `value` has volatile, aggregate or window functions.

    The statements are planned, not executed. A text that closes the CASE of the first one early is not valid between
    the parentheses of the second one, and the other way round, so both are valid for a complete expression only.
    """
    source = f"FROM ONLY {quote(table)}"
    execute_query(connection, f"EXPLAIN SELECT CASE WHEN true THEN {value} END {source}")
    # PostgreSQL merges a subquery with the query around it only if it has no such function; then the scan is on top.
    connection.exec_driver_sql("SET LOCAL max_parallel_workers_per_gather = 0")
    subquery = f"(SELECT CAST(({value}) AS {kind}) AS value {source}) AS supplied"
    query = f"EXPLAIN (FORMAT JSON) SELECT supplied.value IS NULL FROM {subquery}"  # noqa: S608  checked above
    return "Relation Name" not in execute_query(connection, query).scalar_one()[0]["Plan"]


@contextmanager
def rolled_back(connection: Connection) -> Iterator[None]:
    """Roll back to the beginning of the block at its end."""
    savepoint = connection.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()
