"""Column types that store each value exactly, or reject it.

The server and psycopg would round, cut or convert some values without an error. Bound parameters and bulk loads use the
same conversions. A value that is only compared with a column keeps the conversions of SQLAlchemy and the server.
"""

from __future__ import annotations

import operator
from abc import abstractmethod
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import partial
from math import isnan
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import JSON, TIMESTAMP, BigInteger, Double, Enum, Integer, Numeric, String, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.types import TypeDecorator

from syntegra_db.models.json_values import exact_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Column, Dialect
    from sqlalchemy.sql.base import SchemaEventTarget

T = TypeVar("T")
EnumType = TypeVar("EnumType", bound=StrEnum)

# NumPy's kinds of dtype for float, signed and unsigned int.
NUMERIC_DTYPE_KINDS = "fiu"
# What a conversion raises for a value that it rejects.
CONVERSION_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
# A day before the limits of datetime: a session's time zone moves a timestamp by less than a day, and Python could not
# read one beyond the limits.
EARLIEST = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)
# The digits of PostgreSQL's `numeric` before and after the decimal point.
NUMERIC_INTEGER_DIGITS, NUMERIC_SCALE = 131072, 16383


class InvalidValue(DontWrapMixin, ValueError):
    """A column cannot store the value exactly; the message names the column, and what it takes."""


class ExactType(TypeDecorator[T]):
    """A type whose bound values are stored exactly, or rejected with `InvalidValue`."""

    cache_ok = True
    accepts: str
    """The values that the type takes, for messages."""

    _column: Column[Any] | None = None

    @abstractmethod
    def convert(self, value: Any) -> Any:
        """Return `value`, which is not None, as the driver sends it exactly.

        Raises:
            Exception: one of `CONVERSION_ERRORS`, because the column cannot store `value` exactly.
        """

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002, D102  SQLAlchemy's signature
        return None if value is None else self._convert_or_reject(value, self.convert)

    def _convert_or_reject(self, value: Any, convert: Callable[[Any], Any]) -> Any:
        try:
            return convert(value)
        except InvalidValue:
            raise
        except CONVERSION_ERRORS:
            pass
        # Raised here, because the context of the exception could show the value.
        column = self._column
        place = "The parameter" if column is None else f"{column.table.name}.{column.name}"
        raise InvalidValue(f"{place} takes {self.accepts}, not this value of type {type(value).__name__}.")

    def coerce_compared_value(self, op: Any, value: Any) -> Any:  # noqa: D102  SQLAlchemy's signature
        return self.impl_instance.coerce_compared_value(op, value)

    def _set_parent(self, parent: SchemaEventTarget, outer: bool = False, **kw: Any) -> None:  # noqa: FBT001, FBT002  SQLAlchemy's signature
        super()._set_parent(parent, outer, **kw)
        self._column = parent  # type: ignore[assignment]  # the parent of a type is a column


class ExactInteger(ExactType[int]):
    """`integer`: an int of Python or NumPy."""

    impl = Integer
    cache_ok = True
    bits = 32

    @property
    def accepts(self) -> str:  # type: ignore[override]  # noqa: D102  computed
        return f"an int from {-(2 ** (self.bits - 1))} to {2 ** (self.bits - 1) - 1}"

    def convert(self, value: Any) -> int:  # noqa: D102  inherited
        _require_number(value)
        number = operator.index(value)
        if not -(2 ** (self.bits - 1)) <= number < 2 ** (self.bits - 1):
            raise ValueError
        return number


class ExactBigInteger(ExactInteger):
    """`bigint`: an int of Python or NumPy."""

    impl = BigInteger
    cache_ok = True
    bits = 64


class ExactDouble(ExactType[float]):
    """`double precision`: a float, or another number that a float represents exactly."""

    impl = Double
    cache_ok = True
    accepts = "a float, or another number that a float represents exactly"

    def convert(self, value: Any) -> float:  # noqa: D102  inherited
        return _to_float(value)


class ExactNumeric(ExactType[Decimal]):
    """`numeric`: a Decimal or int, or a float as the shortest decimal number that is read as the same float."""

    impl = Numeric
    cache_ok = True
    accepts = (
        "a finite Decimal, int or float with at most "
        f"{NUMERIC_INTEGER_DIGITS} digits before and {NUMERIC_SCALE} after the decimal point"
    )

    def convert(self, value: Any) -> Decimal:  # noqa: D102  inherited
        number = value if isinstance(value, Decimal) else _to_decimal(value)
        if number.is_nan():
            # PostgreSQL has one NaN, without a sign.
            return Decimal("NaN")
        exponent = number.as_tuple().exponent
        # The CHECKs of the tables reject NaN and infinities, which have no exponent.
        if isinstance(exponent, int) and (exponent < -NUMERIC_SCALE or number.adjusted() >= NUMERIC_INTEGER_DIGITS):
            raise ValueError
        return number


