"""The values that a migration from one declared schema to another deletes or changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from syntegra_db.catalog._narrowing import ANY_VALUE, narrowing_condition
from syntegra_db.sql import literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._schema import Schema


@dataclass(frozen=True)
class DataLoss:
    """Rows of a dropped table, or values of a column: all of a dropped one, those that a narrower type does not store.

    `column` is None for a table. `condition` is SQL for the rows with such a value, with `{}` for the column.
    `is_complete` means that the table or column is dropped.
    """

    label: str
    table: str
    column: str | None = None
    condition: str = "true"
    is_complete: bool = True


def data_losses(before: Schema, after: Schema) -> list[DataLoss]:
    """Return what a migration of the schema `before` to `after` deletes or changes.

    A renamed table or column is a dropped one, because the schemas do not show what became of it. Generated columns are
    not lost.
    """
    losses = []
    for name, table in before.tables.items():
        if name not in after.tables:
            losses.append(DataLoss(name, name))
            continue
        remaining = after.tables[name].columns
        for column_name, column in table.columns.items():
            label = f"{name}.{column_name}"
            if column_name in remaining:
                losses += [
                    DataLoss(f"{values} {label}{reason}", name, column_name, condition, is_complete=False)
                    for values, reason, condition in _lost_values(
                        column.type, remaining[column_name].type, before, after
                    )
                ]
            elif not (column.default or "").startswith("GENERATED ALWAYS AS ("):
                losses.append(DataLoss(label, name, column_name, ANY_VALUE))
    return losses


def _lost_values(old: str, new: str, before: Schema, after: Schema) -> Iterator[tuple[str, str, str]]:
    """Yield which values of a column that keeps its name are lost, why, and their condition."""
    condition = narrowing_condition(old, new, {**before.types, **after.types})
    if condition is not None:
        yield "values of", f" that do not fit {new}", condition
    elif old == new:
        element = old.removesuffix("[]")
        for label in before.types.get(element, ()):
            if label not in after.types.get(element, ()):
                text = "ANY (({})::text[])" if element != old else "({})::text"
                yield f"label {label} of", "", f"{literal(label)} = {text}"
