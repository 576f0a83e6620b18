"""Plan the values that the operator supplies for missing columns and NULLs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from syntegra_db.adoption._model import Backfill
from syntegra_db.errors import DecisionRequired, server_message
from syntegra_db.sql import execute_raw, literal, quote

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from syntegra_db.adoption._inspection import Inspection

PLAIN_VALUE = re.compile(r"[\w .:+-]+")


def plan_backfills(connection: Connection, inspection: Inspection) -> list[Backfill]:
    """Return the columns that get the supplied values; `rows` is not counted yet.

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
            kind = new.type if old is None else old.type
            # An ENUM type may not be installed yet.
            is_enum = old is None and kind in inspection.declared.types
            expression = parse_fill_value(connection, table, installed.columns, "text" if is_enum else kind, value)
            cast = f"({expression})::text::{kind}" if is_enum else expression
            backfills.append(Backfill(table, column, cast, 0, old is None))
    return backfills


def parse_fill_value(connection: Connection, table: str, columns: Collection[str], kind: str, value: str) -> str:
    """Return a supplied value as SQL: a constant if it is a plain value of the type `kind`, else an expression.

    Raises:
        DecisionRequired: it is neither.
    """
    constant = literal(value)
    is_plain = PLAIN_VALUE.fullmatch(value) and "::" not in value and value not in columns and value.upper() != "NULL"
    if is_plain and _sql_error(connection, f"SELECT CAST({constant} AS {kind})") is None:
        return constant
    error = _sql_error(connection, f"SELECT CAST(({value}) AS {kind}) FROM {quote(table)} LIMIT 0")  # noqa: S608  the operator's own
    if error is not None:
        raise DecisionRequired(
            f"--set {table}.…={value}: neither a value of type {kind} nor an SQL expression ({error}). Nothing was "
            "changed."
        )
    return f"({value})"


def _sql_error(connection: Connection, statement: str) -> str | None:
    savepoint = connection.begin_nested()
    try:
        execute_raw(connection, statement)
    except DBAPIError as error:
        return server_message(error)
    finally:
        savepoint.rollback()
    return None
