"""The server's refusal of a row in words that show nothing of the row.

Its messages may quote values, its DETAIL and CONTEXT quote rows, and `config_json` may hold credentials. What it says
is therefore told again from the parts that hold names and numbers only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg

from syntegra_db.bulk.errors import BulkLoadError, RowRejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.errors import Diagnostic

    from syntegra_db.bulk._dumpers import ColumnFormat

UNIQUE = "23505"
CONSTRAINT_MESSAGES = {
    "23502": "{table}.{column} takes no NULL",
    "23503": "what it refers to is not there ({constraint} of {table})",
    UNIQUE: "{constraint} of {table} holds such a row already",
    "23514": "the CHECK {constraint} of {table} refuses it",
    "23P01": "{constraint} of {table} excludes it",
}
# https://www.postgresql.org/docs/current/errcodes-appendix.html: data exceptions and integrity constraint violations.
ROW_ERROR_CLASSES = ("22", "23")
# Connection, feature, transaction, permission or name, resources, limits, state, operator and system: of no row, as
# long as the server itself says it.
NON_ROW_ERROR_CLASSES = ("08", "0A", "25", "40", "42", "53", "54", "55", "57", "58")
# What PL/pgSQL's RAISE comes from: all of it, and the code too, is the function's own choice.
RAISE = "exec_stmt_raise"
# In CONTEXT in every language, as in PL/pgSQL: a function ran a statement, and may have put values into its text.
PROCEDURAL_LANGUAGE = "PL/"
HINT = "; roll back, mend the input and load it again."


def translate_error(
    error: psycopg.Error, table: str, copied_into: str, columns: Sequence[ColumnFormat], key: Sequence[str]
) -> BulkLoadError:
    """Return what to raise in place of the server's `error`.

    Args:
        error: what psycopg raised.
        table: the table that the rows are for.
        copied_into: the table that COPY filled: that one, or a temporary one.
        columns: the columns that the rows have.
        key: the columns by which rows are upserted, if they are.
    """
    diag = error.diag
    if diag.sqlstate is None:
        what = "the connection was lost" if isinstance(error, psycopg.OperationalError) else type(error).__name__
        return BulkLoadError(f"The rows could not be loaded into {table}: {what}.")
    if diag.source_function == RAISE:
        return _function_error(diag, table, copied_into)
    if diag.sqlstate.startswith(ROW_ERROR_CLASSES):
        return _row_error(diag, table, copied_into, columns, key)
    if PROCEDURAL_LANGUAGE in (diag.context or ""):
        return _function_error(diag, table, copied_into)
    told = diag.message_primary if diag.sqlstate.startswith(NON_ROW_ERROR_CLASSES) else f"SQLSTATE {diag.sqlstate}"
    return BulkLoadError(f"The rows could not be loaded into {table}: {told}.", sqlstate=diag.sqlstate)


def _function_error(diag: Diagnostic, table: str, copied_into: str) -> RowRejected:
    row, _ = parse_copy_context(diag.context or "", copied_into, ())
    reason = f"a trigger or function of {table} refused it (SQLSTATE {diag.sqlstate})"
    return RowRejected(f"{_row_label(row)}: {reason}{HINT}", row=row, sqlstate=diag.sqlstate)


def _row_error(
    diag: Diagnostic, table: str, copied_into: str, columns: Sequence[ColumnFormat], key: Sequence[str]
) -> RowRejected:
    row, column = parse_copy_context(diag.context or "", copied_into, [column.name for column in columns])
    column = column or diag.column_name
    in_stage = diag.table_name == copied_into != table
    # A trigger may write other tables.
    written = table if in_stage else diag.table_name or table
    earlier = in_stage and diag.sqlstate == UNIQUE
    if earlier:
        reason = f"an earlier row of the input has the same key ({', '.join(key)})"
    else:
        rules = {column.name: column.accepts for column in columns} if written == table else {}
        reason = _reason(diag, written, column, rules)
    return RowRejected(
        f"{_row_label(row)}: {reason}{HINT}",
        row=row,
        column=column,
        constraint=None if earlier else diag.constraint_name,
        sqlstate=diag.sqlstate,
    )


def _row_label(row: int | None) -> str:
    return "A row of the input" if row is None else f"Row {row}"


def invalid_value_error(row: int, table: str, column: ColumnFormat, kind: str) -> RowRejected:
    """Return the refusal of a value of type `kind` that its column does not take."""
    return RowRejected(
        f"Row {row}: {table}.{column.name} takes {column.accepts}, and not this value of type {kind}{HINT}",
        row=row,
        column=column.name,
    )


def parse_copy_context(context: str, table: str, columns: Sequence[str]) -> tuple[int | None, str | None]:
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


def _reason(diag: Diagnostic, table: str, column: str | None, rules: dict[str, str]) -> str:
    state = diag.sqlstate or ""
    if state in CONSTRAINT_MESSAGES:
        return CONSTRAINT_MESSAGES[state].format(table=table, column=column, constraint=diag.constraint_name)
    if column in rules:
        return f"{table}.{column} takes {rules[column]}"
    return f"{table} takes no such value (SQLSTATE {state})"
