"""Dump the values of each column in the binary format of its type, for COPY.

psycopg selects the dumper of a value in COPY by the OID of its type, and does not send this OID. Each column gets a
synthetic OID above 32 bits, so its dumper can be selected without querying the server.
"""

from __future__ import annotations

import struct
from datetime import MAXYEAR, datetime
from decimal import Decimal
from functools import lru_cache, partial
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import psycopg
from pgvector.sqlalchemy import VECTOR
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy import JSON, BigInteger, Double, Enum, Integer, Numeric, String, inspect
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TIMESTAMP

from syntegra_db.errors import BulkLoadError
from syntegra_db.models import exact_types
from syntegra_db.models.exact_types import ExactType
from syntegra_db.models.json_values import exact_json
from syntegra_db.models.types import Embedding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.sql.elements import NamedColumn

    from syntegra_db.models import Base

# OIDs have 32 bits.
FIRST_SYNTHETIC_OID = 2**32
INT4, INT8, DOUBLE = struct.Struct(">i"), struct.Struct(">q"), struct.Struct(">d")
JSONB_VERSION = b"\x01"
EXACT_NUMBERS = frozenset({Decimal, int})


def builtin_dumper(name: str) -> type[Dumper]:
    """Return psycopg's binary dumper for PostgreSQL's built-in type `name`."""
    return cast("type[Dumper]", psycopg.adapters.get_dumper_by_oid(psycopg.adapters.types[name].oid, Format.BINARY))


class ColumnFormat(NamedTuple):
    """A column of a model, a description of the values that it accepts, and their dumper."""

    attribute: str
    name: str
    accepts: str
    oid: int
    dumper: type[Dumper]

    @property
    def is_vector(self) -> bool:
        """Return whether the values are vectors, so a batch has them in one array."""
        return issubclass(self.dumper, _VectorDumper)


class _BinaryDumper(Dumper):
    """Dumper of a column's values; `convert` is the conversion of the column's type.

    `convert` takes longer than the rest. `dump` therefore skips it for a value of the usual type that it would not
    change, and that the server, psycopg or `pack` would reject if it is invalid.
    """

    format = Format.BINARY
    convert: ClassVar[Any]


class _IntegerDumper(_BinaryDumper):
    """psycopg's own dumpers in C accept a bool, and truncate a number beyond int4 to 32 bits (3.3.9)."""

    pack: ClassVar[Any]

    def dump(self, obj: Any) -> Any:
        return self.pack(obj if type(obj) is int else self.convert(obj))


class _DoubleDumper(_BinaryDumper):
    def dump(self, obj: Any) -> bytes:
        return DOUBLE.pack(obj if type(obj) is float else self.convert(obj))


class _NumericDumper(_BinaryDumper):
    def __init__(self, cls: type, context: Any = None) -> None:
        super().__init__(cls, context)
        numeric: Any = builtin_dumper("numeric")
        self._dump = numeric(cls, context).dump

    def dump(self, obj: Any) -> Any:
        return self._dump(obj if type(obj) in EXACT_NUMBERS else self.convert(obj))


class _TimestamptzDumper(_BinaryDumper):
    """psycopg's own dumper in C reads the memory of any object as a datetime's, and rejects naive ones (3.3.9)."""

    def __init__(self, cls: type, context: Any = None) -> None:
        super().__init__(cls, context)
        timestamptz: Any = builtin_dumper("timestamptz")
        self._dump = timestamptz(cls, context).dump

    def dump(self, obj: Any) -> Any:
        is_plain = type(obj) is datetime and 1 < obj.year < MAXYEAR
        return self._dump(obj if is_plain else self.convert(obj))


class _TextDumper(_BinaryDumper):
    length: ClassVar[float]

    def __init__(self, cls: type, context: Any = None) -> None:
        super().__init__(cls, context)
        self._encode = _text_encoder(self)

    def dump(self, obj: Any) -> Any:
        if type(obj) is not str or len(obj) > self.length:
            obj = self.convert(obj)
        return self._encode(obj)


class _JsonbDumper(_BinaryDumper):
    serialize: ClassVar[Any] = None

    def __init__(self, cls: type, context: Any = None) -> None:
        super().__init__(cls, context)
        self._encode = _text_encoder(self)

    def dump(self, obj: Any) -> bytes:
        # The symbol is an int, which JSON would accept as a number.
        if obj is JSON.NULL:
            return JSONB_VERSION + b"null"
        text: str | bytes
        value, text = exact_json(obj, other_types=self.serialize is not None)
        if self.serialize is not None:
            text = self.serialize(value)
        return JSONB_VERSION + (text if isinstance(text, bytes) else self._encode(text))