class ExactString(ExactType[str]):
    """`varchar(length)`: a str without NUL, of at most `length` characters."""

    impl = String
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__(length)
        self.length = length

    @property
    def accepts(self) -> str:  # type: ignore[override]  # noqa: D102  computed
        if self.length is None:
            return "a str without NUL characters"
        return f"a str of at most {self.length} characters, none of them NUL"

    def convert(self, value: Any) -> str:  # noqa: D102  inherited
        if not isinstance(value, str) or "\0" in value or (self.length is not None and len(value) > self.length):
            raise ValueError
        if not value.isascii():
            # A lone surrogate has no encoding.
            value.encode()
        return value


class ExactText(ExactString):
    """`text`: a str without NUL."""

    impl = Text
    cache_ok = True

    def __init__(self) -> None:
        super().__init__()


class ExactTimestamp(ExactType[datetime]):
    """`timestamp with time zone`: a datetime with a time zone that Python can read in every time zone."""

    impl = TIMESTAMP
    cache_ok = True
    accepts = f"a datetime with a time zone, from {EARLIEST.date()} to {LATEST.date()} in UTC"

    def __init__(self) -> None:
        super().__init__(timezone=True)

    def convert(self, value: Any) -> datetime:  # noqa: D102  inherited
        # Comparing raises TypeError without a time zone, and is False for the NaT of pandas, which is a datetime too.
        if not isinstance(value, datetime) or not EARLIEST <= value <= LATEST:
            raise TypeError
        if type(value) is datetime:
            return value
        # A Timestamp of pandas may have nanoseconds, and psycopg reads the memory of any subclass as a datetime's.
        if getattr(value, "nanosecond", 0):
            raise ValueError
        return datetime.combine(value.date(), value.timetz())


class ExactJson(ExactType[Any]):
    """`jsonb`: a JSON value. None becomes NULL: a JSON null would satisfy IS NOT NULL and NOT NULL columns."""

    impl = JSONB
    cache_ok = True
    accepts = "a JSON value without NaN, infinities and NUL characters, with str keys and valid Unicode"

    def __init__(self) -> None:
        super().__init__(none_as_null=True)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:  # noqa: D102  SQLAlchemy's signature
        if value is None or value is JSON.NULL:
            return value
        # The engine's argument `json_serializer`, which may know more types.
        other_types = getattr(dialect, "_json_serializer", None) is not None
        return self._convert_or_reject(value, partial(self.convert, other_types=other_types))

    def convert(self, value: Any, *, other_types: bool = False) -> Any:  # noqa: D102  inherited
        value, text = exact_json(value, other_types=other_types)
        text.encode()
        return value


class ExactEnum(ExactType[EnumType]):
    """The PostgreSQL ENUM type `name` whose labels are the values of `enum`, in their order."""

    impl = Enum
    cache_ok = True

    def __init__(self, enum: type[EnumType], name: str) -> None:
        super().__init__(enum, name=name, values_callable=lambda members: [member.value for member in members])
        self.enum = enum
        self.name = name

    @property
    def accepts(self) -> str:  # type: ignore[override]  # noqa: D102  computed
        return f"one of {', '.join(self.enum)}"

    def convert(self, value: Any) -> EnumType:  # noqa: D102  inherited
        return self.enum(value)


def _require_number(value: Any) -> None:
    """Raise `TypeError` unless `value` is a real number; to Python, a bool and a duration of NumPy are numbers too."""
    kind = getattr(getattr(value, "dtype", None), "kind", "f")
    if isinstance(value, bool) or not isinstance(value, Real) or kind not in NUMERIC_DTYPE_KINDS:
        raise TypeError


def _to_decimal(value: Any) -> Decimal:
    """Return an int, or the shortest decimal number that is read as the same float."""
    _require_number(value)
    return Decimal(operator.index(value) if isinstance(value, Integral) else repr(_to_float(value)))


def _to_float(value: Any) -> float:
    """Return `value` as a float; raise `ValueError` if a float cannot represent it exactly."""
    if type(value) is float:
        return value
    if not isinstance(value, Decimal):
        _require_number(value)
    if isinstance(value, Integral):
        # NumPy would round its own integers to compare them.
        value = operator.index(value)
    number = float(value)
    if number != value and not (isnan(number) and isnan(value)):
        raise ValueError
    return number
