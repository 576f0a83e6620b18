"""The server's refusal of a row in words that show nothing of the row.

Its messages may quote values, its DETAIL and CONTEXT quote rows, and `config_json` may hold credentials. What it says
is therefore told again from the parts that hold names and numbers only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg

from syntegra_db.bulk.errors import BulkError, RowRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from syntegra_db.bulk.values import ColumnFormat

UNIQUE = "23505"
CONSTRAINTS = {
    "23502": "{table}.{column} takes no NULL",
    "23503": "what it refers to is not there ({constraint} of {table})",
    UNIQUE: "{constraint} of {table} holds such a row already",
    "23514": "the CHECK {constraint} of {table} refuses it",
    "23P01": "{constraint} of {table} excludes it",
}
# Data exceptions and integrity constraint violations: https://www.postgresql.org/docs/current/errcodes-appendix.html.
ABOUT_ROWS = ("22", "23")
# By RAISE in PL/pgSQL, whose message may quote the row.
RAISED = "P0"
REMEDY = "; roll back, mend the input and load it again."


def refusal(
    error: psycopg.Error, table: str, copied_into: str, columns: Sequence[ColumnFormat], key: Sequence[str]
) -> BulkError:
    """Return what to raise in place of the server's `error`.

    Args:
        error: what psycopg raised.
        table: the table that the rows are for.
        copied_into: the table that COPY filled: that one, or a temporary one.
        columns: the columns that the rows have.
        key: the columns by which rows are upserted, if they are.
    """
    state = error.diag.sqlstate
    if state is None:
        what = "the connection was lost" if isinstance(error, psycopg.OperationalError) else type(error).__name__
        return BulkError(f"The rows could not be loaded into {table}: {what}.")
    if state.startswith(RAISED):
        reason = f"a trigger or function of {table} refused it (SQLSTATE {state})"
        row, _ = place(error.diag.context or "", copied_into, ())
        where = "A row of the input" if row is None else f"Row {row}"
        return RowRefused(f"{where}: {reason}{REMEDY}", row=row, sqlstate=state)
    if not state.startswith(ABOUT_ROWS):
        return BulkError(f"The rows could not be loaded into {table}: {error.diag.message_primary}.", sqlstate=state)
    row, column = place(error.diag.context or "", copied_into, [column.name for column in columns])
    column = column or error.diag.column_name
    constraint = error.diag.constraint_name
    rules = {column.name: column.rule for column in columns}
    in_input = error.diag.table_name == copied_into != table
    reason = _reason(state, table, column, constraint, rules, key if in_input else ())
    return RowRefused(
        f"{'A row of the input' if row is None else f'Row {row}'}: {reason}{REMEDY}",
        row=row,
        column=column,
        constraint=None if in_input and state == UNIQUE else constraint,
        sqlstate=state,
    )


def broken_rule(row: int, table: str, column: ColumnFormat, kind: str) -> RowRefused:
    """Return the refusal of a value of type `kind` that its column does not take."""
    return RowRefused(
        f"Row {row}: {table}.{column.name} takes {column.rule}, and not this value of type {kind}{REMEDY}",
        row=row,
        column=column.name,
    )


def place(context: str, table: str, columns: Sequence[str]) -> tuple[int | None, str | None]:
    """Return the row number and column that CONTEXT names for a COPY into `table`.

    Its words are the server's language, such as `COPY text_summary, línea 5, columna embedding`; names and numbers are
    not, and in all languages they come in this order. Lines before the last speak of values.
    """
    last = context.rpartition("\n")[2]
    # Japanese and Korean begin with the table.
    found = re.match(rf"(?:COPY )?{re.escape(table)}(?![A-Za-z0-9_])\D*(\d+)(.*)", last)
    if found is None:
        return None, None
    names = re.findall(r"[A-Za-z0-9_]+", found[2])
    return int(found[1]), next((name for name in names if name in columns), None)


def _reason(  # noqa: PLR0913, PLR0917  parts of one sentence
    state: str,
    table: str,
    column: str | None,
    constraint: str | None,
    rules: dict[str, str],
    key: Sequence[str],
) -> str:
    if state == UNIQUE and key:
        return f"an earlier row of the input has the same key ({', '.join(key)})"
    if state in CONSTRAINTS:
        return CONSTRAINTS[state].format(table=table, column=column, constraint=constraint)
    if column in rules:
        return f"{table}.{column} takes {rules[column]}"
    return f"{table} takes no such value (SQLSTATE {state})"
