"""What a person decided: values for columns that are missing or empty and may not be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.adoption._model import Backfill
from syntegra_db.adoption._row_checks import parse_fill_value
from syntegra_db.errors import DecisionRequired

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from syntegra_db.adoption._inspection import Inspection


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """Return the values of assignments such as `processed_data.client_id=7`, by `table.column`.

    Raises:
        DecisionNeeded: one is no assignment.
    """
    values = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not value or name.count(".") != 1:
            raise DecisionRequired(
                f"--set {assignment}: it takes TABLE.COLUMN=VALUE, or an SQL expression as the value."
            )
        values[name] = value
    return values


def plan_backfills(connection: Connection, situation: Inspection) -> list[Backfill]:
    """Return the columns that the answers give values to; `rows` is still to be counted.

    Raises:
        DecisionNeeded: an answer names no column of the revision, one that may be empty, or is no value.
    """
    found = []
    for name, value in situation.answers.values.items():
        table, column = name.split(".")
        there = situation.found.tables.get(table)
        wanted = situation.expected.tables[table].columns.get(column) if table in situation.expected.tables else None
        if there is None or wanted is None or column == "id":
            raise DecisionRequired(f"--set {name}: there is no such column of revision {situation.revision} to fill.")
        if wanted.nullability == "NULL" and column in there.columns:
            raise DecisionRequired(f"--set {name}: the column may be empty, and adopt changes no value that is there.")
        missing = column not in there.columns
        if missing or there.columns[column].nullability == "NULL":
            kind = wanted.type if missing else there.columns[column].type
            # An ENUM type may not be there yet.
            is_enum = missing and kind in situation.expected.types
            expression = parse_fill_value(connection, table, there.columns, "text" if is_enum else kind, value)
            cast = f"({expression})::text::{kind}" if is_enum else expression
            found.append(Backfill(table, column, cast, 0, missing))
    return found
