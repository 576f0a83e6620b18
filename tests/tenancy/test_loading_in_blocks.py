"""Loads under row-level security in several blocks: each is written while the next one is formatted."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession

from support.bulk_rows import SECRET, START, kpi, stored
from support.logins import set_client
from syntegra_db.bulk import BulkLoadError, BulkLockTimeout, RowRejected, async_copy_rows, copy_rows
from syntegra_db.bulk._blocks import Blocks
from syntegra_db.bulk._job import LoadJob
from syntegra_db.database import create_async_engine
from syntegra_db.models import KpiSummary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sqlalchemy.orm import Session

    from support.logins import Logins
    from support.servers import Database

pytestmark = pytest.mark.timeout(300)

COUNT = 1500
UNIQUE = "CREATE UNIQUE INDEX names ON kpi_summary (client_id, kpi_name)"
OTHERS_ROW = (
    "INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end)"
    " VALUES (7, %s, 1, '2026-01-01', '2026-02-01')"
)


def name(number: int) -> str:
    return f"{number:0250}"


def wide_rows(changes: dict[int, dict[str, Any]] | None = None) -> Iterator[dict[str, Any]]:
    """Yield rows that fill several blocks; `changes` are the values of some rows by number."""
    for number in range(1, COUNT + 1):
        yield kpi(7, number, source_id=None, kpi_name=name(number)) | (changes or {}).get(number, {})


def last_rows(session: Session) -> list[int]:
    """Return the number of the last row of each block."""
    job = LoadJob(KpiSummary, None, None, None)
    driver: Any = session.connection().connection.driver_connection
    job.begin(next(wide_rows()), session.connection()).close()
    ends: list[int] = []
    with driver.cursor() as cursor:
        job.register_dumpers(cursor)
        blocks: Any = Blocks(job, cursor, job.counted_rows(wide_rows()))
        while not ends or blocks.more:
            blocks.fill()
            ends.append(blocks.take().rows + sum(ends[-1:]))
    assert len(ends) > 3
    assert ends[-1] == COUNT
    return ends


@contextmanager
def row_of_another_transaction(database: Database, number: int) -> Iterator[None]:
    """Let the row with the unique name of row `number` wait for a lock inside the block."""
    database.execute(UNIQUE)
    with database.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute(OTHERS_ROW, [name(number)])
        yield


def test_rows_of_several_blocks_are_stored_in_order(service: Session) -> None:
    assert copy_rows(service, KpiSummary, wide_rows()) == COUNT
    assert service.scalar(text("SELECT count(*) FROM pg_class WHERE pg_my_temp_schema() = relnamespace")) == 0
    assert [row["kpi_value"] for row in stored(service, KpiSummary)] == list(range(1, COUNT + 1))


def test_without_pipelines_the_rows_are_stored_too(service: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A libpq before 14 has none."""
    monkeypatch.setattr(psycopg.Pipeline, "is_supported", lambda: False)
    assert copy_rows(service, KpiSummary, wide_rows()) == COUNT


def test_load_of_complete_blocks_ends_without_an_empty_one(service: Session) -> None:
    rows = list(wide_rows())[: last_rows(service)[1]]
    assert copy_rows(service, KpiSummary, rows) == len(rows)
    assert len(stored(service, KpiSummary)) == len(rows)


