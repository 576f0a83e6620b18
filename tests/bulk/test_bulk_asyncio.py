"""The asyncio versions: the same rows, the same errors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy

from support.bulk_rows import FULL, embedding, kpi, stored
from syntegra_db.bulk import BulkLoadError, RowRejected, async_copy_rows, async_upsert_rows, copy_rows
from syntegra_db.models import DataSource, KpiSummary, TextSummary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from support.servers import Database

KEY = ("client_id", "kpi_name")


async def asynchronous(rows: int) -> AsyncIterator[dict[str, Any]]:
    for n in range(rows):
        await asyncio.sleep(0)
        yield kpi(n)


def test_rows_of_both_kinds_of_iterable_are_loaded(run: Any, session: Session) -> None:
    reports: list[int] = []

    async def work(session: AsyncSession) -> list[int]:
        session.add(DataSource(id=1, client_id=3, name="till", type="simple_csv"))
        counts = [
            await async_copy_rows(session, TextSummary, [FULL[TextSummary]]),
            await async_copy_rows(session, KpiSummary, asynchronous(2001), on_progress=reports.append),
            await async_copy_rows(session, KpiSummary, {name: [value] for name, value in kpi(5000).items()}),
            await async_copy_rows(session, KpiSummary, (kpi(3, source_id=1) for _ in range(3))),
            await async_copy_rows(session, KpiSummary, asynchronous(0)),
        ]
        await session.commit()
        return counts

    assert run(work) == [1, 2001, 1, 3, 0]
    assert reports == [1000, 2000, 2001]
    assert stored(session, TextSummary)[0]["embedding"] == embedding(1).tolist()
    assert len(stored(session, KpiSummary)) == 2005


@pytest.mark.parametrize("statement", ["SELECT 1", "CREATE UNIQUE INDEX u ON kpi_summary (client_id, kpi_name)"])
def test_upsert_inserts_and_updates(run: Any, session: Session, statement: str) -> None:
    async def work(session: AsyncSession) -> int:
        await session.execute(sqlalchemy.text(statement))
        await async_copy_rows(session, KpiSummary, asynchronous(3))
        count = await async_upsert_rows(session, KpiSummary, [kpi(2, 20), kpi(3, 30)], key=KEY)
        await session.commit()
        return count

    assert run(work) == 2
    assert [int(row["kpi_value"]) for row in stored(session, KpiSummary)] == [1, 1, 20, 30]


def test_translated_schema_gets_the_rows(run: Any, session: Session, database: Database) -> None:
    database.execute("CREATE SCHEMA tenant; CREATE TABLE tenant.kpi_summary (LIKE kpi_summary INCLUDING ALL)")

    async def work(session: AsyncSession) -> None:
        await session.connection(execution_options={"schema_translate_map": {None: "tenant"}})
        await async_copy_rows(session, KpiSummary, asynchronous(2))
        await session.commit()

    run(work)
    assert session.scalar(sqlalchemy.text("SELECT count(*) FROM tenant.kpi_summary")) == 2


def test_rejected_row_is_reported(run: Any, session: Session) -> None:
    async def work(session: AsyncSession) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        for rows in ([kpi(1), kpi(2, "x")], [kpi(1), kpi(2, metadata=1)], [kpi(1), kpi(2, float("nan"))]):
            with pytest.raises(RowRejected) as info:
                await async_copy_rows(session, KpiSummary, rows)
            assert info.value.__cause__ is None
            found.append((info.value.row, info.value.column, info.value.constraint))
            await session.rollback()
        with pytest.raises(RowRejected, match="same key"):
            await async_upsert_rows(session, KpiSummary, [kpi(1), kpi(1)], key=KEY)
        await session.rollback()
        await async_copy_rows(session, KpiSummary, [kpi(7)])
        await session.commit()
        return found

    assert run(work) == [(2, "kpi_value", None), (2, None, None), (2, None, "ck_kpi_summary_kpi_value_finite")]
    assert [row["client_id"] for row in stored(session, KpiSummary)] == [7]


def test_error_of_the_rows_is_raised_unchanged(run: Any, session: Session) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        yield kpi(1)
        await asyncio.sleep(0)
        raise psycopg.DataError("of the rows")

    async def work(session: AsyncSession) -> None:
        with pytest.raises(psycopg.DataError, match="of the rows"):
            await async_copy_rows(session, KpiSummary, rows())
        await session.rollback()

    run(work)
    assert stored(session, KpiSummary) == []


def test_cancelled_load_can_be_rolled_back(run: Any, session: Session) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        yield kpi(1)
        await asyncio.sleep(60)

    async def work(session: AsyncSession) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(async_copy_rows(session, KpiSummary, rows()), 0.2)
        await session.rollback()
        await async_copy_rows(session, KpiSummary, [kpi(2)])
        await session.commit()

    run(work)
    assert [row["client_id"] for row in stored(session, KpiSummary)] == [2]


def test_lost_connection_is_reported_and_replaced(run: Any, session: Session, database: Database) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        for n in range(50_000):
            if n == 10:
                database.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            yield kpi(n)

    async def work(session: AsyncSession) -> None:
        with pytest.raises(BulkLoadError):
            await async_copy_rows(session, KpiSummary, rows())
        await session.rollback()
        await async_copy_rows(session, KpiSummary, [kpi(1)])
        await session.commit()

    run(work)
    assert len(stored(session, KpiSummary)) == 1


@pytest.mark.parametrize("bad", [kpi(1, "x"), kpi(1, float("nan")), (1, 2)])
def test_rows_are_closed_before_the_error_is_raised(run: Any, bad: Any) -> None:
    async def work(session: AsyncSession) -> None:
        closed = []

        async def rows() -> AsyncIterator[Any]:
            try:
                yield kpi(1)
                yield bad
                yield kpi(1)
            finally:
                await asyncio.sleep(0)
                closed.append(True)

        with pytest.raises(RowRejected):
            await async_copy_rows(session, KpiSummary, rows())
        assert closed == [True]

    run(work)


def test_session_of_the_other_kind_is_rejected(run: Any, session: Session) -> None:
    async def work(asynchronous: AsyncSession) -> None:
        with pytest.raises(BulkLoadError, match="Use async_copy_rows or async_upsert_rows with an asyncio session"):
            copy_rows(asynchronous, KpiSummary, [kpi(1)])  # type: ignore[arg-type]
        with pytest.raises(BulkLoadError, match="Use copy_rows or upsert_rows with a synchronous session"):
            await async_copy_rows(session, KpiSummary, [kpi(1)])  # type: ignore[arg-type]

    run(work)


def test_asynchronous_rows_need_an_asyncio_session(session: Session) -> None:
    with pytest.raises(BulkLoadError, match="async_copy_rows"):
        copy_rows(session, KpiSummary, asynchronous(1))  # type: ignore[arg-type]
