"""Suggest the value of a required column if an obvious one exists."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy.exc import DataError, ProgrammingError

from syntegra_db.adoption._backfills import PLAIN_VALUE, parse_column_value, rolled_back
from syntegra_db.errors import DecisionRequired
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.adoption._inspection import Inspection
    from syntegra_db.adoption._row_checks import PlannedRows

NOW = "now()"
TIMES = ("created_at", "updated_at")
CONSTANT = re.compile(r"(?P<literal>'(?P<text>(?:[^']|'')*)')::.*|-?\d+")


def suggest_value(rows: PlannedRows, table: str, column: str) -> str | None:
    """Return the first obvious value that gives every row a value of the column, as `--set` takes it."""
    for value in _candidates(rows.inspection, table, column):
        # A column of the application with the expected name can have any type.
        with suppress(DecisionRequired, DataError, ProgrammingError), rolled_back(rows.connection):
            expression = parse_column_value(rows.connection, rows.inspection, table, column, value)
            supplied = replace(rows, expressions={**rows.expressions, (table, column): expression})
            if not supplied.missing_values(table, column).count:
                return value
    return None


def _candidates(inspection: Inspection, table: str, column: str) -> Iterator[str]:
    """Yield another time of the row, the default, the client of the data source, or a column with a similar name."""
    declared, installed = inspection.declared.tables[table].columns, inspection.installed.tables[table].columns
    constant = CONSTANT.fullmatch(declared[column].default or "")
    if declared[column].default == NOW:
        yield from (name for name in TIMES if name in installed and name != column)
    elif constant:
        text = constant["text"] or ""
        yield text if PLAIN_VALUE.fullmatch(text) else constant["literal"] or constant[0]
    if column == "client_id" and "source_id" in installed:
        yield f"(SELECT client_id FROM data_sources WHERE id = {table}.source_id)"  # noqa: S608  a declared name
    if declared[column].type == "jsonb":
        function = "to_json" if column in installed and installed[column].type == "json" else "to_jsonb"
        prefix = column.removesuffix("_json")
        similar = [
            name
            for name, other in installed.items()
            if name not in declared and name.startswith(prefix) and other.type.endswith(("[]", "json", "jsonb"))
        ]
        if len(similar) == 1:
            yield f"{function}({quote(similar[0])})"
