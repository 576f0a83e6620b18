"""Every form that rows come in becomes tuples for one list of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from syntegra_db.bulk import _columnar
from syntegra_db.bulk.errors import BulkLoadError
from syntegra_db.models import Base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from syntegra_db.bulk._dumpers import ColumnFormat

ACCEPTED_FORMS = (
    "a mapping, a tuple or list, an instance of the model, a NumPy structured array or an Arrow RecordBatch"
)


class RowMismatch(Exception):
    """The next row has not the shape of the first; the message begins where the row's number ends."""


class ColumnBatch(NamedTuple):
    """A mapping of whole columns, told apart from a row that is a mapping."""

    of: Mapping[str, Any]


class RowFormat(NamedTuple):
    """The columns that the rows have, and what makes tuples in their order of an item of the input."""

    columns: tuple[ColumnFormat, ...]
    rows_of: Callable[[Any], Iterable[Sequence[Any]]]


def iter_source(rows: Any) -> Iterable[Any]:
    """Return what to iterate over: rows, or batches of them."""
    if isinstance(rows, Mapping):
        return [ColumnBatch(rows)]
    if _is_batch(rows):
        return [rows]
    if not hasattr(rows, "__iter__"):
        raise BulkLoadError(f"Rows come as an iterable or a batch, not as {type(rows).__name__}.")
    return rows  # type: ignore[no-any-return]


def detect_row_format(
    first: Any, table: str, formats: dict[str, ColumnFormat], columns: Sequence[str] | None
) -> RowFormat:
    """Return the shape that `first`, the first item of the input, gives to all.

    Args:
        first: a row or a batch.
        table: the table's name, for messages.
        formats: the columns of the model by attribute.
        columns: those that the caller has named.

    Raises:
        BulkError: the form is unknown, or a column is, or it comes twice.
    """
    named = None if columns is None else resolve_columns(columns, table, formats)
    if _is_batch(first):
        return _of_batches(first, table, formats, named)
    if isinstance(first, Base):
        return _of_instances(first, table, formats, named)
    if isinstance(first, Mapping):
        return _of_mappings(list(first), table, formats, named)
    if not isinstance(first, Sequence) or isinstance(first, str | bytes):
        raise BulkLoadError(f"A row or batch is {ACCEPTED_FORMS}, not {type(first).__name__}.")
    if named is not None:
        return _of_sequences(first, named, by_position=True)
    names = _field_names(first) or [name for name in formats if name != "id"]
    return _of_sequences(first, resolve_columns(names, table, formats), by_position=False)


def resolve_columns(names: Iterable[str], table: str, formats: dict[str, ColumnFormat]) -> tuple[ColumnFormat, ...]:
    """Return the columns of these names, each that of an attribute or the column's own.

    Raises:
        BulkError: there is no such column, there is none at all, or one comes twice.
    """
    by_name = {**{column.name: column for column in formats.values()}, **formats}
    found: dict[str, ColumnFormat] = {}
    for name in names:
        column = by_name.get(name)
        if column is None:
            raise BulkLoadError(f"{table} has no column {name!s:.64}; it has {', '.join(formats)}.")
        if column.name in found:
            raise BulkLoadError(f"The column {column.name} of {table} is named twice.")
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
            # Of a dict, what it lacks raises; a defaultdict and its like make it up.
            if len(row) == width and (type(row) is dict or all(key in row for key in keys)):
                return (pick(row) if width > 1 else (pick(row),),)
        except (KeyError, TypeError, IndexError):
            pass
        raise RowMismatch(_describe_mismatch(row, keys, formats))

    return RowFormat(columns, rows_of)


def _match_columns(
    keys: Sequence[str], table: str, formats: dict[str, ColumnFormat], named: tuple[ColumnFormat, ...] | None
) -> tuple[list[str], tuple[ColumnFormat, ...]]:
    """Return the keys and their columns, which are those that the caller has named, if any."""
    columns = resolve_columns(keys, table, formats)
    if named is not None and set(named) != set(columns):
        raise BulkLoadError(
            f"The rows for {table} have {', '.join(column.attribute for column in columns)},"
            f" and columns says {', '.join(column.attribute for column in named)}."
        )
    return list(keys), columns


def _describe_mismatch(row: Any, keys: Sequence[str], formats: dict[str, ColumnFormat]) -> str:
    if not isinstance(row, Mapping):
        return f"is of type {type(row).__name__}, and the first is not"
    lacking = [key for key in keys if key not in row]
    known = {*formats, *(column.name for column in formats.values())}
    extra = [key if key in known else "a key that is no column" for key in row if key not in keys]
    said = [f"{verb} {', '.join(names)}" for verb, names in (("lacks", lacking), ("adds", extra)) if names]
    return f"has other columns than the first: it {' and '.join(said)}"


def _of_sequences(first: Sequence[Any], columns: tuple[ColumnFormat, ...], *, by_position: bool) -> RowFormat:
    kind = type(first)
    width = len(columns)
    plain = issubclass(kind, tuple | list)
    accepted = (tuple, list) if plain else kind
    fields = _field_names(first)
    # The names of a named tuple are those of its type; each Row of SQLAlchemy has its own.
    type_says_all = by_position or getattr(kind, "_fields", None) == fields

    def rows_of(row: Any) -> Iterable[Sequence[Any]]:
        if type(row) is not kind or not type_says_all:
            if not isinstance(row, accepted):
                raise _type_mismatch(row, kind)
            if not by_position and _field_names(row) != fields:
                raise RowMismatch("has values of other names than the first, or in another order")
        if len(row) != width:
            names = ", ".join(column.attribute for column in columns)
            raise RowMismatch(f"has {len(row)} values for {width} columns ({names})")
        return (row if plain else tuple(row),)

    return RowFormat(columns, rows_of)


def _of_batches(
    first: Any, table: str, formats: dict[str, ColumnFormat], named: tuple[ColumnFormat, ...] | None
) -> RowFormat:
    names, columns = _match_columns(_columnar.column_names(_unwrap(first)), table, formats, named)
    by_name = dict(zip(names, columns, strict=True))

    def rows_of(item: Any) -> Iterable[Sequence[Any]]:
        if not _is_batch(item):
            raise RowMismatch(f"is of type {type(item).__name__}, and the first came in a batch")
        batch = _unwrap(item)
        if set(_columnar.column_names(batch)) != by_name.keys():
            raise RowMismatch("begins a batch that has other columns than the first")
        return _columnar.iter_rows(batch, by_name)

    return RowFormat(columns, rows_of)


def _type_mismatch(row: Any, kind: type) -> RowMismatch:
    return RowMismatch(f"is of type {type(row).__name__}, and the first is of type {kind.__name__}")


def _field_names(row: Any) -> tuple[str, ...] | None:
    """Return the names that the values of a row have of their own."""
    return getattr(row, "_fields", None)


def _is_batch(item: Any) -> bool:
    return isinstance(item, ColumnBatch) or _columnar.is_arrow(item) or _columnar.is_structured_array(item)


def _unwrap(item: Any) -> Any:
    return item.of if isinstance(item, ColumnBatch) else item


def _loaded_attributes(row: Any) -> Mapping[str, Any]:
    """Return what an instance was given."""
    return {name: value for name, value in vars(row).items() if name != "_sa_instance_state"}
