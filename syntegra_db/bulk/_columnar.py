"""Convert batches of whole columns, of NumPy and Arrow, into rows."""

from __future__ import annotations

import sys
from datetime import UTC, date
from importlib import import_module
from typing import TYPE_CHECKING, Any

from syntegra_db.errors import BulkLoadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from syntegra_db.bulk._dumpers import ColumnFormat

# 512 embeddings take 800 kB in memory.
SLICE_ROWS = 512
# pyarrow raises them, for example for a timestamp after the year 9999 or in an unknown time zone.
UNREPRESENTABLE_ERRORS = (ArithmeticError, LookupError, ValueError)


def is_structured_array(value: Any) -> bool:
    """Return whether `value` is a NumPy array whose rows have named fields."""
    return getattr(getattr(value, "dtype", None), "names", None) is not None and getattr(value, "ndim", 0) == 1


def is_arrow(value: Any) -> bool:
    """Return whether `value` is a pyarrow Table or RecordBatch."""
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
        batch: a mapping of columns, a structured array, or a pyarrow Table or RecordBatch.
        columns: the target columns by their names in the batch, in the order of the tuples.
    """
    values = _values_of_arrow if is_arrow(batch) else _values_of_array
    for part in _slices(batch):
        yield from zip(*(values(part[name], column.is_vector) for name, column in columns.items()), strict=True)


def _slices(batch: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the columns of at most `SLICE_ROWS` rows at a time."""
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
    """Return the number of rows of all columns."""
    lengths = {}
    for name, column in columns.items():
        if not hasattr(column, "__len__") or isinstance(column, str | bytes | dict):
            raise BulkLoadError(
                f"A mapping must contain whole columns, as NumPy arrays or lists, but {name} is of type"
                f" {type(column).__name__}; put a single row into a list."
            )
        lengths[name] = len(column)
    if len(set(lengths.values())) > 1:
        raise BulkLoadError(
            f"The columns have different lengths: {', '.join(f'{name} {rows}' for name, rows in lengths.items())}."
        )
    return next(iter(lengths.values()), 0)


def _values_of_array(column: Any, is_vector: bool) -> Iterable[Any]:  # noqa: FBT001  passed by position to either function
    if not hasattr(column, "dtype"):
        return list(column)
    if is_vector and column.ndim > 1:
        return _vectors(column)
    if column.dtype.kind == "M":
        return _datetimes(column)
    return list(column.tolist())


def _vectors(column: Any) -> Iterable[Any]:
    ma = sys.modules["numpy"].ma
    if not isinstance(column, ma.MaskedArray):
        return list(column)
    mask = ma.getmaskarray(column).reshape(len(column), -1)
    # A vector that is masked only in part stays masked, so its column rejects it.
    return [
        None if missing else masked_vector if partly else vector
        for missing, partly, masked_vector, vector in zip(
            mask.all(axis=1), mask.any(axis=1), column, column.data, strict=True
        )
    ]


def _datetimes(column: Any) -> Iterable[Any]:
    # A unit finer than a microsecond would give integers.
    timestamps = column.astype("datetime64[us]").tolist()
    # In a coarser unit, a timestamp far after the year 9999 wraps around. Its year is an int, which the column rejects.
    years = column.astype("datetime64[Y]").tolist()
    return [
        timestamp.replace(tzinfo=UTC) if isinstance(year, date) else year
        for year, timestamp in zip(years, timestamps, strict=True)
    ]


def _values_of_arrow(column: Any, is_vector: bool) -> Iterable[Any]:  # noqa: FBT001  same as above
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
    """Return the value of an Arrow scalar, or the scalar if Python has no such value; its column rejects it."""
    try:
        return scalar.as_py()
    except UNREPRESENTABLE_ERRORS:
        return scalar


def _vector_views(column: Any) -> Iterator[Any]:
    """Yield the vector of each row without a copy, with NaN for a missing number."""
    # flatten() omits the numbers under missing rows.
    numbers = column.flatten().to_numpy(zero_copy_only=False)
    end = 0
    for length in import_module("pyarrow.compute").list_value_length(column).to_pylist():
        if length is None:
            yield None
            continue
        end += length
        yield numbers[end - length : end]