class _EnumDumper(_BinaryDumper):
    labels: ClassVar[Mapping[str, bytes]]

    def dump(self, obj: Any) -> bytes:
        return self.labels[obj]


class _VectorDumper(_BinaryDumper):
    """The server rejects NaN and infinities."""

    to_vector: ClassVar[Any]

    def dump(self, obj: Any) -> Any:
        return self.to_vector(obj).to_binary()


def _text_encoder(dumper: Dumper) -> Callable[[str], bytes]:
    """Return the function that encodes text as the server expects it from the connection of `dumper`."""
    encoding = "utf-8" if dumper.connection is None else dumper.connection.info.encoding
    # SQL_ASCII, which psycopg calls ascii, stores any bytes. Without an argument the function is twice as fast.
    return str.encode if encoding in {"utf-8", "ascii"} else partial(str.encode, encoding=encoding)


@lru_cache(maxsize=64)
def column_formats(model: type[Base], json_serializer: Callable[[Any], str | bytes] | None) -> dict[str, ColumnFormat]:
    """Return the formats of the columns of `model`, in their order, by attribute.

    Args:
        model: one of the models.
        json_serializer: the engine's argument of that name, if any.

    Raises:
        BulkLoadError: a column has a type that none of the seven models has.
    """
    return {
        attribute.key: _format(attribute.key, attribute.columns[0], FIRST_SYNTHETIC_OID + number, json_serializer)
        for number, attribute in enumerate(inspect(model).column_attrs)
    }


def _format(
    attribute: str, column: NamedColumn[Any], oid: int, json_serializer: Callable[[Any], str | bytes] | None
) -> ColumnFormat:
    column_type = _exact_type(column)
    if type(column_type) is exact_types.ExactText:
        # psycopg and the server reject what the conversion rejects.
        builtin = builtin_dumper("text")
        return ColumnFormat(attribute, column.name, column_type.accepts, builtin.oid, builtin)
    dumper, members = next(
        (dumper, members(column_type)) for kind, dumper, members in DUMPERS if isinstance(column_type, kind)
    )
    if json_serializer is not None and dumper is _JsonbDumper:
        members["serialize"] = staticmethod(json_serializer)
    members |= {"oid": oid, "convert": staticmethod(column_type.convert)}
    return ColumnFormat(attribute, column.name, column_type.accepts, oid, type(dumper.__name__, (dumper,), members))


def _exact_type(column: NamedColumn[Any]) -> ExactType[Any]:
    """Return the type of `column`, or the exact type for the type of an application's model."""
    if isinstance(column.type, ExactType):
        return column.type
    exact = next((exact for kind, exact in EXACT_TYPES if isinstance(column.type, kind)), lambda _: None)(column.type)
    if exact is None:
        raise BulkLoadError(f"Bulk loads do not support the type {column.type!r} of the column {column.name}.")
    return exact


# The dumper of each type, and its attributes. A base class comes after the classes derived from it.
DUMPERS: tuple[tuple[type[ExactType[Any]], type[_BinaryDumper], Callable[[Any], dict[str, Any]]], ...] = (
    (Embedding, _VectorDumper, lambda kind: {"to_vector": staticmethod(kind.to_vector)}),
    (exact_types.ExactJson, _JsonbDumper, lambda _: {}),
    (exact_types.ExactEnum, _EnumDumper, lambda kind: {"labels": {label: label.encode() for label in kind.enum}}),
    (exact_types.ExactString, _TextDumper, lambda kind: {"length": kind.length or inf}),
    (exact_types.ExactBigInteger, _IntegerDumper, lambda _: {"pack": INT8.pack}),
    (exact_types.ExactInteger, _IntegerDumper, lambda _: {"pack": INT4.pack}),
    (exact_types.ExactDouble, _DoubleDumper, lambda _: {}),
    (exact_types.ExactNumeric, _NumericDumper, lambda _: {}),
    (exact_types.ExactTimestamp, _TimestamptzDumper, lambda _: {}),
)
EXACT_TYPES: tuple[tuple[type, Callable[[Any], ExactType[Any] | None]], ...] = (
    (JSONB, lambda _: exact_types.ExactJson()),
    (VECTOR, lambda kind: Embedding(kind.dim) if kind.dim else None),
    (Enum, lambda kind: kind.enum_class and exact_types.ExactEnum(kind.enum_class, kind.name)),
    (String, lambda kind: exact_types.ExactString(kind.length)),
    (BigInteger, lambda _: exact_types.ExactBigInteger()),
    (Integer, lambda _: exact_types.ExactInteger()),
    (Double, lambda _: exact_types.ExactDouble()),
    (Numeric, lambda _: exact_types.ExactNumeric()),
    (TIMESTAMP, lambda kind: exact_types.ExactTimestamp() if kind.timezone else None),
)
