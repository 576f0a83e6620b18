"""Every form that rows come in becomes tuples for one list of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from syntegra_db.bulk import batches
from syntegra_db.bulk.errors import BulkError
from syntegra_db.models import Base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from syntegra_db.bulk.values import ColumnFormat

FORMS = "a mapping, a tuple or list, an instance of the model, a NumPy structured array or an Arrow RecordBatch"


class Misfit(Exception):
    """The next row has not the shape of the first; the message begins where the row's number ends."""


class Columns(NamedTuple):
    """A mapping of whole columns, told apart from a row that is a mapping."""

    of: Mapping[str, Any]


class Shape(NamedTuple):
    """The columns that the rows have, and what makes tuples in their order of an item of the input."""

    columns: tuple[ColumnFormat, ...]
    rows_of: Callable[[Any], Iterable[Sequence[Any]]]


def items(rows: Any) -> Iterable[Any]:
    """Return what to iterate over: rows, or batches of them."""
    if isinstance(rows, Mapping):
        return [Columns(rows)]
    if _is_batch(rows):
        return [rows]
    if not hasattr(rows, "__iter__"):
        raise BulkError(f"Rows come as an iterable or a batch, not as {type(rows).__name__}.")
    return rows  # type: ignore[no-any-return]


def shape(first: Any, table: str, formats: dict[str, ColumnFormat], columns: Sequence[str] | None) -> Shape:
    """Return the shape that `first`, the first item of the input, gives to all.

    Args:
        first: a row or a batch.
        table: the table's name, for messages.
        formats: the columns of the model by attribute.
        columns: those that the caller has named.

    Raises:
        BulkError: the form is unknown, or a column is, or it comes twice.
    """
    named = None if columns is None else resolve(columns, table, formats)
    if _is_batch(first):
        return _of_batches(first, table, formats, named)
    if isinstance(first, Base):
        return _of_instances(first, table, formats, named)
    if isinstance(first, Mapping):
        return _of_mappings(list(first), table, formats, named)
    if not isinstance(first, Sequence) or isinstance(first, str | bytes):
        raise BulkError(f"A row or batch is {FORMS}, not {type(first).__name__}.")
    if named is not None:
        return _of_sequences(first, named, by_position=True)
    names = _fields(first) or [name for name in formats if name != "id"]
    return _of_sequences(first, resolve(names, table, formats), by_position=False)


def resolve(names: Iterable[str], table: str, formats: dict[str, ColumnFormat]) -> tuple[ColumnFormat, ...]:
    """Return the columns of these names, each that of an attribute or the column's own.

    Raises:
        BulkError: there is no such column, there is none at all, or one comes twice.
    """
    by_name = {**{column.name: column for column in formats.values()}, **formats}
    found: dict[str, ColumnFormat] = {}
    for name in names:
        column = by_name.get(name)
        if column is None:
            raise BulkError(f"{table} has no column {name!s:.64}; it has {', '.join(formats)}.")
        if column.name in found:
            raise BulkError(f"The column {column.name} of {table} is named twice.")
        found[column.name] = column
    if not found:
        raise BulkError(f"The rows for {table} have no columns.")
    return tuple(found.values())


def _of_instances(
    first: Base, table: str, formats: dict[str, ColumnFormat], named: tuple[ColumnFormat, ...] | None
) -> Shape:
    kind = type(first)
    columns, rows_of = _of_mappings(list(_values(first)), table, formats, named)

    def rows_of_instance(row: Any) -> Iterable[Sequence[Any]]:
        if not isinstance(row, kind):
            raise _other_type(row, kind)
        return rows_of(_values(row))

    return Shape(columns, rows_of_instance)


