"""A row that cannot be stored: the error names it, shows nothing of it, and leaves nothing half done."""

from __future__ import annotations

import logging
import traceback
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from bulk.examples import FULL, PERIOD, SECRET, START, embedding, kpi, session_on, stored
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from syntegra_db.bulk import BulkError, RowRefused, copy_rows, upsert_rows
from syntegra_db.bulk.refusals import place
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
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from servers import Database

GOOD: dict[type[Base], dict[str, Any]] = {model: {**row, "id": 1} for model, row in FULL.items()}
# What a column is, and a value that it does not take. The third says whether psycopg's side finds it.
BAD_VALUES: list[tuple[type[Base], str, Any, str, bool]] = [
    (KpiSummary, "client_id", "7", "an int from -9223372036854775808 to 9223372036854775807", True),
    (KpiSummary, "client_id", 7.0, "an int", True),
    (KpiSummary, "client_id", 2**63, "an int", True),
    (Cluster, "cluster_id", 2**31, "an int from -2147483648 to 2147483647", True),
    (Cluster, "cluster_id", -(2**31) - 1, "an int", True),
    (TrendSignal, "frequency", 2**40, "an int", True),
    (KpiSummary, "kpi_value", "12.5", "a finite number", True),
    (KpiSummary, "kpi_value", True, "a finite number", True),
    (KpiSummary, "kpi_value", 1j, "a finite number", True),
    (TextSummary, "sentiment_score", "0.5", "a float", True),
    (TextSummary, "text_field", 5, "a str", True),
    (TextSummary, "text_field", b"x", "a str", True),
    (TextSummary, "text_field", "\ud800", "a str", True),
    (TextSummary, "text_field", f"{SECRET}\0", "a str without NUL", False),
    (TextSummary, "sentiment", f"{SECRET}\0", "a str of at most 50 characters, none of them NUL", False),
    (TextSummary, "language", SECRET, "a str of at most 10 characters", False),
    (KpiSummary, "period_start", datetime(2026, 1, 1), "a datetime with a time zone", True),  # noqa: DTZ001  on purpose
    (KpiSummary, "period_start", date(2026, 1, 1), "a datetime with a time zone", True),
    (KpiSummary, "period_start", "2026-01-01T00:00:00Z", "a datetime with a time zone", True),
    (DataSource, "config_json", {"token": {SECRET}}, "a JSON value", True),
    (DataSource, "config_json", {SECRET: float("nan")}, "a JSON value without NaN, infinities and NUL", True),
    (DataSource, "config_json", {"token": f"{SECRET}\0"}, "a JSON value", False),
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
    (TextSummary, "embedding", np.full(384, np.nan), "384 finite numbers", False),
    (TextSummary, "embedding", np.full(384, np.inf, np.float32), "384 finite numbers", False),
    (TextSummary, "embedding", np.full(384, 1e39), "384 finite numbers", False),
]


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with session_on(database) as session:
        yield session


def refused(session: Session, model: type[Base], rows: Any, **options: Any) -> RowRefused:
    """The error of a load, after a look at everything that it shows and at what it leaves."""
    load = upsert_rows if "key" in options else copy_rows
    with pytest.raises(RowRefused) as info:
        load(session, model, rows, **options)
    error = info.value
    assert error.__cause__ is None
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(error.args) + repr(vars(error))
    shown += repr(error.__context__)
    assert SECRET not in shown
    session.rollback()
    assert stored(session, model) == []
    return error


@pytest.mark.parametrize(("model", "column", "value", "rule", "found_here"), BAD_VALUES)
def test_a_value_that_its_column_does_not_take(  # noqa: PLR0913, PLR0917  a case
    session: Session,
    model: type[Base],
    column: str,
    value: Any,
    rule: str,
    found_here: bool,  # noqa: FBT001
) -> None:
    rows = [{**GOOD[model], "id": 1}, {**GOOD[model], "id": 2}, {**GOOD[model], "id": 3, column: value}]
    error = refused(session, model, iter(rows))
    assert (error.row, error.column) == (3, column)
    assert str(error).startswith(f"Row 3: {model.__tablename__}.{column} takes {rule}")
    assert (error.sqlstate is None) is found_here