KINDS: dict[str, tuple[dict[str, Any], str | None, str | None]] = {
    "policy": ({"client_id": 8}, "42501", None),
    "CHECK": ({"period_end": START.replace(year=2025)}, "23514", None),
    "NOT NULL": ({"kpi_name": None}, "23502", "kpi_name"),
    "foreign key": ({"source_id": 99}, "23503", None),
    "unique key": ({"kpi_name": "taken"}, "23505", None),
    "data": ({"kpi_name": f"{SECRET}\0"}, "22021", "kpi_name"),
    "value": ({"kpi_value": SECRET}, None, "kpi_value"),
    "other columns": ({"metadata_": SECRET}, None, None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_error_in_any_block_names_its_row(
    service: Session, separated: Database, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    values, sqlstate, column = KINDS[kind]
    separated.execute(UNIQUE)
    separated.execute(OTHERS_ROW.replace("%s", "'taken'"))
    first, second, *_ = last_rows(service)
    for number in (1, first, first + 1, (first + second) // 2, second, COUNT):
        service.rollback()
        set_client(service, 7)
        if kind == "other columns" and number == 1:
            continue
        with caplog.at_level(logging.DEBUG), pytest.raises(RowRejected) as info:
            copy_rows(service, KpiSummary, wide_rows({number: values}))
        assert (info.value.row, info.value.sqlstate, info.value.column) == (number, sqlstate, column)
        assert SECRET not in str(info.value) + repr(info.value.__context__) + caplog.text
        with pytest.raises(Exception, match="current transaction is aborted"):
            service.execute(text("SELECT 1"))
    assert separated.query("SELECT count(*) FROM kpi_summary") == [(1,)]


def test_key_of_an_earlier_block_is_rejected(service: Session, separated: Database) -> None:
    separated.execute(UNIQUE)
    with pytest.raises(RowRejected) as info:
        copy_rows(service, KpiSummary, wide_rows({1200: {"kpi_name": name(3)}}))
    assert (info.value.row, info.value.sqlstate, info.value.constraint) == (1200, "23505", "names")


def test_error_of_the_server_for_an_earlier_row_has_priority(service: Session) -> None:
    """The row that cannot be dumped is formatted while the server rejects the block before it."""
    first = last_rows(service)[0]
    with pytest.raises(RowRejected) as info:
        copy_rows(service, KpiSummary, wide_rows({5: {"client_id": 8}, first + 2: {"kpi_value": "x"}}))
    assert (info.value.row, info.value.sqlstate) == (5, "42501")


@pytest.mark.parametrize("failure", [LookupError(SECRET), psycopg.errors.UniqueViolation(SECRET), KeyboardInterrupt()])
@pytest.mark.parametrize("changes", [{}, {5: {"client_id": 8}}], ids=["valid", "rejected"])
def test_error_of_the_rows_during_a_statement_is_raised(
    service: Session, separated: Database, failure: BaseException, changes: Any
) -> None:
    first = last_rows(service)[0]

    def rows() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(wide_rows(changes)):
            if number == first + 3:
                raise failure
            yield row

    with pytest.raises(type(failure)) as info:
        copy_rows(service, KpiSummary, rows())
    assert (info.value, info.value.__context__) == (failure, None)
    # An interruption closes the connection.
    with suppress(PendingRollbackError):
        service.commit()
    service.rollback()
    assert separated.query("SELECT count(*) FROM kpi_summary") == [(0,)]
    set_client(service, 7)
    assert copy_rows(service, KpiSummary, wide_rows()) == COUNT


def test_rows_are_closed_when_an_error_of_a_later_block_is_handled(service: Session) -> None:
    closed = []

    def rows() -> Iterator[dict[str, Any]]:
        try:
            yield from wide_rows({1000: {"kpi_value": "x"}})
        finally:
            closed.append(True)

    gc.collect()
    gc.disable()
    try:
        with suppress(RowRejected):
            copy_rows(service, KpiSummary, rows())
        assert closed == [True]
    finally:
        gc.enable()


def test_session_cannot_be_used_while_a_block_is_written(service: Session) -> None:
    first = last_rows(service)[0]

    def rows() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(wide_rows()):
            if number == first + 3:
                service.execute(text("SELECT 1"))
            yield row

    with pytest.raises(BulkLoadError, match="must use another session"):
        copy_rows(service, KpiSummary, rows())
    service.rollback()
    set_client(service, 7)
    assert copy_rows(service, KpiSummary, wide_rows()) == COUNT


def test_interruption_cancels_a_statement_that_waits(service: Session, separated: Database) -> None:
    first = last_rows(service)[0]

    def rows() -> Iterator[dict[str, Any]]:
        yield from itertools.islice(wide_rows(), first + 3)
        raise KeyboardInterrupt

    with row_of_another_transaction(separated, first // 2), pytest.raises(KeyboardInterrupt):
        copy_rows(service, KpiSummary, rows())
    service.rollback()
    set_client(service, 7)
    assert copy_rows(service, KpiSummary, wide_rows()) == COUNT


def test_one_block_is_read_while_a_statement_waits(service: Session, separated: Database) -> None:
    first, second, *_ = last_rows(service)
    rows = wide_rows()
    service.execute(text("SET LOCAL lock_timeout = '300ms'"))
    with row_of_another_transaction(separated, first // 2), pytest.raises(BulkLockTimeout):
        copy_rows(service, KpiSummary, rows)
    service.rollback()
    assert next(rows)["kpi_value"] == second + 1


@pytest.mark.parametrize("moment", ["while rows are read", "while the statement is awaited"])
def test_cancelled_task_leaves_the_connection_usable(
    service: Session, separated: Database, logins: Logins, moment: str
) -> None:
    first, second, *_ = last_rows(service)
    reading = asyncio.Event()

    async def rows() -> AsyncIterator[dict[str, Any]]:
        for number, row in enumerate(wide_rows(), start=1):
            if number == (first + 3 if moment == "while rows are read" else second):
                reading.set()
                if number < second:
                    await asyncio.sleep(60)
            yield row

    async def load(engine: Any, source: Callable[[], Any]) -> int:
        async with AsyncSession(engine) as session:
            await session.run_sync(set_client, 7)
            return await async_copy_rows(session, KpiSummary, source())

    async def work() -> int:
        engine = create_async_engine(
            separated.url_as(logins.create("syntegra_service")), pool_size=1, max_overflow=0, pool_timeout=5
        )
        try:
            with row_of_another_transaction(separated, first // 2):
                task = asyncio.create_task(load(engine, rows))
                await reading.wait()
                await asyncio.sleep(0.1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.wait_for(task, 60)
            return await load(engine, wide_rows)
        finally:
            await engine.dispose()

    assert asyncio.run(work()) == COUNT
    assert separated.query("SELECT count(*) FROM kpi_summary") == [(0,)]


def test_trigger_of_the_table_sees_one_statement(service: Session, separated: Database) -> None:
    separated.execute(
        "CREATE TABLE statements (rows bigint);"
        " CREATE FUNCTION count_added() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
        "  INSERT INTO statements SELECT pg_catalog.count(*) FROM added; RETURN NULL; END $$;"
        " CREATE TRIGGER count_added AFTER INSERT ON kpi_summary REFERENCING NEW TABLE AS added"
        " EXECUTE FUNCTION count_added()"
    )
    copy_rows(service, KpiSummary, wide_rows())
    service.commit()
    assert separated.query("SELECT rows FROM statements") == [(COUNT,)]


def test_rows_may_reference_later_rows_of_the_table(service: Session, separated: Database) -> None:
    separated.execute(
        "ALTER TABLE kpi_summary DROP CONSTRAINT fk_kpi_summary_source, ADD CONSTRAINT numbers UNIQUE (kpi_value),"
        " ADD FOREIGN KEY (source_id) REFERENCES kpi_summary (id);"
        " GRANT INSERT (id) ON kpi_summary TO syntegra_service"
    )
    rows = [{**row, "id": number, "source_id": COUNT} for number, row in enumerate(wide_rows(), start=1)]
    assert copy_rows(service, KpiSummary, rows) == COUNT
