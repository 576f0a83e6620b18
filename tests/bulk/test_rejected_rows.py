"""Rows that cannot be stored: the error gives row and column, shows no value, and nothing is stored."""

from __future__ import annotations

from collections import defaultdict, namedtuple
from datetime import date, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import select

from support.bulk_assertions import GOOD, assert_rejected
from support.bulk_rows import SECRET, START, embedding, kpi
from syntegra_db.bulk import copy_rows
from syntegra_db.models import (
    EMBEDDING_DIMENSIONS,
    AnomalyLog,
    Base,
    Cluster,
    DataSource,
    KpiSummary,
    TextSummary,
    TrendSignal,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


# A column, a value that it rejects, a description of what it accepts, and whether the client finds the error.
BAD_VALUES: list[tuple[type[Base], str, Any, str, bool]] = [
    (KpiSummary, "client_id", "7", "an int from -9223372036854775808 to 9223372036854775807", True),
    (KpiSummary, "client_id", 7.0, "an int", True),
    (KpiSummary, "client_id", 2**63, "an int", True),
    (Cluster, "cluster_id", 2**31, "an int from -2147483648 to 2147483647", True),
    (Cluster, "cluster_id", -(2**31) - 1, "an int", True),
    (TrendSignal, "frequency", 2**40, "an int", True),
    (KpiSummary, "client_id", True, "an int", True),
    (KpiSummary, "client_id", np.True_, "an int", True),
    (Cluster, "cluster_id", False, "an int", True),
    (KpiSummary, "kpi_value", "12.5", "a finite number", True),
    (KpiSummary, "kpi_value", True, "a finite number", True),
    (KpiSummary, "kpi_value", np.True_, "a finite number", True),
    (KpiSummary, "kpi_value", 1j, "a finite number", True),
    (TextSummary, "sentiment_score", "0.5", "a float", True),
    (TextSummary, "sentiment_score", True, "a float", True),
    (TextSummary, "sentiment_score", np.False_, "a float", True),
    (TextSummary, "sentiment_score", 10**400, "a float", True),
    (TextSummary, "text_field", 5, "a str", True),
    (TextSummary, "text_field", b"x", "a str", True),
    (TextSummary, "text_field", "\ud800", "a str", True),
    (TextSummary, "text_field", f"{SECRET}\0", "a str without NUL", False),
    (TextSummary, "sentiment", f"{SECRET}\0", "a str of at most 50 characters, none of them NUL", False),
    (TextSummary, "language", SECRET, "a str of at most 10 characters", True),
    (KpiSummary, "period_start", datetime(2026, 1, 1), "a datetime with a time zone", True),  # noqa: DTZ001  the case under test
    (KpiSummary, "period_start", date(2026, 1, 1), "a datetime with a time zone", True),
    (KpiSummary, "period_start", "2026-01-01T00:00:00Z", "a datetime with a time zone", True),
    (DataSource, "config_json", {"token": {SECRET}}, "a JSON value", True),
    (DataSource, "config_json", {SECRET: float("nan")}, "a JSON value without NaN, infinities and NUL", True),
    (DataSource, "config_json", {"token": f"{SECRET}\0"}, "a JSON value", True),
    (TrendSignal, "status", SECRET, "one of emergent, stable, declining", True),
    (TrendSignal, "status", 1, "one of emergent", True),
    (AnomalyLog, "severity", "HIGH", "one of low, medium, high, critical", True),
    (TextSummary, "embedding", [1.0] * 383, "384 finite numbers", True),
    (TextSummary, "embedding", [*[1.0] * 383, float("nan")], "384 finite numbers", False),
    (TextSummary, "embedding", ["1"] * 384, "384 finite numbers", True),
    (TextSummary, "embedding", b"x" * 384, "384 finite numbers", True),
    (TextSummary, "embedding", "[1]", "384 finite numbers", True),
    (TextSummary, "embedding", np.ones(383, np.float32), "384 finite numbers", True),
    (TextSummary, "embedding", np.ones((1, 384)), "384 finite numbers", True),
    *(
        (TextSummary, "embedding", np.ones(384).astype(kind), "384 finite numbers", True)
        for kind in (complex, bool, object, "U3", "S3", "M8[s]", "m8[s]")
    ),
    (TextSummary, "embedding", np.full(384, np.nan), "384 finite numbers", False),
    (TextSummary, "embedding", np.full(384, np.inf, np.float32), "384 finite numbers", False),
    (TextSummary, "embedding", np.full(384, 1e39), "384 finite numbers", False),
]


@pytest.mark.parametrize(("model", "column", "value", "accepts", "found_by_client"), BAD_VALUES)
def test_value_that_its_column_rejects_is_reported(  # noqa: PLR0913, PLR0917  a case
    session: Session,
    model: type[Base],
    column: str,
    value: Any,
    accepts: str,
    found_by_client: bool,  # noqa: FBT001
) -> None:
    rows = [{**GOOD[model], "id": 1}, {**GOOD[model], "id": 2}, {**GOOD[model], "id": 3, column: value}]
    error = assert_rejected(session, model, iter(rows))
    assert (error.row, error.column) == (3, column)
    assert str(error).startswith(f"Row 3: {model.__tablename__}.{column} takes {accepts}")
    assert (error.sqlstate is None) is found_by_client


def test_masked_embedding_is_rejected(session: Session) -> None:
    vector = np.ma.masked_equal(np.arange(384, dtype=np.float32), 3)
    error = assert_rejected(session, TextSummary, [{**GOOD[TextSummary], "embedding": vector}])
    assert (error.row, error.column) == (1, "embedding")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {k: v for k, v in kpi(1, metadata_=None).items() if k != "kpi_name"},
            "than the first row: missing kpi_name;",
        ),
        (kpi(1, metadata_=None, calculated_at=START), "than the first row: additional calculated_at;"),
        ({**kpi(1), SECRET: 1}, "missing metadata_; additional a key that is not a column;"),
        ({**kpi(1), "metadata": None}, "missing metadata_; additional metadata;"),
        ((1, 2), "is of type tuple, but the first row is a mapping"),
        (None, "is of type NoneType"),
        (SECRET, "is of type str"),
    ],
)
def test_row_with_other_columns_than_the_first_is_rejected(session: Session, row: Any, words: str) -> None:
    error = assert_rejected(session, KpiSummary, [kpi(1, metadata_=None), kpi(2, metadata_=None), row])
    assert error.row == 3
    assert str(error).startswith("Row 3 ")
    assert words in str(error)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((1,), "has 1 values for 5 columns"),
        (kpi(1), "is of type dict, but the first row is of type tuple"),
        ("abcde", "is of type str"),
        ({1, 2, 3, 4, 5}, "is of type set"),
    ],
)
def test_tuple_unlike_the_first_is_rejected(session: Session, row: Any, words: str) -> None:
    error = assert_rejected(session, KpiSummary, [tuple(kpi(1).values()), row], columns=list(kpi(1)))
    assert error.row == 2
    assert words in str(error)