@pytest.mark.parametrize(
    ("model", "column", "value", "constraint"),
    [
        (KpiSummary, "kpi_value", Decimal("NaN"), "ck_kpi_summary_kpi_value_finite"),
        (KpiSummary, "kpi_value", float("inf"), "ck_kpi_summary_kpi_value_finite"),
        (AnomalyLog, "expected_value", float("-inf"), "ck_anomaly_log_expected_value_finite"),
        (KpiSummary, "period_end", START.replace(year=2025), "ck_kpi_summary_period_order"),
        (TrendSignal, "frequency", -1, "ck_trend_signals_frequency_not_negative"),
        (Cluster, "silhouette_score", float("nan"), "ck_clusters_silhouette_range"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"key": ["id"]}])
def test_a_check_that_refuses_a_row(  # noqa: PLR0913, PLR0917  a case
    session: Session, model: type[Base], column: str, value: Any, constraint: str, options: Any
) -> None:
    rows = [GOOD[model], {**GOOD[model], "id": 2, column: value}]
    error = refused(session, model, rows, **options)
    assert (error.row, error.constraint, error.sqlstate) == (2, constraint, "23514")
    assert f"Row 2: the CHECK {constraint}" in str(error)


@pytest.mark.parametrize("options", [{}, {"key": ["id"]}])
def test_a_null_where_none_may_be(session: Session, options: Any) -> None:
    secret = {**GOOD[DataSource], "id": 2, "name": None}
    error = refused(session, DataSource, [GOOD[DataSource], secret], **options)
    assert (error.row, error.column) == (2, "name")
    assert "Row 2: data_sources.name takes no NULL" in str(error)


def test_what_a_trigger_says_of_a_row_is_not_repeated(session: Session) -> None:
    session.execute(
        text("""
            CREATE FUNCTION quote_row() RETURNS trigger LANGUAGE plpgsql
                AS $$ BEGIN RAISE EXCEPTION 'bad %', NEW.config_json; END $$;
            CREATE TRIGGER quote_row BEFORE INSERT ON data_sources FOR EACH ROW EXECUTE FUNCTION quote_row()
        """)
    )
    session.commit()
    error = refused(session, DataSource, [{**GOOD[DataSource], "config_json": {"token": SECRET}}])
    assert error.row == 1
    assert "a trigger or function of data_sources refused it (SQLSTATE P0001)" in str(error)


def test_a_masked_embedding_has_no_numbers(session: Session) -> None:
    vector = np.ma.masked_equal(np.arange(384, dtype=np.float32), 3)
    error = refused(session, TextSummary, [{**GOOD[TextSummary], "embedding": vector}])
    assert (error.row, error.column) == (1, "embedding")


def test_a_column_without_default_that_all_rows_lack(session: Session) -> None:
    error = refused(session, DataSource, [{"client_id": 1, "name": "x", "config_json": {"token": SECRET}}])
    assert (error.row, error.column) == (1, "type")
    rows = [{"client_id": 1, "kpi_value": 1, **PERIOD}]
    error = refused(session, KpiSummary, rows, key=["client_id"])
    assert (error.row, error.column) == (None, "kpi_name")
    assert "A row of the input: kpi_summary.kpi_name takes no NULL" in str(error)


def test_a_key_that_is_there(session: Session) -> None:
    error = refused(session, DataSource, [{**GOOD[DataSource], "id": n} for n in (1, 2, 2, 3)])
    assert (error.row, error.constraint, error.sqlstate) == (3, "pk_data_sources", "23505")


