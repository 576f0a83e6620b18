"""Write one value in each way, read it back, and compare it with the value that was given."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import insert, inspect, select, update
from sqlalchemy.exc import IntegrityError

from support.bulk_rows import FULL
from syntegra_db.bulk import RowRejected, copy_rows, upsert_rows
from syntegra_db.models import EMBEDDING_DIMENSIONS, Base, InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import InstrumentedAttribute, Session

Row = dict[str, Any]

# The constraints of the tables, and of the columns.
REJECTIONS = (IntegrityError, InvalidValue, RowRejected)
REJECTED: Any = object()
COLUMNS = [(model, attribute.key) for model in FULL for attribute in inspect(model).column_attrs]


def add(session: Session, model: type[Base], row: Row) -> None:
    session.add(model(**row))
    session.flush()


def insert_with_core(session: Session, model: type[Base], row: Row) -> None:
    session.connection().execute(insert(model.__table__), by_column(model, row))  # type: ignore[arg-type]  # a table


def update_with_core(session: Session, model: type[Base], row: Row) -> None:
    table: Any = model.__table__
    session.connection().execute(insert(table), by_column(model, {**FULL[model], "id": 1}))
    session.connection().execute(update(table).values(by_column(model, row)))


def by_column(model: type[Base], row: Row) -> Row:
    """A row by the names of the columns."""
    return {inspect(model).column_attrs[name].columns[0].name: value for name, value in row.items()}


WRITES: dict[str, Callable[[Session, type[Base], Row], Any]] = {
    "ORM": add,
    "Core insert": insert_with_core,
    "Core update": update_with_core,
    "copy_rows": lambda session, model, row: copy_rows(session, model, [row]),
    "upsert_rows": lambda session, model, row: upsert_rows(session, model, [row], key=["id"]),
}


def write_and_read(session: Session, way: str, model: type[Base], column: str, value: Any) -> Any:
    """Return the stored value of a row with `value` in one column, or `REJECTED`."""
    attribute: InstrumentedAttribute[Any] = getattr(model, column)
    try:
        WRITES[way](session, model, {**FULL[model], "id": 1, column: value})
        return session.scalars(select(attribute)).one()
    except REJECTIONS:
        return REJECTED
    finally:
        session.rollback()


def is_same(stored: Any, value: Any) -> bool:
    """Whether `stored` is `value`, with the conversions that the documentation names."""
    if isinstance(stored, list) and len(stored) == EMBEDDING_DIMENSIONS:
        return bool(np.array_equal(np.array(stored), np.array(value, dtype=np.float32)))
    if value != value:  # noqa: PLR0124  NaN
        return bool(stored != stored)  # noqa: PLR0124  same
    if isinstance(stored, Decimal) and isinstance(value, float | np.floating):
        return bool(float(stored) == value)
    if isinstance(value, np.integer):
        # A Decimal cannot be compared with it, and a float is not compared exactly.
        value = int(value)
    return bool(stored == with_lists(value))


def with_lists(value: Any) -> Any:
    """A JSON value whose tuples are lists."""
    if isinstance(value, dict):
        return {key: with_lists(element) for key, element in value.items()}
    return [with_lists(element) for element in value] if isinstance(value, list | tuple) else value
