"""Column types of the models, the validation of embeddings, and enums that compare in the order of their type."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pgvector import Vector
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import func
from sqlalchemy.orm import mapped_column

from syntegra_db.models.exact_types import (
    NUMERIC_DTYPE_KINDS,
    ExactBigInteger,
    ExactNumeric,
    ExactTimestamp,
    ExactType,
    InvalidValue,
)
from syntegra_db.pgvector_support import EMBEDDING_DIMENSIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BigSerial = Annotated[
    int, mapped_column(ExactBigInteger, primary_key=True, comment="Primary key, from a sequence owned by this column")
]
ClientId = Annotated[
    int,
    mapped_column(ExactBigInteger, comment="Client that owns the row; the clients table belongs to the application"),
]
SourceId = Annotated[
    int,
    mapped_column(ExactBigInteger, comment="Data source of the row, owned by the same client; NULL if none or deleted"),
]
Timestamp = Annotated[datetime, mapped_column(ExactTimestamp)]
TimestampNow = Annotated[datetime, mapped_column(ExactTimestamp, server_default=func.now())]
FiniteNumeric = Annotated[Decimal, mapped_column(ExactNumeric)]


class EmbeddingVector(Protocol):
    """An embedding: a list or tuple of numbers, or a one-dimensional NumPy array. A loaded one is a list of floats."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[float]: ...
    def __getitem__(self, index: int, /) -> float: ...


EmbeddingInput = EmbeddingVector | Sequence[Decimal] | Vector | str
"""The type of every value that is accepted as an embedding; a str has pgvector's text form, such as `[0.5,1]`."""


class InvalidEmbedding(InvalidValue):
    """The value is not a valid embedding; the message says why."""


class Embedding(ExactType[EmbeddingVector]):
    """`vector` of `dimensions` numbers, checked before it is sent, and compared with pgvector's own operators.

    It is sent as text, which every connection supports; the engines of `syntegra_db.database` send it in binary format.
    """

    impl = VECTOR
    cache_ok = True

    def __init__(self, dimensions: int = EMBEDDING_DIMENSIONS) -> None:
        super().__init__(dimensions)
        # SQLAlchemy reads the arguments from attributes of their names, for its cache and for copies.
        self.dimensions = dimensions

    @property
    def accepts(self) -> str:  # type: ignore[override]  # noqa: D102  computed
        return f"{self.dimensions} finite numbers"

    def convert(self, value: EmbeddingInput) -> Vector:
        """Return `value` as the single-precision floats that the server would store.

        Raises:
            InvalidEmbedding: another length, not numbers, a masked number, NaN or an infinity.
        """
        vector = self.to_vector(value)
        numbers = vector.to_list()
        # One infinity or NaN makes the sum one too, and that many single-precision numbers cannot overflow a double.
        if not isfinite(sum(numbers)):
            index, number = next((index, number) for index, number in enumerate(numbers) if not isfinite(number))
            raise InvalidEmbedding(f"{self._rule}; number {index} of this vector is {number}.")
        return vector

    def to_vector(self, value: EmbeddingInput) -> Vector:
        """Return `value` as single-precision floats, NaN and infinities included: the server rejects these.

        Raises:
            InvalidEmbedding: another length, not numbers, or a masked number.
        """
        try:
            vector = value if isinstance(value, Vector) else Vector(self._to_numbers(value))
        except InvalidEmbedding:
            raise
        except (TypeError, ValueError, OverflowError, AttributeError):
            dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
            array = "" if dtype is None else f" of {dtype} and shape {shape}"
            raise InvalidEmbedding(f"{self._rule}, not {type(value).__name__}{array}.") from None
        if vector.dimensions() != self.dimensions:
            raise InvalidEmbedding(f"{self._rule}; this vector has {vector.dimensions()}.")
        return vector

    def to_floats(self, value: EmbeddingInput) -> list[float]:
        """Return the numbers of `value` in double precision, after the checks of `convert`."""
        vector = self.convert(value)
        if isinstance(value, Vector):
            return vector.to_list()
        return [float(number) for number in (self._to_numbers(value) if isinstance(value, str) else value)]

    @property
    def _rule(self) -> str:
        place = "An embedding" if self._column is None else f"{self._column.table.name}.{self._column.name}"
        return f"{place} takes {self.accepts}"

    def _to_numbers(self, value: Any) -> Any:
        """Return `value` as a list, or as a NumPy array of single precision."""
        if isinstance(value, str):
            text = value.strip()
            try:
                if text[0] + text[-1] == "[]" and "_" not in text:
                    return [float(number) for number in text[1:-1].split(",")]
            except (IndexError, ValueError):
                pass
            raise InvalidEmbedding(f"{self._rule}; a text must have the form [1,2,…].")
        if not hasattr(value, "dtype"):
            return list(value) if isinstance(value, tuple) else value
        # The caller has an array, so NumPy is loaded; importing the models does not load it.
        import numpy as np

        if np.ma.is_masked(value):
            raise InvalidEmbedding(f"{self._rule}; this array has masked numbers.")
        # NumPy would convert other kinds too, even text.
        if not isinstance(value, np.ndarray) or value.dtype.kind not in NUMERIC_DTYPE_KINDS:
            raise TypeError
        # A number beyond single precision becomes an infinity, which is rejected later; NumPy would warn as well.
        with np.errstate(over="ignore"):
            return np.asarray(value, dtype=np.float32)

    def coerce_compared_value(self, op: Any, value: Any) -> Any:  # noqa: ARG002, D102  SQLAlchemy's signature
        return self


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

    @classmethod
    def from_label(cls, value: Any) -> Any:
        """Return the member with the label `value`; any other value is returned for the database type to reject."""
        return next((member for member in cls if isinstance(value, str) and member == value), value)
