"""Every column stores any value exactly, or rejects it, in every way of writing a row."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import Double, Enum, Integer, Numeric, String, TypeDecorator

from support.sessions import session_on
from support.values import COLUMNS, REJECTED, WRITES, is_same, write_and_read
from syntegra_db.models import EMBEDDING_DIMENSIONS, Base
from syntegra_db.models.types import Embedding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from support.servers import Server

# Bounded, and the same in every run, so a failure is one of the change under test.
FEW_EXAMPLES = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Label(StrEnum):
    """The labels of an application that has its own enum."""

    HIGH = "high"
    STABLE = "stable"


offsets = st.builds(timezone, st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)))
numbers = st.one_of(
    st.booleans(),
    st.integers(-(2**64), 2**64),
    st.sampled_from([2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, 2**63, 10**400]),
    st.floats(),
    st.decimals(),
    st.decimals(places=20),
    st.floats(width=32).map(np.float32),
    st.floats().map(np.float64),
    st.integers(-(2**63), 2**63 - 1).map(np.int64),
    st.integers(0, 2**64 - 1).map(np.uint64),
    st.fractions(),
    st.complex_numbers(),
)
# Lone surrogates and NUL included; long enough for every column, and with blanks at the end.
texts = st.one_of(
    st.text(st.characters(), max_size=300),
    st.builds(lambda text, blanks: text + " " * blanks, st.text(max_size=60), st.integers(0, 300)),
    st.text().map(np.str_),
    st.sampled_from(Label),
)
timestamps = st.one_of(
    st.datetimes(timezones=st.one_of(offsets, st.timezones(), st.none())),
    st.builds(lambda limit, zone: limit.replace(tzinfo=zone), st.sampled_from([EARLIEST, LATEST]), offsets),
    st.dates(),
    st.sampled_from([pd.NaT, pd.Timestamp("2026-01-01T00:00:00.000000001Z"), np.datetime64("2026-01-01", "us")]),
    st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)).map(lambda naive: pd.Timestamp(naive, tz="Europe/Madrid")),  # noqa: DTZ001  pandas adds the time zone
)
json_keys = st.one_of(st.text(max_size=5), st.integers(), st.booleans(), st.none(), st.floats())
json_values = st.recursive(
    st.one_of(st.none(), numbers, texts, st.binary(max_size=3), st.just(date(2026, 1, 1)), st.just({1, 2})),
    lambda values: st.one_of(
        st.lists(values, max_size=3),
        st.lists(values, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=5), values, max_size=3),
        st.dictionaries(json_keys, values, max_size=3),
    ),
    max_leaves=8,
)


def vector(number: float, position: int, length: int, dtype: str) -> Any:
    """An array with one number that may be beyond the range of its type."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(np.arange(length) == position, number, 0.5).astype(dtype)


vectors = st.one_of(
    st.builds(
        vector,
        st.floats(),
        st.integers(0, EMBEDDING_DIMENSIONS - 1),
        st.sampled_from([EMBEDDING_DIMENSIONS, EMBEDDING_DIMENSIONS, EMBEDDING_DIMENSIONS - 1]),
        st.sampled_from(["f2", "f4", "f8", "i8", "?", "U5"]),
    ),
    st.lists(numbers, min_size=EMBEDDING_DIMENSIONS, max_size=EMBEDDING_DIMENSIONS),
)
BY_TYPE: tuple[tuple[type, st.SearchStrategy[Any]], ...] = (
    (
        JSONB,
        st.one_of(
            st.dictionaries(st.one_of(st.integers(), st.booleans(), st.none()), st.integers(), min_size=1),
            json_values,
            st.lists(st.floats(1e16, 1e308), min_size=1, max_size=2),
        ),
    ),
    (Enum, st.one_of(st.sampled_from(["low", "critical", "declining"]), texts)),
    (String, texts),
    (Integer, numbers),
    (Double, numbers),
    (Numeric, numbers),
)


def values_for(model: type[Base], column: str) -> st.SearchStrategy[Any]:
    """Values of the column's type, and some of other types."""
    kind: Any = getattr(model, column).type
    if isinstance(kind, Embedding):
        return vectors
    plain = kind.impl_instance if isinstance(kind, TypeDecorator) else kind
    own = next((values for declared, values in BY_TYPE if isinstance(plain, declared)), timestamps)
    # To the ORM, None means that the attribute is not set.
    values = st.one_of(own, own, own, numbers, texts, timestamps).filter(lambda value: value is not None)
    # The session looks a key up in a dict before it writes the row.
    return values.filter(is_hashable) if column == "id" else values


def is_hashable(value: Any) -> bool:
    """Whether a dict can have the key: a signaling NaN raises."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


@pytest.fixture(scope="module")
def session(server: Server, migrated_template: str) -> Iterator[Session]:
    with server.database(migrated_template) as database, session_on(database) as session:
        yield session


@pytest.mark.parametrize(("model", "column"), COLUMNS)
def test_value_of_any_kind_is_stored_exactly_or_rejected(session: Session, model: type[Base], column: str) -> None:
    @FEW_EXAMPLES
    @given(values_for(model, column))
    def check(value: Any) -> None:
        stored = {way: write_and_read(session, way, model, column, value) for way in WRITES}
        rejected = {way for way, result in stored.items() if result is REJECTED}
        assert rejected in (set(), set(WRITES)), "some ways accept the value, and others reject it"
        assert rejected or all(is_same(result, value) for result in stored.values()), stored

    check()
