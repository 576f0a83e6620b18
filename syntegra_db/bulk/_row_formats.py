"""Convert every accepted form of rows into tuples in the order of the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from syntegra_db.bulk import _columnar
from syntegra_db.errors import BulkLoadError
from syntegra_db.models import Base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from syntegra_db.bulk._dumpers import ColumnFormat

ACCEPTED_FORMS = (
    "a mapping, a tuple, a list, an instance of the model, a NumPy structured array or an Arrow RecordBatch"
)


class RowMismatch(Exception):
    """The row's structure differs from the first row's. The caller prefixes the row number."""


class ColumnBatch(NamedTuple):
    """A mapping of whole columns, to distinguish it from a row that is a mapping."""

    of: Mapping[str, Any]


class RowFormat(NamedTuple):
    """The columns of the rows, and the function that yields the rows of an input item as tuples in this order."""

    columns: tuple[ColumnFormat, ...]
    rows_of: Callable[[Any], Iterable[Sequence[Any]]]


def iter_source(rows: Any) -> Iterable[Any]:
    """Return the iterable of rows or batches."""
    if isinstance(rows, Mapping):
        return [ColumnBatch(rows)]
    if _is_batch(rows):
        return [rows]
    if not hasattr(rows, "__iter__"):
        raise BulkLoadError(f"Rows must be an iterable or a batch, not {type(rows).__name__}.")
    return rows  # type: ignore[no-any-return]


def detect_row_format(
    first: Any, table: str, formats: dict[str, ColumnFormat], columns: Sequence[str] | None
) -> RowFormat:
    """Return the format of all items, from `first`, the first row or batch.

    Args:
        first: the first item of the input.
        table: the table's name, for messages.
        formats: the columns of the model by attribute.
        columns: the names that the caller gave, if any.

    Raises:
        BulkLoadError: the form or a column is unknown, or a column is given twice.
    """
    named = None if columns is None else resolve_columns(columns, table, formats)
    if _is_batch(first):
        return _of_batches(first, table, formats, named)
    if isinstance(first, Base):
        return _of_instances(first, table, formats, named)
    if isinstance(first, Mapping):
        return _of_mappings(list(first), table, formats, named)
    if not isinstance(first, Sequence) or isinstance(first, str | bytes):
        raise BulkLoadError(f"A row or batch must be {ACCEPTED_FORMS}, not {type(first).__name__}.")
    if named is not None:
        return _of_sequences(first, named, by_position=True)
    names = _field_names(first) or [name for name in formats if name != "id"]
    return _of_sequences(first, resolve_columns(names, table, formats), by_position=False)


def resolve_columns(names: Iterable[str], table: str, formats: dict[str, ColumnFormat]) -> tuple[ColumnFormat, ...]:
    """Return the columns with these names, each the name of the attribute or of the column.

    Raises:
        BulkLoadError: a column is unknown or given twice, or `names` is empty.
    """
    by_name = {**{column.name: column for column in formats.values()}, **formats}
    found: dict[str, ColumnFormat] = {}
    for name in names:
        column = by_name.get(name)
        if column is None:
            raise BulkLoadError(f"{table} has no column {name!s:.64}; it has {', '.join(formats)}.")
        if column.name in found:
            raise BulkLoadError(f"The column {column.name} of {table} is given twice.")
        found[column.name] = column
    if not found:
        raise BulkLoadError(f"The rows for {table} have no columns.")
    return tuple(found.values())


def _of_instances(
    first: Base, table: str, formats: dict[str, ColumnFormat], named: tuple[ColumnFormat, ...] | None
) -> RowFormat:
    kind = type(first)
    columns, rows_of = _of_mappings(list(_loaded_attributes(first)), table, formats, named)

    def rows_of_instance(row: Any) -> Iterable[Sequence[Any]]:
        if not isinstance(row, kind):
            raise _type_mismatch(row, kind)
        return rows_of(_loaded_attributes(row))

    return RowFormat(columns, rows_of_instance)


def _of_mappings(
    keys: list[str], table: str, formats: dict[str, ColumnFormat], named: tuple[ColumnFormat, ...] | None
) -> RowFormat:
    keys, columns = _match_columns(keys, table, formats, named)
    pick = itemgetter(*keys)
    width = len(keys)

    def rows_of(row: Any) -> Iterable[Sequence[Any]]:
        try:
            # A dict raises for a missing key; a defaultdict would create it.
            if len(row) == width and (type(row) is dict or all(key in row for key in keys)):
                return (pick(row) if width > 1 else (pick(row),),)
        except (KeyError, TypeError, IndexError):
            pass
        raise RowMismatch(_describe_mismatch(row, keys, formats))

    return RowFormat(columns, rows_of)


def _match_columns(
    keys: Sequence[str], table: str, formats: dict[str, ColumnFormat], named: tuple[ColumnFormat, ...] | None
) -> tuple[list[str], tuple[ColumnFormat, ...]]:
    """Return the keys and their columns; raise `BulkLoadError` if the caller named other columns."""
    columns = resolve_columns(keys, table, formats)
    if named is not None and set(named) != set(columns):
        raise BulkLoadError(
            f"The rows for {table} have the columns {_names(columns)}, but the argument names {_names(named)}."
        )
    return list(keys), columns


def _describe_mismatch(row: Any, keys: Sequence[str], formats: dict[str, ColumnFormat]) -> str:
    if not isinstance(row, Mapping):
        return f"is of type {type(row).__name__}, but the first row is a mapping"
    missing = [key for key in keys if key not in row]
    known = {*formats, *(column.name for column in formats.values())}
    # An unknown key is not shown: it may be a value in the wrong place.
    extra = [key if key in known else "a key that is not a column" for key in row if key not in keys]
    parts = [f"{label} {', '.join(names)}" for label, names in (("missing", missing), ("additional", extra)) if names]
    return f"has other columns than the first row: {'; '.join(parts)}"


def _of_sequences(first: Sequence[Any], columns: tuple[ColumnFormat, ...], *, by_position: bool) -> RowFormat:
    kind = type(first)
    width = len(columns)
    plain = issubclass(kind, tuple | list)
    accepted = (tuple, list) if plain else kind
    fields = _field_names(first)
    # The type of a named tuple has the names; a Row of SQLAlchemy has its own.
    names_from_type = by_position or getattr(kind, "_fields", None) == fields

    def rows_of(row: Any) -> Iterable[Sequence[Any]]:
        if type(row) is not kind or not names_from_type:
            if not isinstance(row, accepted):
                raise _type_mismatch(row, kind)
            if not by_position and _field_names(row) != fields:
                raise RowMismatch("has other names than the first row, or the same names in another order")
        if len(row) != width:
            raise RowMismatch(f"has {len(row)} values for {width} columns ({_names(columns)})")
        return (row if plain else tuple(row),)

    return RowFormat(columns, rows_of)


def _of_batches(
    first: Any, table: str, formats: dict[str, ColumnFormat], named: tuple[ColumnFormat, ...] | None
) -> RowFormat:
    names, columns = _match_columns(_columnar.column_names(_unwrap(first)), table, formats, named)
    by_name = dict(zip(names, columns, strict=True))

    def rows_of(item: Any) -> Iterable[Sequence[Any]]:
        if not _is_batch(item):
            raise RowMismatch(f"is of type {type(item).__name__}, but the first item is a batch")
        batch = _unwrap(item)
        if set(_columnar.column_names(batch)) != by_name.keys():
            raise RowMismatch("begins a batch with other columns than the first batch")
        return _columnar.iter_rows(batch, by_name)

    return RowFormat(columns, rows_of)


def _type_mismatch(row: Any, kind: type) -> RowMismatch:
    return RowMismatch(f"is of type {type(row).__name__}, but the first row is of type {kind.__name__}")


def _names(columns: Iterable[ColumnFormat]) -> str:
    return ", ".join(column.attribute for column in columns)


def _field_names(row: Any) -> tuple[str, ...] | None:
    """Return the field names of a named tuple or of a `Row`."""
    return getattr(row, "_fields", None)


def _is_batch(item: Any) -> bool:
    return isinstance(item, ColumnBatch) or _columnar.is_arrow(item) or _columnar.is_structured_array(item)


def _unwrap(item: Any) -> Any:
    return item.of if isinstance(item, ColumnBatch) else item


def _loaded_attributes(row: Any) -> Mapping[str, Any]:
    """Return the attributes that are set on an instance."""
    return {name: value for name, value in vars(row).items() if name != "_sa_instance_state"}