def _of_mappings(
    keys: list[str], table: str, formats: dict[str, ColumnFormat], named: tuple[ColumnFormat, ...] | None
) -> Shape:
    keys, columns = _match(keys, table, formats, named)
    pick = itemgetter(*keys)
    width = len(keys)

    def rows_of(row: Any) -> Iterable[Sequence[Any]]:
        try:
            # Of a dict, what it lacks raises; a defaultdict and its like make it up.
            if len(row) == width and (type(row) is dict or all(key in row for key in keys)):
                return (pick(row) if width > 1 else (pick(row),),)
        except (KeyError, TypeError, IndexError):
            pass
        raise Misfit(_difference(row, keys, formats))

    return Shape(columns, rows_of)


def _match(
    keys: Sequence[str], table: str, formats: dict[str, ColumnFormat], named: tuple[ColumnFormat, ...] | None
) -> tuple[list[str], tuple[ColumnFormat, ...]]:
    """Return the keys and their columns, which are those that the caller has named, if any."""
    columns = resolve(keys, table, formats)
    if named is not None and set(named) != set(columns):
        raise BulkError(
            f"The rows for {table} have {', '.join(column.attribute for column in columns)},"
            f" and columns says {', '.join(column.attribute for column in named)}."
        )
    return list(keys), columns


def _difference(row: Any, keys: Sequence[str], formats: dict[str, ColumnFormat]) -> str:
    if not isinstance(row, Mapping):
        return f"is of type {type(row).__name__}, and the first is not"
    lacking = [key for key in keys if key not in row]
    known = {*formats, *(column.name for column in formats.values())}
    extra = [key if key in known else "a key that is no column" for key in row if key not in keys]
    said = [f"{verb} {', '.join(names)}" for verb, names in (("lacks", lacking), ("adds", extra)) if names]
    return f"has other columns than the first: it {' and '.join(said)}"


def _of_sequences(first: Sequence[Any], columns: tuple[ColumnFormat, ...], *, by_position: bool) -> Shape:
    kind = type(first)
    width = len(columns)
    plain = issubclass(kind, tuple | list)
    accepted = (tuple, list) if plain else kind
    fields = _fields(first)
    # The names of a named tuple are those of its type; each Row of SQLAlchemy has its own.
    type_says_all = by_position or getattr(kind, "_fields", None) == fields

    def rows_of(row: Any) -> Iterable[Sequence[Any]]:
        if type(row) is not kind or not type_says_all:
            if not isinstance(row, accepted):
                raise _other_type(row, kind)
            if not by_position and _fields(row) != fields:
                raise Misfit("has values of other names than the first, or in another order")
        if len(row) != width:
            names = ", ".join(column.attribute for column in columns)
            raise Misfit(f"has {len(row)} values for {width} columns ({names})")
        return (row if plain else tuple(row),)

    return Shape(columns, rows_of)


def _of_batches(
    first: Any, table: str, formats: dict[str, ColumnFormat], named: tuple[ColumnFormat, ...] | None
) -> Shape:
    names, columns = _match(batches.names_of(_batch(first)), table, formats, named)
    by_name = dict(zip(names, columns, strict=True))

    def rows_of(item: Any) -> Iterable[Sequence[Any]]:
        if not _is_batch(item):
            raise Misfit(f"is of type {type(item).__name__}, and the first came in a batch")
        batch = _batch(item)
        if set(batches.names_of(batch)) != by_name.keys():
            raise Misfit("begins a batch that has other columns than the first")
        return batches.rows_of(batch, by_name)

    return Shape(columns, rows_of)


def _other_type(row: Any, kind: type) -> Misfit:
    return Misfit(f"is of type {type(row).__name__}, and the first is of type {kind.__name__}")


def _fields(row: Any) -> tuple[str, ...] | None:
    """Return the names that the values of a row have of their own."""
    return getattr(row, "_fields", None)


def _is_batch(item: Any) -> bool:
    return isinstance(item, Columns) or batches.is_arrow(item) or batches.is_structured_array(item)


def _batch(item: Any) -> Any:
    return item.of if isinstance(item, Columns) else item


def _values(row: Any) -> Mapping[str, Any]:
    """Return what an instance was given."""
    return {name: value for name, value in vars(row).items() if name != "_sa_instance_state"}
