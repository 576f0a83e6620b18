"""Loads that fail: which error is raised, and what is left."""

from __future__ import annotations

import gc
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from support.bulk_assertions import assert_rejected
from support.bulk_rows import FULL, SECRET, kpi, stored
from syntegra_db.bulk import BulkLoadError, RowRejected, copy_rows
from syntegra_db.models import DataSource, KpiSummary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from support.servers import Database


def test_first_error_is_raised_and_no_log_shows_a_row(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """Row 5000 cannot be sent, but the server has already rejected row 1."""
    row = {**FULL[DataSource], "last_run_at": None}
    rows = [{**row, "name": None}, *[row] * 4998, {**row, "client_id": SECRET}]
    with caplog.at_level(logging.DEBUG):
        error = assert_rejected(session, DataSource, rows)
    assert (error.row, error.column) == (1, "name")
    assert SECRET not in caplog.text


@pytest.mark.parametrize("failure", [LookupError(SECRET), psycopg.errors.UniqueViolation(SECRET)])
def test_error_of_the_rows_is_raised_unchanged(session: Session, failure: Exception) -> None:

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
def test_server_log_does_not_show_the_clients_error(session: Session, database: Database) -> None:
    """psycopg would abort the COPY with the text of the exception, which the server logs."""
    unique = "a password that no other test logs"

    def rows() -> Iterator[dict[str, Any]]:
        yield kpi(1)
        raise LookupError(unique)

    with pytest.raises(LookupError):
        copy_rows(session, KpiSummary, rows())
    ((log,),) = database.query("SELECT pg_read_file('log', true)")
    assert "_CopyAborted" in log
    assert unique not in log


def test_error_of_on_progress_is_raised_unchanged(session: Session) -> None:
    def report(rows: int) -> None:
        raise LookupError(rows)

    with pytest.raises(LookupError, match="1000"):
        copy_rows(session, KpiSummary, (kpi(n) for n in range(1001)), on_progress=report)
    session.rollback()
    assert stored(session, KpiSummary) == []


def test_error_of_the_last_report_is_raised_unchanged(session: Session) -> None:
    failure = psycopg.errors.UniqueViolation("of the report")

    def report(_: int) -> None:
        raise failure

    with pytest.raises(psycopg.errors.UniqueViolation) as info:
        copy_rows(session, KpiSummary, [kpi(1)], on_progress=report)
    assert info.value is failure


def stop(_: int) -> None:
    raise LookupError


@pytest.mark.parametrize(
    ("bad", "report"),
    [
        (kpi(1, "x"), None),
        (kpi(1, float("nan")), None),
        ((1, 2), None),
        (kpi(None), None),  # type: ignore[arg-type]
        (kpi(1), stop),
    ],
)
def test_rows_are_closed_when_the_error_is_handled(session: Session, bad: Any, report: Any) -> None:
    closed = []

    def rows() -> Iterator[Any]:
        try:
            yield bad if isinstance(bad, dict) else kpi(1)
            yield from (kpi(n) for n in range(5000))
            yield bad if isinstance(bad, tuple) else kpi(1, "x")
            yield kpi(1)
        finally:
            closed.append(True)

    gc.collect()
    gc.disable()
    try:
        with suppress(RowRejected, LookupError):
            copy_rows(session, KpiSummary, rows(), on_progress=report)
        assert closed == [True]
    finally:
        gc.enable()


def test_failed_load_aborts_the_transaction(session: Session) -> None:
    copy_rows(session, KpiSummary, [kpi(1)])
    with pytest.raises(RowRejected):
        copy_rows(session, KpiSummary, [kpi(2), kpi(None)])  # type: ignore[arg-type]
    with pytest.raises(DBAPIError, match="aborted"):
        session.execute(text("SELECT 1"))
    session.rollback()
    assert stored(session, KpiSummary) == []


def test_savepoint_keeps_earlier_changes(session: Session) -> None:
    copy_rows(session, KpiSummary, [kpi(1)])
    with pytest.raises(RowRejected), session.begin_nested():
        copy_rows(session, KpiSummary, [kpi(2), kpi(3, "x")])
    with session.begin_nested():
        copy_rows(session, KpiSummary, [kpi(4)])
    session.commit()
    assert [row["client_id"] for row in stored(session, KpiSummary)] == [1, 4]


def test_lost_connection_is_reported_and_replaced(session: Session, database: Database) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for n in range(50_000):
            if n == 10:
                database.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            yield kpi(n)

    with pytest.raises(BulkLoadError) as info:
        copy_rows(session, KpiSummary, rows())
    assert not isinstance(info.value, RowRejected)
    session.rollback()
    copy_rows(session, KpiSummary, [kpi(1)])
    assert len(stored(session, KpiSummary)) == 1


def test_error_that_concerns_no_row_has_the_servers_message(session: Session) -> None:
    session.execute(text("SET TRANSACTION READ ONLY"))
    with pytest.raises(BulkLoadError, match="cannot execute COPY FROM in a read-only transaction") as info:
        copy_rows(session, KpiSummary, [kpi(1)])
    assert info.value.sqlstate == "25006"