class Swapped(NamedTuple):
    client_id: int
    kpi_name: str
    kpi_value: int
    period_end: datetime
    period_start: datetime


def named(**values: Any) -> Any:
    return namedtuple("named", values)(**values)  # noqa: PYI024  of any names


@pytest.mark.parametrize("first", [tuple(kpi(1).values()), named(**kpi(1))])
@pytest.mark.parametrize("row", [Swapped(**kpi(2)), named(**dict(reversed(kpi(2).items())))])
def test_named_tuple_with_other_names_is_rejected(session: Session, first: Any, row: Any) -> None:
    rows = [first, row] if hasattr(first, "_fields") else [row, first]
    error = assert_rejected(session, KpiSummary, rows)
    assert str(error).startswith("Row 2 has other names than the first row, or the same names in another order")
    by_position = [first, type(row)(*kpi(2).values())]
    assert copy_rows(session, KpiSummary, by_position, columns=list(kpi(1))) == 2


def test_query_result_with_other_names_is_rejected(session: Session) -> None:
    columns = [KpiSummary.__table__.c[name] for name in kpi(1)]
    copy_rows(session, KpiSummary, [kpi(1)])
    one = session.execute(select(*columns)).all()
    other = session.execute(select(*columns[:3], *reversed(columns[3:]))).all()
    session.rollback()
    assert "Row 2 has other names than the first row" in str(assert_rejected(session, KpiSummary, [*one, *other]))
    assert copy_rows(session, KpiSummary, [*one, *one]) == 2


def test_default_of_a_mapping_is_not_used_for_a_missing_key(session: Session) -> None:
    row = defaultdict(lambda: SECRET, {**kpi(2), "calculated_at": START})
    error = assert_rejected(session, KpiSummary, [kpi(1, metadata_=None), row])
    assert "Row 2 has other columns than the first row: missing metadata_; additional calculated_at" in str(error)
    assert "metadata_" not in row


@pytest.mark.parametrize("row", [SimpleNamespace(**kpi(2)), AnomalyLog(client_id=2), kpi(2), 5])
def test_row_that_is_not_an_instance_like_the_first_is_rejected(session: Session, row: Any) -> None:
    error = assert_rejected(session, KpiSummary, [KpiSummary(**kpi(1)), row])
    assert str(error).startswith(f"Row 2 is of type {type(row).__name__}, but the first row is of type KpiSummary")


