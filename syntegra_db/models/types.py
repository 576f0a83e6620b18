"""Column types that more than one model uses, and the one for embeddings."""

from __future__ import annotations

import operator
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

from pgvector import Vector
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import TIMESTAMP, BigInteger, Dialect, Enum, Numeric, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.orm import mapped_column
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EMBEDDING_DIMENSIONS = 384
# Of NumPy's kinds of dtype: float, signed and unsigned int. It would make numbers of the others too, even of text.
NUMERIC_DTYPE_KINDS = "fiu"

# None is SQL NULL: a JSON null would pass for a value in IS NOT NULL and in NOT NULL columns.
JSON_TYPE = JSONB(none_as_null=True)

BigSerial = Annotated[
    int, mapped_column(BigInteger, primary_key=True, comment="Primary key, from a sequence owned by this column")
]
ClientId = Annotated[
    int,
    mapped_column(BigInteger, comment="Client that owns the row; the clients table belongs to the application"),
]
SourceId = Annotated[
    int,
    mapped_column(BigInteger, comment="Data source of the row, owned by the same client; NULL if none or deleted"),
]
Timestamp = Annotated[datetime, mapped_column(TIMESTAMP(timezone=True))]
TimestampNow = Annotated[datetime, mapped_column(TIMESTAMP(timezone=True), server_default=func.now())]
FiniteNumeric = Annotated[Decimal, mapped_column(Numeric)]


class EmbeddingVector(Protocol):
    """What an embedding goes in as: a list or tuple of numbers, or a one-dimensional NumPy array.

    It comes back as a list of 384 floats.
    """

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[float]: ...
    def __getitem__(self, index: int, /) -> float: ...


class InvalidEmbedding(DontWrapMixin, ValueError):
    """A value that `text_summary.embedding` cannot take."""


def validate_embedding(value: EmbeddingVector | Vector) -> Vector:
    """Return `value` as the 384 single-precision floats that the server would store.

    A NumPy array goes over without becoming a list.

    Raises:
        InvalidEmbedding: another length, not numbers, or NaN or an infinity among them.
    """
    rule = f"text_summary.embedding takes {EMBEDDING_DIMENSIONS} finite numbers"
    try:
        vector = _to_vector(value)
    except (TypeError, ValueError, OverflowError, AttributeError):
        array = (
            f" of {value.dtype} and shape {value.shape}" if hasattr(value, "dtype") and hasattr(value, "shape") else ""
        )
        raise InvalidEmbedding(f"{rule}, not {type(value).__name__}{array}.") from None
    if vector.dimensions() != EMBEDDING_DIMENSIONS:
        raise InvalidEmbedding(f"{rule}; this vector has {vector.dimensions()}.")
    if not _is_finite(vector, is_array=not isinstance(value, list | tuple | Vector)):
        place, number = next((i, number) for i, number in enumerate(vector.to_list()) if not isfinite(number))
        raise InvalidEmbedding(f"{rule}; number {place} of this vector is {number}.")
    return vector


def _to_vector(value: Any) -> Vector:
    if isinstance(value, Vector):
        return value
    if hasattr(value, "dtype") and value.dtype.kind not in NUMERIC_DTYPE_KINDS:
        raise TypeError
    return Vector(list(value) if isinstance(value, tuple) else value)


def _is_finite(vector: Vector, *, is_array: bool) -> bool:
    if is_array:
        # Who gives an array has loaded NumPy, which looks at it without making a list.
        import numpy as np

        return bool(np.isfinite(vector.to_numpy()).all())
    # One infinity or NaN makes the sum one too, and 384 single-precision numbers cannot overflow a double.
    return isfinite(sum(vector.to_list()))


class Embedding(TypeDecorator[EmbeddingVector]):
    """`vector(384)`, checked before anything is sent; compared with pgvector's own operators.

    It travels as text, which every connection understands, and in binary on the engines of `syntegra_db.database`.
    """

    impl = VECTOR
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(EMBEDDING_DIMENSIONS)

    def process_bind_param(self, value: EmbeddingVector | None, dialect: Dialect) -> Any:  # noqa: ARG002, D102  SQLAlchemy's
        return None if value is None else validate_embedding(value)


def _compare_positions(compare: Callable[[int, int], bool]) -> Callable[[Any, Any], Any]:
    def method(self: OrderedEnum, other: object) -> Any:
        if type(other) is type(self):
            members = list(type(self))
            return compare(members.index(self), members.index(other))
        if isinstance(other, str):
            # `str` would compare the labels alphabetically.
            raise TypeError(
                f"Cannot compare {self!r} with {other!r}: compare it with a member of {type(self).__name__}."
            )
        return NotImplemented

    return method


class OrderedEnum(StrEnum):
    """Labels that compare by their position, as the PostgreSQL ENUM type does, and not alphabetically."""

    __lt__ = _compare_positions(operator.lt)
    __le__ = _compare_positions(operator.le)
    __gt__ = _compare_positions(operator.gt)
    __ge__ = _compare_positions(operator.ge)


EnumType = TypeVar("EnumType", bound=StrEnum)


def pg_enum(enum: type[EnumType], name: str) -> Enum:
    """Return the PostgreSQL ENUM type `name` whose labels are the values of `enum`, in their order."""
    return Enum(enum, name=name, values_callable=lambda members: [member.value for member in members])
