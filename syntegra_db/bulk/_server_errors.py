"""Translate the server's errors into errors that show no value of a row.

The server's messages may quote values, its DETAIL and CONTEXT quote rows, and `config_json` may contain credentials. A
translated message is therefore built only from the parts that contain names and numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from syntegra_db.errors import BulkLoadError, BulkLockTimeout, RowRejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.errors import Diagnostic

    from syntegra_db.bulk._dumpers import ColumnFormat

UNIQUE = "23505"
LOCK_NOT_AVAILABLE = "55P03"
INSUFFICIENT_PRIVILEGE = "42501"
# The source of the error for a row that the policies of a table do not let a role write.
POLICY_CHECK = "ExecWithCheckOptions"
OF_ANOTHER_CLIENT = "it is of another client than the one that the session sets, or the session sets none"
OF_ANOTHER_CLIENT_OR_KEY = f"{OF_ANOTHER_CLIENT}, or its key is that of a row that they hide"
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


@dataclass(frozen=True)
class InputRows:
    """The input of a load, to which an error of the server may belong.

    Attributes:
        table: the target table.
        copied_into: the table of the COPY: the target table or a temporary one.
        columns: the columns of the rows.
        key: the columns of the key of an upsert; empty otherwise.
        rows_before: the number of rows before those of the COPY.
        row: the number of the rejected row, if it is known and not in the error.
    """

    table: str
    copied_into: str
    columns: Sequence[ColumnFormat]
    key: Sequence[str]
    rows_before: int
    row: int | None

    def locate(self, diag: Diagnostic) -> tuple[int | None, str | None]:
        """Return the number of the rejected row, and the column if it is in the error of a COPY."""
        row, column = parse_copy_context(diag.context or "", self.copied_into, [c.name for c in self.columns])
        return self.row if row is None else self.rows_before + row, column


def concerns_row(error: psycopg.Error) -> bool:
    """Return whether the server rejected a row, and not the statement or the session."""
    diag = error.diag
    return diag.sqlstate is not None and (
        _is_of_a_function(diag) or diag.sqlstate.startswith(ROW_ERROR_CLASSES) or _violates_policy(diag)
    )


def _is_of_a_function(diag: Diagnostic) -> bool:
    is_row_error = str(diag.sqlstate).startswith(ROW_ERROR_CLASSES)
    return diag.source_function == RAISE or (not is_row_error and PROCEDURAL_LANGUAGE in (diag.context or ""))


def _violates_policy(diag: Diagnostic) -> bool:
    # A missing privilege has the same code.
    return diag.sqlstate == INSUFFICIENT_PRIVILEGE and diag.source_function == POLICY_CHECK


def translate_error(error: psycopg.Error, rows: InputRows) -> BulkLoadError:
    """Return the error to raise instead of the server's `error`."""
    diag, table = error.diag, rows.table
    if diag.sqlstate is None:
        reason = "the connection was lost" if isinstance(error, psycopg.OperationalError) else type(error).__name__
        return BulkLoadError(f"The rows could not be loaded into {table}: {reason}.")
    if _is_of_a_function(diag):
        row, _ = rows.locate(diag)
        reason = f"a trigger or function of {table} rejected it (SQLSTATE {diag.sqlstate})"
        return RowRejected(f"{_row_label(row)}: {reason}{HINT}", row=row, sqlstate=diag.sqlstate)
    if concerns_row(error):
        return _row_error(diag, rows)
    if diag.sqlstate == LOCK_NOT_AVAILABLE:
        return BulkLockTimeout(
            f"The rows could not be loaded into {table}: {diag.message_primary}. Another transaction holds the lock, "
            "such as a load with upsert_rows; roll back, and load again when it has ended.",
            sqlstate=diag.sqlstate,
        )
    is_safe = diag.sqlstate.startswith(NON_ROW_ERROR_CLASSES)
    reason = str(diag.message_primary) if is_safe else f"SQLSTATE {diag.sqlstate}"
    return BulkLoadError(f"The rows could not be loaded into {table}: {reason}.", sqlstate=diag.sqlstate)


def _row_error(diag: Diagnostic, rows: InputRows) -> RowRejected:
    table, copied_into = rows.table, rows.copied_into
    row, column = rows.locate(diag)
    column = column or diag.column_name
    in_stage = diag.table_name == copied_into != table
    # A trigger may write to other tables.
    written = table if in_stage else diag.table_name or table
    is_duplicate = in_stage and diag.sqlstate == UNIQUE
    accepts = {column.name: column.accepts for column in rows.columns} if written == table else {}
    if is_duplicate:
        reason = f"an earlier row of the input has the same key ({', '.join(rows.key)})"
    elif _violates_policy(diag):
        reason = f"the policies of {table} reject it: {OF_ANOTHER_CLIENT_OR_KEY if rows.key else OF_ANOTHER_CLIENT}"
    elif diag.sqlstate in CONSTRAINT_MESSAGES:
        template = CONSTRAINT_MESSAGES[str(diag.sqlstate)]
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