def test_batch_unlike_the_first_is_rejected(session: Session) -> None:
    first = pa.RecordBatch.from_pylist([kpi(1), kpi(2)])
    error = assert_rejected(session, KpiSummary, [first, pa.RecordBatch.from_pylist([{"client_id": 1}])])
    assert "Row 3 begins a batch with other columns" in str(error)
    error = assert_rejected(session, KpiSummary, [first, kpi(3)])
    assert "Row 3 is of type dict, but the first item is a batch" in str(error)


def batch_of(column: str, values: Any) -> dict[str, Any]:
    """A batch of two rows."""
    rows = {**{name: [value] * 2 for name, value in kpi(1).items()}, column: values}
    return {name: pa.array(rows[name]) if isinstance(values, pa.Array) else rows[name] for name in rows}


def test_partly_masked_embedding_in_a_batch_is_rejected(session: Session) -> None:
    embeddings = np.ma.masked_array(np.ones((3, EMBEDDING_DIMENSIONS)), mask=False)
    embeddings[1] = np.ma.masked
    embeddings[2, 7] = np.ma.masked
    batch = {"client_id": [1, 2, 3], "text_field": ["x"] * 3, "embedding": embeddings}
    error = assert_rejected(session, TextSummary, batch)
    assert (error.row, error.column) == (3, "embedding")


@pytest.mark.parametrize("unit", ["Y", "M", "D", "h", "s", "ms", "us"])
def test_numpy_timestamp_beyond_the_calendar_is_rejected(session: Session, unit: str) -> None:
    for far in (2**62, -(2**62)):
        timestamps = np.array([56, far], "i8").astype(f"M8[{unit}]")
        error = assert_rejected(session, KpiSummary, batch_of("calculated_at", timestamps))
        assert (error.row, error.column) == (2, "calculated_at")


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_arrow_timestamp_beyond_the_calendar_is_rejected(session: Session, unit: str) -> None:
    for far in (2**62, -(2**62), 253402300800 * {"s": 1, "ms": 10**3, "us": 10**6}[unit]):
        timestamps = pa.array([56, far], pa.timestamp(unit, "UTC"))
        error = assert_rejected(session, KpiSummary, pa.table(batch_of("calculated_at", timestamps)))
        assert (error.row, error.column) == (2, "calculated_at")
        assert str(error).startswith("Row 2: kpi_summary.calculated_at takes a datetime with a time zone")


class Subtractable:
    """psycopg's own dumper subtracts an epoch from it and reads the result as a timedelta."""

    def __sub__(self, _: object) -> Subtractable:
        return self


def test_object_that_is_not_a_datetime_is_rejected(session: Session) -> None:
    error = assert_rejected(session, KpiSummary, [{**kpi(1), "calculated_at": Subtractable()}])
    assert (error.row, error.column) == (1, "calculated_at")


def test_arrow_timestamp_in_unknown_time_zone_is_rejected(session: Session) -> None:
    timestamps = pa.array([5, 5], pa.timestamp("us", "Mars/Olympus"))
    error = assert_rejected(session, KpiSummary, pa.table(batch_of("calculated_at", timestamps)))
    assert (error.row, error.column) == (1, "calculated_at")


def test_invalid_value_late_in_a_batch_is_reported_with_its_row(session: Session) -> None:
    embeddings = np.ones((3000, EMBEDDING_DIMENSIONS), np.float32)
    embeddings[2999, 7] = np.nan
    batch = {"client_id": np.arange(3000), "text_field": ["x"] * 3000, "embedding": embeddings}
    error = assert_rejected(session, TextSummary, batch)
    assert (error.row, error.column) == (3000, "embedding")
    lists = pa.array([*[embedding(1)] * 600, embedding(1)[1:]], pa.list_(pa.float32()))
    error = assert_rejected(session, TextSummary, pa.table([pa.array([1] * 601), ["x"] * 601, lists], list(batch)))
    assert (error.row, error.column) == (601, "embedding")
    timestamps = np.array(["2026-03-01", "NaT"], "M8[s]")
    error = assert_rejected(session, KpiSummary, {**{k: [v, v] for k, v in kpi(1).items()}, "period_end": timestamps})
    assert (error.row, error.column) == (2, "period_end")
    naive = pa.table({**{k: [v] for k, v in kpi(1).items()}, "period_end": pa.array([0], pa.timestamp("us"))})
    assert assert_rejected(session, KpiSummary, naive).column == "period_end"
