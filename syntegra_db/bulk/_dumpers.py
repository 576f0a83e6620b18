"""Dump the values of each column in the binary format of its type, for COPY.

psycopg selects the dumper of a value in COPY by the OID of its type, and does not send this OID. Each column gets a
synthetic OID above 32 bits, so its dumper can be selected without querying the server.
"""

from __future__ import annotations

import json
import struct
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy import JSON, BigInteger, Double, Enum, Integer, Numeric, String, inspect
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TIMESTAMP

from syntegra_db.errors import BulkLoadError
from syntegra_db.models.types import EMBEDDING_DIMENSIONS, Embedding, to_vector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.sql.elements import NamedColumn

    from syntegra_db.models import Base

# OIDs have 32 bits.
FIRST_SYNTHETIC_OID = 2**32
INT4, INT8, DOUBLE = struct.Struct(">i"), struct.Struct(">q"), struct.Struct(">d")
JSONB_VERSION = b"\x01"
# The significant digits that PostgreSQL's cast from float8 to numeric keeps: DBL_DIG.
NUMERIC_DIGITS = 15
EXACT_NUMBERS = frozenset({Decimal, int})

_compact_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


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


def _is_bool(value: Any) -> bool:
    """Return whether `value` is a bool of Python or NumPy."""
    return isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", None) == "b"


class _BinaryDumper(Dumper):
    format = Format.BINARY


class _IntegerDumper(_BinaryDumper):
    """psycopg's own dumpers in C accept a bool, and truncate a number beyond int4 to 32 bits (3.3.9)."""

    pack: ClassVar[Any]

    def dump(self, obj: Any) -> Any:
        # pack accepts it, but the server does not.
        if type(obj) is bool:
            raise TypeError
        return self.pack(obj)


class _DoubleDumper(_BinaryDumper):
    def dump(self, obj: Any) -> bytes:
        if type(obj) is not float and _is_bool(obj):
            raise TypeError
        return DOUBLE.pack(obj)


class _NumericDumper(_BinaryDumper):
    def __init__(self, cls: type, context: Any = None) -> None:
        super().__init__(cls, context)
        numeric: Any = builtin_dumper("numeric")
        self._dump = numeric(cls, context).dump

    def dump(self, obj: Any) -> Any:
        # Most values have one of three types; the other types take longer to check.
        if type(obj) in EXACT_NUMBERS:
            return self._dump(obj)
        if type(obj) is not float:
            if _is_bool(obj):
                raise TypeError
            if isinstance(obj, Decimal):
                return self._dump(obj)
            # An integer of NumPy.
            if hasattr(obj, "__index__"):
                return self._dump(obj.__index__())
        return self._dump(Decimal(f"{obj.__float__():.{NUMERIC_DIGITS}g}"))


class _TimestamptzDumper(_BinaryDumper):
    """psycopg's own dumper in C reads the memory of any object as a datetime's (3.3.9)."""

    def __init__(self, cls: type, context: Any = None) -> None:
        super().__init__(cls, context)
        timestamptz: Any = builtin_dumper("timestamptz")
        self._dump = timestamptz(cls, context).dump

    def dump(self, obj: Any) -> Any:
        if not isinstance(obj, datetime):
            raise TypeError
        return self._dump(obj)


class _JsonbDumper(_BinaryDumper):
    dumps: ClassVar[Any] = staticmethod(_compact_json)

    def dump(self, obj: Any) -> bytes:
        # The symbol is an int, which JSON would accept as a number.
        text: str | bytes = self.dumps(None if obj is JSON.NULL else obj)
        return JSONB_VERSION + (text if isinstance(text, bytes) else text.encode())


class _EnumDumper(_BinaryDumper):
    labels: ClassVar[Mapping[str, bytes]]

    def dump(self, obj: Any) -> bytes:
        return self.labels[obj]


class _VectorDumper(_BinaryDumper):
    """The server rejects NaN and infinities."""

    def dump(self, obj: Any) -> Any:
        return to_vector(obj).to_binary()


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
    kind = _type_spec(column)
    if isinstance(kind.dumper, str):
        builtin = builtin_dumper(kind.dumper)
        return ColumnFormat(attribute, column.name, kind.accepts, builtin.oid, builtin)
    members = dict(kind.members)
    if json_serializer is not None and kind.dumper is _JsonbDumper:
        members["dumps"] = staticmethod(json_serializer)
    dumper = type(kind.dumper.__name__, (kind.dumper,), {"oid": oid, **members})
    return ColumnFormat(attribute, column.name, kind.accepts, oid, dumper)


class _TypeSpec(NamedTuple):
    """A description of the values that a type accepts, and their dumper: a name in psycopg, or a class and members."""

    accepts: str
    dumper: str | type[Dumper]
    members: Mapping[str, Any] = {}


def _string(column_type: Any) -> _TypeSpec:
    if column_type.length is None:
        return _TypeSpec("a str without NUL characters", "text")
    return _TypeSpec(f"a str of at most {column_type.length} characters, none of them NUL", "varchar")


def _enum(column_type: Any) -> _TypeSpec:
    labels = {label: label.encode() for label in column_type.enums}
    return _TypeSpec(f"one of {', '.join(labels)}", _EnumDumper, {"labels": labels})


def _timestamp(column_type: Any) -> _TypeSpec | None:
    return _TypeSpec("a datetime with a time zone", _TimestamptzDumper) if column_type.timezone else None


# A base class comes after the classes derived from it.
TYPE_SPECS: tuple[tuple[type, Callable[[Any], _TypeSpec | None]], ...] = (
    (Embedding, lambda _: _TypeSpec(f"{EMBEDDING_DIMENSIONS} finite numbers", _VectorDumper)),
    (JSONB, lambda _: _TypeSpec("a JSON value without NaN, infinities and NUL characters", _JsonbDumper)),
    (Enum, _enum),
    (String, _string),
    (BigInteger, lambda _: _TypeSpec(f"an int from {-(2**63)} to {2**63 - 1}", _IntegerDumper, {"pack": INT8.pack})),
    (Integer, lambda _: _TypeSpec(f"an int from {-(2**31)} to {2**31 - 1}", _IntegerDumper, {"pack": INT4.pack})),
    (Double, lambda _: _TypeSpec("a float", _DoubleDumper)),
    (Numeric, lambda _: _TypeSpec("a finite number: Decimal, int or float", _NumericDumper)),
    (TIMESTAMP, _timestamp),
)


def _type_spec(column: NamedColumn[Any]) -> _TypeSpec:
    for column_type, describe in TYPE_SPECS:
        if isinstance(column.type, column_type):
            kind = describe(column.type)
            if kind is not None:
                return kind
            break
    raise BulkLoadError(f"Bulk loads do not support the type {column.type!r} of the column {column.name}.")