@pytest.mark.parametrize("options", [{}, {"key": ["client_id"]}])
def test_a_data_source_that_is_not_there(session: Session, options: Any) -> None:
    error = refused(session, KpiSummary, [kpi(1, source_id=None), kpi(2, source_id=99)], **options)
    assert (error.row, error.column, error.constraint) == (None, None, "fk_kpi_summary_source")
    assert str(error).startswith("A row of the input: what it refers to is not there (fk_kpi_summary_source")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({k: v for k, v in kpi(1, metadata_=None).items() if k != "kpi_name"}, "lacks kpi_name"),
        (kpi(1, metadata_=None, calculated_at=START), "adds calculated_at"),
        ({**kpi(1), SECRET: 1}, "lacks metadata_ and adds a key that is no column"),
        ({**kpi(1), "metadata": None}, "lacks metadata_ and adds metadata"),
        ((1, 2), "is of type tuple"),
        (None, "is of type NoneType"),
        (SECRET, "is of type str"),
    ],
)
def test_a_row_that_has_not_the_columns_of_the_first(session: Session, row: Any, words: str) -> None:
    error = refused(session, KpiSummary, [kpi(1, metadata_=None), kpi(2, metadata_=None), row])
    assert error.row == 3
    assert str(error).startswith("Row 3 ")
    assert words in str(error)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((1,), "has 1 values for 5 columns"),
        (kpi(1), "is of type dict"),
        ("abcde", "is of type str"),
        ({1, 2, 3, 4, 5}, "is of type set"),
    ],
)
def test_a_tuple_that_is_not_like_the_first(session: Session, row: Any, words: str) -> None:
    error = refused(session, KpiSummary, [tuple(kpi(1).values()), row], columns=list(kpi(1)))
    assert error.row == 2
    assert words in str(error)


def test_a_batch_that_is_not_like_the_first(session: Session) -> None:
    first = pa.RecordBatch.from_pylist([kpi(1), kpi(2)])
    error = refused(session, KpiSummary, [first, pa.RecordBatch.from_pylist([{"client_id": 1}])])
    assert "Row 3 begins a batch that has other columns" in str(error)
    error = refused(session, KpiSummary, [first, kpi(3)])
    assert "Row 3 is of type dict, and the first came in a batch" in str(error)


def test_a_value_deep_in_a_batch(session: Session) -> None:
    embeddings = np.ones((3000, EMBEDDING_DIMENSIONS), np.float32)
    embeddings[2999, 7] = np.nan
    batch = {"client_id": np.arange(3000), "text_field": ["x"] * 3000, "embedding": embeddings}
    error = refused(session, TextSummary, batch)
    assert (error.row, error.column) == (3000, "embedding")
    lists = pa.array([*[embedding(1)] * 600, embedding(1)[1:]], pa.list_(pa.float32()))
    error = refused(session, TextSummary, pa.table([pa.array([1] * 601), ["x"] * 601, lists], list(batch)))
    assert (error.row, error.column) == (601, "embedding")
    moments = np.array(["2026-03-01", "NaT"], "M8[s]")
    error = refused(session, KpiSummary, {**{k: [v, v] for k, v in kpi(1).items()}, "period_end": moments})
    assert (error.row, error.column) == (2, "period_end")
    naive = pa.table({**{k: [v] for k, v in kpi(1).items()}, "period_end": pa.array([0], pa.timestamp("us"))})
    assert refused(session, KpiSummary, naive).column == "period_end"


