"""Values that the server or psycopg would change: every way of writing a row stores them exactly, or rejects them."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import bindparam, insert, select, text, update
from sqlalchemy.exc import CompileError
from sqlalchemy.orm import Session

from support.bulk_rows import END, FULL, SECRET, START, kpi, stored
from support.values import REJECTED, WRITES, is_same, write_and_read
from syntegra_db.bulk import RowRejected, copy_rows
from syntegra_db.database import create_engine
from syntegra_db.models import (
    AnomalyLog,
    Base,
    Cluster,
    DataSource,
    InvalidValue,
    KpiSummary,
    TextSummary,
    TrendSignal,
    TrendStatus,
)
from syntegra_db.models.exact_types import ExactNumeric
from syntegra_db.settings import DIALECT

if TYPE_CHECKING:
    from support.servers import Database


class Number(IntEnum):
    FIVE = 5


FAR_WEST, FAR_EAST = timezone(timedelta(hours=-12)), timezone(timedelta(hours=12))
EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
CYCLE: dict[str, Any] = {}
CYCLE["itself"] = CYCLE
DEEP: list[Any] = []
for _ in range(600):
    DEEP = [DEEP]
COLUMNS: dict[str, tuple[type[Base], str]] = {
    "bigint": (KpiSummary, "client_id"),
    "integer": (Cluster, "cluster_id"),
    "double": (AnomalyLog, "deviation"),
    "numeric": (KpiSummary, "kpi_value"),
    "varchar": (TextSummary, "language"),
    "text": (TextSummary, "text_field"),
    "timestamp": (DataSource, "last_run_at"),
    "json": (KpiSummary, "metadata_"),
    "enum": (TrendSignal, "status"),
    "vector": (TextSummary, "embedding"),
}
STORED: dict[str, list[Any]] = {
    "bigint": [2**63 - 1, -(2**63), np.int64(-5), np.uint64(2**63 - 1), Number.FIVE],
    "integer": [2**31 - 1, -(2**31), np.int8(-5)],
    "double": [0.1, 5e-324, float("nan"), float("-inf"), 2**53, np.float32(0.1), np.float64(0.1), Decimal("0.5"), 7],
    "numeric": [
        Decimal("1E+400"),
        Decimal("1E-16383"),
        Decimal("9" * 40_000),
        10**400,
        0.1 + 0.2,
        1e-300,
        123456789.12345679,
        np.float32(0.1),
        np.int64(5),
        Fraction(1, 2),
    ],
    "varchar": ["", " " * 10, "ñ€漢😀" * 2, np.str_("es")],
    "text": ["x" + " " * 300, "\\x00 \\u0000 \t\r\n"],
    "timestamp": [
        EARLIEST + timedelta(days=1),
        LATEST - timedelta(days=1),
        datetime(1900, 1, 1, tzinfo=timezone(timedelta(minutes=-14, seconds=-44))),
        pd.Timestamp("2026-03-29T02:30:00.123456", tz="UTC").tz_convert("Europe/Madrid"),
    ],
    "json": [
        {"a": [1e23, -1e308, 1.5e300, 2.0**53], "b": 10**400, "c": -0.0, "d": 5e-324},
        {"C:\\u0000ff": "\\u0000", "": "1e+2", "😀": "\u2028"},
        (1, [2, (3,)]),
        {"x": Number.FIVE, "y": np.float64(0.1), TrendStatus.STABLE: TrendStatus.STABLE},
        1e22,
        "",
        False,
    ],
    "enum": [TrendStatus.EMERGENT, "declining"],
    "vector": [[Decimal("0.1")] * 384, np.full(384, 0.1), np.full(384, 0.1, np.float16)],
}
NO_NUMBERS: list[Any] = [True, np.True_, "1", b"1", 1j, pd.NA, pd.NaT, np.timedelta64(1, "s"), np.array(1), START]
REJECTED_VALUES: dict[str, list[Any]] = {
    "bigint": [*NO_NUMBERS, 2**63, -(2**63) - 1, 10**5000, 7.0, np.float64(7), Decimal(7), float("nan")],
    "integer": [*NO_NUMBERS, 2**31, -(2**31) - 1, 2**40, 7.5],
    "double": [*NO_NUMBERS, 2**53 + 1, 10**400, Decimal("1E+400"), Decimal("0.1"), Fraction(1, 3), np.int64(2**62 + 1)],
    "numeric": [*NO_NUMBERS, Decimal("1E+131072"), Decimal("1E-16384"), Decimal("1E+999999"), Fraction(1, 3)],
    "varchar": ["x" * 11, "x" + " " * 10, " " * 11, "a\0b", "\ud83d", 5, b"es", None.__class__, True],
    "text": ["\0", "a\udc00", 5, 1.5, b"x", bytearray(b"x"), date(2026, 1, 1), {"a": 1}],
    "timestamp": [
        START.replace(tzinfo=None),
        START.date(),
        START.isoformat(),
        0,
        LATEST.replace(tzinfo=FAR_WEST),
        EARLIEST.replace(tzinfo=FAR_EAST),
        LATEST,
        EARLIEST,
        pd.NaT,
        pd.NA,
        pd.Timestamp("2026-01-01"),
        pd.Timestamp("2026-01-01T00:00:00.000000001Z"),
        np.datetime64("2026-01-01", "us"),
    ],
    "json": [
        {1: "a", "1": "b"},
        {"a": [{2: 3}]},
        ({None: 1},),
        {True: 1},
        {0.5: 1},
        {(1, 2): 1},
        {"a": float("nan")},
        [float("inf")],
        {"a": {1, 2}},
        {"a": date(2026, 1, 1)},
        {"a": Decimal(1)},
        {"a": b"x"},
        [np.int64(5)],
        [pd.NaT],
        {"a": 10**5000},
        {"a": "\0"},
        {"\0": 1},
        {"a\\": "\\\0"},
        {"a": "\ud83d"},
        {"\ude00": 1},
        CYCLE,
        DEEP,
    ],
    "enum": ["Declining", "", "low", 1, True, b"stable", ["stable"]],
    "vector": [[0.1] * 383, [float("nan")] * 384, [1e39] * 384, ["1"] * 384, [None] * 384, np.ones(384, bool)],
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_value_that_the_column_can_store_is_read_as_given(session: Session, kind: str) -> None:
    for value in STORED[kind]:
        for way in WRITES:
            result = write_and_read(session, way, *COLUMNS[kind], value)
            assert result is not REJECTED, (way, value)
            assert is_same(result, value), (way, value, result)


@pytest.mark.parametrize("kind", COLUMNS)
def test_value_that_the_column_cannot_store_exactly_is_rejected(session: Session, kind: str) -> None:
    for value in REJECTED_VALUES[kind]:
        for way in WRITES:
            assert write_and_read(session, way, *COLUMNS[kind], value) is REJECTED, (way, type(value))


@pytest.mark.parametrize(
    ("model", "column", "value"),
    [
        (DataSource, "name", f"{SECRET}\0"),
        (DataSource, "status", SECRET + " " * 50),
        (DataSource, "config_json", {"token": SECRET, 1: 2}),
        (DataSource, "config_json", {"token": f"{SECRET}\ud83d"}),
        (DataSource, "last_run_at", SECRET),
        (AnomalyLog, "severity", SECRET),
        (AnomalyLog, "value", SECRET),
    ],
)
def test_rejected_value_is_not_in_the_error(session: Session, model: type[Base], column: str, value: Any) -> None:
    session.add(model(**{**FULL[model], column: value}))
    with pytest.raises(InvalidValue) as info:
        session.flush()
    name = model.__mapper__.column_attrs[column].columns[0].name
    assert str(info.value).startswith(f"{model.__tablename__}.{name} takes ")
    assert f"not this value of type {type(value).__name__}." in str(info.value)
    assert SECRET not in repr(info.value) + repr(info.value.__cause__) + repr(info.value.__context__)


def test_missing_time_of_pandas_is_rejected_in_every_form_of_rows(session: Session) -> None:
    frame = pd.DataFrame(
        {
            **{name: [value, value] for name, value in kpi(1).items()},
            "calculated_at": pd.to_datetime(["2024-05-01T10:00:00Z", None]),
        }
    )
    frame["kpi_value"] = frame["kpi_value"].astype(object)
    forms: list[Any] = [
        frame.to_dict("records"),
        list(frame.itertuples(index=False)),
        [KpiSummary(**row) for row in frame.to_dict("records")],
        frame.to_records(index=False),
    ]
    for rows in forms:
        with pytest.raises(RowRejected, match=r"kpi_summary\.\w+ takes"):
            copy_rows(session, KpiSummary, rows)
        session.rollback()
    with pytest.raises(RowRejected) as info:
        copy_rows(session, KpiSummary, forms[0])
    assert (info.value.row, info.value.column) == (2, "calculated_at")
    session.rollback()
    assert stored(session, KpiSummary) == []


def test_conditions_keep_the_conversions_of_the_server(session: Session) -> None:
    copy_rows(session, KpiSummary, [kpi(7, Decimal("12.5"), metadata_={"unit": "EUR", "n": [1]})])
    copy_rows(session, AnomalyLog, [FULL[AnomalyLog]])
    conditions = [
        KpiSummary.client_id == Decimal(7),
        KpiSummary.client_id < 7.5,
        KpiSummary.client_id.in_([7.0, 8.5]),
        KpiSummary.kpi_value > 12.4,
        KpiSummary.kpi_value * 2 == 25,
        KpiSummary.kpi_name.startswith("avg"),
        KpiSummary.kpi_name + "x" == "avg_ticketx",
        KpiSummary.kpi_name != "x" * 300,
        KpiSummary.period_start > datetime(2025, 1, 1),  # noqa: DTZ001  the case under test
        KpiSummary.period_start > date(2025, 1, 1),
        KpiSummary.period_start < datetime.max,  # noqa: DTZ901  the case under test
        KpiSummary.period_start - timedelta(days=1) < START,
        KpiSummary.period_end - KpiSummary.period_start > timedelta(days=1),
        KpiSummary.metadata_["unit"].astext == "EUR",
        KpiSummary.metadata_[("n", 0)].as_integer() == 1,
        KpiSummary.metadata_.contains({"unit": "EUR"}),
        KpiSummary.metadata_.has_key("n"),
    ]
    for condition in conditions:
        assert session.scalars(select(KpiSummary.client_id).where(condition)).all() == [7], condition
    anomalies = select(AnomalyLog.id).where(AnomalyLog.severity == "critical", AnomalyLog.severity > bindparam("least"))
    assert len(session.execute(anomalies, {"least": "low"}).all()) == 1
    assert session.get(AnomalyLog, np.int64(session.scalars(anomalies, {"least": "low"}).one())) is not None


def test_expression_in_a_statement_is_not_a_value(session: Session) -> None:
    copy_rows(session, KpiSummary, [kpi(7, 2)])
    session.execute(update(KpiSummary).values(kpi_value=KpiSummary.kpi_value * 1.5, period_end=text("now()")))
    assert session.scalars(select(KpiSummary.kpi_value)).one() == 3


def test_serializer_of_the_engine_gets_values_of_its_types(database: Database) -> None:
    engine = create_engine(database.url, json_serializer=partial(json.dumps, default=str))
    with Session(engine) as session:
        for way in WRITES:
            result = write_and_read(session, way, KpiSummary, "metadata_", {"day": date(2026, 1, 1), "n": 1e23})
            assert result == {"day": "2026-01-01", "n": 1e23}, way
            for value in ({"day": date(2026, 1, 1), 1: 2}, {"day": date(2026, 1, 1), "n": float("nan")}):
                assert write_and_read(session, way, KpiSummary, "metadata_", value) is REJECTED, way
    engine.dispose()


def test_core_row_with_the_name_of_an_attribute_is_rejected(session: Session) -> None:
    table: Any = KpiSummary.__table__
    connection = session.connection()
    for rows in ({**kpi(1), "metadata_": {}}, [{**kpi(1), "metadata_": {}}] * 2, {**kpi(1), "kpi_title": "x"}):
        with pytest.raises(CompileError, match=r"Unconsumed column names: (metadata_|kpi_title)"):
            connection.execute(insert(table), rows)
    changed = update(table).where(table.c.client_id == bindparam("client"))
    with pytest.raises(CompileError, match="metadata_"):
        connection.execute(changed, [{"client": 1, "metadata_": {}}])
    connection.execute(insert(table).values(kpi_name=bindparam("name")), [{**kpi(1), "name": "x"}])
    connection.execute(changed, [{"client": 1, "metadata": {"unit": "EUR"}}])
    assert stored(session, KpiSummary)[0]["metadata_"] == {"unit": "EUR"}


def test_bulk_save_keeps_the_source_of_a_row(session: Session) -> None:
    source = DataSource(client_id=7, name="till", type="simple_csv")
    session.add(source)
    session.commit()
    row = {name: value for name, value in kpi(7).items() if name != "client_id"}
    session.bulk_save_objects([KpiSummary(client_id=7, source=source, **row)])
    assert [found["source_id"] for found in stored(session, KpiSummary)] == [source.id]


def test_source_removed_from_a_new_row_is_not_stored(session: Session) -> None:
    source = DataSource(client_id=7, name="till", type="simple_csv")
    session.add(source)
    session.flush()
    row = KpiSummary(source=source, period_start=START, period_end=END, kpi_name="k", kpi_value=Decimal(1))
    assert (row.client_id, row.source_id) == (7, source.id)
    row.source = None
    session.add(row)
    session.flush()
    assert stored(session, KpiSummary)[0]["source_id"] is None


@pytest.mark.parametrize("number", ["1E-16384", "-5e-20000", "1E+131072", f"1.{16383 * '0'}1"])
def test_number_with_too_many_digits_is_rejected_with_the_limits(number: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        ExactNumeric().process_bind_param(Decimal(number), DIALECT)
    assert "at most 131072 digits before and 16383 after the decimal point" in str(raised.value)
