"""Columns that a later revision drops: this version's services neither load nor write them unless asked to.

So the contraction can be applied while they still run.
"""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.orm import ColumnProperty, mapped_column

if TYPE_CHECKING:
    from sqlalchemy import Column

INSTEAD = "deprecated_instead"
# SQLAlchemy generates the constructors of models from text.
GENERATED = "<sqlalchemy"
MODELS = str(Path(__file__).parent)
LIBRARY = str(Path(sqlalchemy.__file__).parent)


def deprecated_column(*arguments: Any, instead: str, **options: Any) -> Any:
    """Return `mapped_column(*arguments, **options)` for a column that a later revision drops.

    SELECT, INSERT and RETURNING of the model leave it out. Setting or loading the attribute works as long as the column
    exists, and gives a DeprecationWarning with `instead`: what to use, such as "Use name." Under asyncio, load it with
    `undefer`.
    """
    return mapped_column(*arguments, deferred=True, info={INSTEAD: instead}, **options)


def is_deprecated(column: Column[Any]) -> bool:
    """Return whether the column was declared with `deprecated_column`."""
    return INSTEAD in column.info


def warn_of_deprecated_columns(base: type) -> None:
    """Let setting and loading a deprecated attribute of the models of `base` give a warning."""

    def instrument(model: type, name: str, attribute: Any) -> None:
        column = _column_of(attribute)
        if column is not None and is_deprecated(column):
            event.listen(attribute, "set", lambda *_: _warn(model, name, column))

    def refresh(row: Any, _context: Any, names: Any) -> None:
        # An expired row names all its attributes, and loads those that are not deferred.
        for name in vars(row).keys() & set(names or ()):
            column = _column_of(getattr(type(row), name))
            if column is not None and is_deprecated(column):
                _warn(type(row), name, column)

    event.listen(base, "attribute_instrument", instrument, propagate=True)
    event.listen(base, "refresh", refresh, propagate=True)


def _column_of(attribute: Any) -> Any:
    mapped = attribute.property
    return mapped.columns[0] if isinstance(mapped, ColumnProperty) else None


def _warn(model: type, name: str, column: Column[Any]) -> None:
    warnings.warn(
        f"{model.__name__}.{name} is deprecated: a later revision drops the column. {column.info[INSTEAD]}",
        DeprecationWarning,
        stacklevel=_level_of_caller(),
    )


def _level_of_caller() -> int:
    """Return the stack level, seen from `_warn`, of the code that uses the attribute."""
    frames = inspect.stack(context=0)[1:]
    libraries = (LIBRARY, MODELS, GENERATED)
    return next((level for level, frame in enumerate(frames, 1) if not frame.filename.startswith(libraries)), 1)