def test_the_first_error_wins_and_no_log_shows_a_row(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """By the time that row 5000 cannot be sent, the server has refused row 1."""
    row = {**FULL[DataSource], "last_run_at": None}
    rows = [{**row, "name": None}, *[row] * 4998, {**row, "client_id": SECRET}]
    with caplog.at_level(logging.DEBUG):
        error = refused(session, DataSource, rows)
    assert (error.row, error.column) == (1, "name")
    assert SECRET not in caplog.text


@pytest.mark.parametrize("failure", [LookupError(SECRET), psycopg.errors.UniqueViolation(SECRET)])
def test_an_error_of_the_rows_own_stays_what_it_is(session: Session, failure: Exception) -> None:

    def rows() -> Iterator[dict[str, Any]]:
        yield kpi(1)
        raise failure

    with pytest.raises(type(failure)) as info:
        copy_rows(session, KpiSummary, rows())
    assert info.value is failure
    assert info.value.__context__ is None
    session.rollback()
    assert stored(session, KpiSummary) == []


@pytest.mark.embedded
def test_the_servers_log_shows_nothing_of_an_error_on_this_side(session: Session, database: Database) -> None:
    """psycopg ends a COPY with the words of the exception, which the server logs."""
    unique = "a password that no other test logs"

    def rows() -> Iterator[dict[str, Any]]:
        yield kpi(1)
        raise LookupError(unique)

    with pytest.raises(LookupError):
        copy_rows(session, KpiSummary, rows())
    ((log,),) = database.query("SELECT pg_read_file('log', true)")
    assert "_Abandoned" in log
    assert unique not in log


def test_an_error_of_the_report_stays_what_it_is(session: Session) -> None:
    def report(rows: int) -> None:
        raise LookupError(rows)

    with pytest.raises(LookupError, match="1000"):
        copy_rows(session, KpiSummary, (kpi(n) for n in range(1001)), on_progress=report)
    session.rollback()
    assert stored(session, KpiSummary) == []


def test_the_transaction_has_to_be_rolled_back(session: Session) -> None:
    copy_rows(session, KpiSummary, [kpi(1)])
    with pytest.raises(RowRefused):
        copy_rows(session, KpiSummary, [kpi(2), kpi(None)])  # type: ignore[arg-type]
    with pytest.raises(DBAPIError, match="aborted"):
        session.execute(text("SELECT 1"))
    session.rollback()
    assert stored(session, KpiSummary) == []


def test_a_savepoint_keeps_what_was_before(session: Session) -> None:
    copy_rows(session, KpiSummary, [kpi(1)])
    with pytest.raises(RowRefused), session.begin_nested():
        copy_rows(session, KpiSummary, [kpi(2), kpi(3, "x")])
    with session.begin_nested():
        copy_rows(session, KpiSummary, [kpi(4)])
    session.commit()
    assert [row["client_id"] for row in stored(session, KpiSummary)] == [1, 4]


def test_a_connection_that_dies_on_the_way(session: Session, database: Database) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for n in range(50_000):
            if n == 10:
                database.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            yield kpi(n)

    with pytest.raises(BulkError) as info:
        copy_rows(session, KpiSummary, rows())
    assert not isinstance(info.value, RowRefused)
    session.rollback()
    copy_rows(session, KpiSummary, [kpi(1)])
    assert len(stored(session, KpiSummary)) == 1


def test_what_the_server_does_not_allow_is_told_in_its_words(session: Session) -> None:
    session.execute(text("SET TRANSACTION READ ONLY"))
    with pytest.raises(BulkError, match="cannot execute COPY FROM in a read-only transaction") as info:
        copy_rows(session, KpiSummary, [kpi(1)])
    assert info.value.sqlstate == "25006"


@pytest.mark.parametrize(
    "context",
    [
        "COPY text_summary, line 12, column language",
        "COPY text_summary, línea 12, columna language",
        "COPY text_summary, Zeile 12, Spalte language",
        "COPY text_summary, ligne 12, colonne language",
        "COPY text_summary, строка 12, столбец language",
        "COPY text_summary, 第 12 行, 列 language",
        "text_summaryのCOPY、行 12、列 language",
        "text_summary 복사, 12번째 줄, language 열",
        "JSON data, line 1: COPY text_summary, line 3, column sentiment\nCOPY text_summary, line 12, column language",
    ],
)
def test_the_place_is_found_in_every_language(context: str) -> None:
    assert place(context, "text_summary", ["client_id", "sentiment", "language"]) == (12, "language")


@pytest.mark.parametrize(
    "context",
    [
        "",
        "COPY text_summary_of_others, line 12, column language",
        'PL/pgSQL function check_text() line 5 at RAISE\nSQL statement "COPY text_summary, line 3"',
    ],
)
def test_no_place_is_made_up(context: str) -> None:
    assert place(context, "text_summary", ["language"]) == (None, None)
