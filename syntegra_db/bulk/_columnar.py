"""Whole columns, as NumPy and Arrow hold them, become rows."""

from __future__ import annotations

import sys
from datetime import UTC, date
from importlib import import_module
from typing import TYPE_CHECKING, Any

from syntegra_db.bulk.errors import BulkLoadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from syntegra_db.bulk._dumpers import ColumnFormat

# 512 embeddings take 800 kB on their way.
SLICE_ROWS = 512
# What pyarrow raises of, say, a moment beyond the year 9999 or in a time zone that nobody knows.
UNREPRESENTABLE_ERRORS = (ArithmeticError, LookupError, ValueError)


def is_structured_array(value: Any) -> bool:
    """Tell whether `value` is a NumPy array whose rows have named fields."""
    return getattr(getattr(value, "dtype", None), "names", None) is not None and getattr(value, "ndim", 0) == 1


def is_arrow(value: Any) -> bool:
    """Tell whether `value` is a pyarrow Table or RecordBatch."""
    arrow = sys.modules.get("pyarrow")
    return arrow is not None and isinstance(value, arrow.Table | arrow.RecordBatch)


def column_names(batch: Any) -> tuple[str, ...]:
    """Return the names of the columns of a batch."""
    if is_arrow(batch):
        return tuple(batch.schema.names)
    return tuple(batch.dtype.names if is_structured_array(batch) else batch)


def iter_rows(batch: Any, columns: Mapping[str, ColumnFormat]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a batch as tuples.

    Args:
        batch: what `column_names` takes.
        columns: what the columns of the batch are for, by their names in it and in the order of the tuples.
    """
    values = _values_of_arrow if is_arrow(batch) else _values_of_array
    for part in _slices(batch):
        yield from zip(*(values(part[name], column.is_vector) for name, column in columns.items()), strict=True)


def _slices(batch: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the columns of a few rows at a time."""
    if is_arrow(batch):
        for piece in batch.to_batches() if hasattr(batch, "to_batches") else [batch]:
            for start in range(0, piece.num_rows, SLICE_ROWS):
                part = piece.slice(start, SLICE_ROWS)
                yield dict(zip(part.schema.names, part.columns, strict=True))
        return
    rows = len(batch) if is_structured_array(batch) else _length(batch)
    for start in range(0, rows, SLICE_ROWS):
        yield {name: batch[name][start : start + SLICE_ROWS] for name in column_names(batch)}


def _length(columns: Mapping[str, Any]) -> int:
    """Return how many rows all columns have."""
    lengths = {}
    for name, column in columns.items():
        if not hasattr(column, "__len__") or isinstance(column, str | bytes | dict):
            raise BulkLoadError(
                f"A mapping holds columns, each a NumPy array or a list, and {name} is of type"
                f" {type(column).__name__}; give a single row as a list of one."
            )
        lengths[name] = len(column)
    if len(set(lengths.values())) > 1:
        raise BulkLoadError(
            f"The columns are not of one length: {', '.join(f'{name} {rows}' for name, rows in lengths.items())}."
        )
    return next(iter(lengths.values()), 0)


def _values_of_array(column: Any, is_vector: bool) -> Iterable[Any]:  # noqa: FBT001  one of two, here below
    if not hasattr(column, "dtype"):
        return list(column)
    if is_vector and column.ndim > 1:
        return _vectors(column)
    if column.dtype.kind == "M":
        return _datetimes(column)
    return list(column.tolist())


def _vectors(column: Any) -> Iterable[Any]:
    masked = sys.modules["numpy"].ma
    if not isinstance(column, masked.MaskedArray):
        return list(column)
    mask = masked.getmaskarray(column).reshape(len(column), -1)
    # Of one that is masked in part, its column refuses what is masked.
    return [
        None if missing else given if partly else vector
        for missing, partly, given, vector in zip(mask.all(axis=1), mask.any(axis=1), column, column.data, strict=True)
    ]


def _datetimes(column: Any) -> Iterable[Any]:
    # Finer units than datetime has would give integers.
    moments = column.astype("datetime64[us]").tolist()
    # Of coarser ones, what lies far beyond the year 9999 wraps around. Its year is an integer, which a column refuses.
    years = column.astype("datetime64[Y]").tolist()
    return [
        moment.replace(tzinfo=UTC) if isinstance(year, date) else year
        for year, moment in zip(years, moments, strict=True)
    ]


def _values_of_arrow(column: Any, is_vector: bool) -> Iterable[Any]:  # noqa: FBT001  likewise
    arrow = sys.modules["pyarrow"]
    if is_vector and isinstance(column.type, arrow.BaseExtensionType):
        column = column.storage
    kind = column.type
    if is_vector and hasattr(kind, "value_type") and arrow.types.is_floating(kind.value_type):
        return _vector_views(column)
    if arrow.types.is_timestamp(kind) and kind.unit == "ns":
        column = column.cast(arrow.timestamp("us", kind.tz), safe=False)
    try:
        return list(column.to_pylist())
    except UNREPRESENTABLE_ERRORS:
        return [_to_python(scalar) for scalar in column]


def _to_python(scalar: Any) -> Any:
    """Return the value of an Arrow scalar, or where Python has none the scalar, which its column refuses."""
    try:
        return scalar.as_py()
    except UNREPRESENTABLE_ERRORS:
        return scalar


def _vector_views(column: Any) -> Iterator[Any]:
    """Yield the vector of each row, without a copy; NaN stands for a number that is missing in one."""
    # flatten() leaves out what lies under missing rows.
    numbers = column.flatten().to_numpy(zero_copy_only=False)
    end = 0
    for length in import_module("pyarrow.compute").list_value_length(column).to_pylist():
        if length is None:
            yield None
            continue
        end += length
        yield numbers[end - length : end]
