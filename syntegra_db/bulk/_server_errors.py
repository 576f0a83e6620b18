"""Translate the server's errors into errors that show no value of a row.

The server's messages may quote values, its DETAIL and CONTEXT quote rows, and `config_json` may contain credentials. A
translated message is therefore built only from the parts that contain names and numbers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg

from syntegra_db.errors import BulkLoadError, BulkLockTimeout, RowRejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.errors import Diagnostic

    from syntegra_db.bulk._dumpers import ColumnFormat

UNIQUE = "23505"
LOCK_NOT_AVAILABLE = "55P03"
CONSTRAINT_MESSAGES = {
    "23502": "{table}.{column} cannot be NULL",
    "23503": "the row that it references does not exist ({constraint} of {table})",
    UNIQUE: "{table} already has a row with the same key ({constraint})",
    "23514": "it violates the CHECK {constraint} of {table}",
    "23P01": "it conflicts with another row of {table} ({constraint})",
    # Only in a database whose encoding is not UTF8.
    "22P05": "the encoding of the database has no such character as one in {table}.{column}",
}
# https://www.postgresql.org/docs/current/errcodes-appendix.html: data exceptions and integrity constraint violations.
ROW_ERROR_CLASSES = ("22", "23")
# Errors of the connection, feature, transaction, permission or name, resources, limits, state, operator and system.
# They concern no row, unless a function raised them.
NON_ROW_ERROR_CLASSES = ("08", "0A", "25", "40", "42", "53", "54", "55", "57", "58")
# The source of errors from PL/pgSQL's RAISE: the function chooses all of their fields, including the code.
RAISE = "exec_stmt_raise"
# In the CONTEXT of errors in a statement of a function, in every procedural language. Its text may contain values.
PROCEDURAL_LANGUAGE = "PL/"
HINT = "; roll back, correct the input and load it again."


def translate_error(
    error: psycopg.Error, table: str, copied_into: str, columns: Sequence[ColumnFormat], key: Sequence[str]
) -> BulkLoadError:
    """Return the error to raise instead of the server's `error`.

    Args:
        error: the error of psycopg.
        table: the target table.
        copied_into: the table of the COPY: the target table or a temporary one.
        columns: the columns of the rows.
        key: the columns of the key of an upsert; empty otherwise.
    """
    diag = error.diag
    if diag.sqlstate is None:
        reason = "the connection was lost" if isinstance(error, psycopg.OperationalError) else type(error).__name__
        return BulkLoadError(f"The rows could not be loaded into {table}: {reason}.")
    is_row_error = diag.sqlstate.startswith(ROW_ERROR_CLASSES)
    if diag.source_function == RAISE or (not is_row_error and PROCEDURAL_LANGUAGE in (diag.context or "")):
        row, _ = parse_copy_context(diag.context or "", copied_into, ())
        reason = f"a trigger or function of {table} rejected it (SQLSTATE {diag.sqlstate})"
        return RowRejected(f"{_row_label(row)}: {reason}{HINT}", row=row, sqlstate=diag.sqlstate)
    if is_row_error:
        return _row_error(diag, table, copied_into, columns, key)
    if diag.sqlstate == LOCK_NOT_AVAILABLE:
        return BulkLockTimeout(
            f"The rows could not be loaded into {table}: {diag.message_primary}. Another transaction holds the lock, "
            "such as a load with upsert_rows; roll back, and load again when it has ended.",
            sqlstate=diag.sqlstate,
        )
    is_safe = diag.sqlstate.startswith(NON_ROW_ERROR_CLASSES)
    reason = str(diag.message_primary) if is_safe else f"SQLSTATE {diag.sqlstate}"
    return BulkLoadError(f"The rows could not be loaded into {table}: {reason}.", sqlstate=diag.sqlstate)


def _row_error(
    diag: Diagnostic, table: str, copied_into: str, columns: Sequence[ColumnFormat], key: Sequence[str]
) -> RowRejected:
    row, column = parse_copy_context(diag.context or "", copied_into, [column.name for column in columns])
    column = column or diag.column_name
    in_stage = diag.table_name == copied_into != table
    # A trigger may write to other tables.
    written = table if in_stage else diag.table_name or table
    is_duplicate = in_stage and diag.sqlstate == UNIQUE
    accepts = {column.name: column.accepts for column in columns} if written == table else {}
    if is_duplicate:
        reason = f"an earlier row of the input has the same key ({', '.join(key)})"
    elif diag.sqlstate in CONSTRAINT_MESSAGES:
        template = CONSTRAINT_MESSAGES[diag.sqlstate]
        reason = template.format(table=written, column=column, constraint=diag.constraint_name)
    elif column in accepts:
        reason = f"{written}.{column} takes {accepts[column]}"
    else:
        reason = f"{written} does not accept one of its values (SQLSTATE {diag.sqlstate})"
    return RowRejected(
        f"{_row_label(row)}: {reason}{HINT}",
        row=row,
        column=column,
        constraint=None if is_duplicate else diag.constraint_name,
        sqlstate=diag.sqlstate,
    )


def _row_label(row: int | None) -> str:
    return "A row of the input" if row is None else f"Row {row}"


def invalid_value_error(row: int, table: str, column: ColumnFormat, value: object, error: Exception) -> RowRejected:
    """Return the error for a `value` that its column does not accept, because dumping it raised `error`."""
    if isinstance(error, UnicodeEncodeError) and error.encoding != "utf-8":
        reason = f"the encoding of the connection has no such character as one in {table}.{column.name}"
    else:
        reason = f"{table}.{column.name} takes {column.accepts}, not this value of type {type(value).__name__}"
    return RowRejected(f"Row {row}: {reason}{HINT}", row=row, column=column.name)


def parse_copy_context(context: str, table: str, columns: Sequence[str]) -> tuple[int | None, str | None]:
    """Return the row number and column in the CONTEXT of an error in a COPY into `table`.

    Its words are in the server's language, for example `COPY text_summary, línea 5, columna embedding`. The names and
    numbers are not, and have the same order in every language. Lines before the last one are about values.
    """
    last = context.rpartition("\n")[2]
    # Japanese and Korean begin with the table.
    found = re.match(rf"(?:COPY )?{re.escape(table)}(?![A-Za-z0-9_])\D*(\d+)(.*)", last)
    if found is None:
        return None, None
    names = re.findall(r"[A-Za-z0-9_]+", found[2])
    return int(found[1]), next((name for name in names if name in columns), None)
