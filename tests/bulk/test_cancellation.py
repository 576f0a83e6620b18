"""A cancelled load, search or check passes the cancellation on and leaves no connection in use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from support.bulk_rows import kpi
from syntegra_db.bulk import async_copy_rows, async_upsert_rows
from syntegra_db.database import create_async_engine
from syntegra_db.migrations import async_require_head
from syntegra_db.models import KpiSummary
from syntegra_db.vectors import async_search

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from support.servers import Database

    Work = Callable[[AsyncEngine], Awaitable[Any]]

# The answer to COPY, or to the statement that writes from the temporary table, takes 50 ms.
SLOW_TABLE = """
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;
    CREATE TRIGGER slow AFTER INSERT ON kpi_summary EXECUTE FUNCTION wait()
"""
KEY = ("client_id", "kpi_name")
MILLISECONDS = range(0, 70, 3)


async def copy(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await async_copy_rows(session, KpiSummary, [kpi(1)])
        await asyncio.sleep(60)


async def copy_many(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await async_copy_rows(session, KpiSummary, (kpi(n) for n in range(1000)))
        await asyncio.sleep(60)


async def upsert(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await async_upsert_rows(session, KpiSummary, [kpi(1)], key=KEY)
        await asyncio.sleep(60)


async def copy_on_connection(engine: AsyncEngine) -> None:
    async with engine.connect() as connection, AsyncSession(connection) as session:
        await async_copy_rows(session, KpiSummary, [kpi(1)])
        await asyncio.sleep(60)


async def copy_in_savepoint(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin(), session.begin_nested():
        await async_copy_rows(session, KpiSummary, [kpi(1)])
        await asyncio.sleep(60)


async def search(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        while True:
            await async_search(session, np.ones(384))


async def require_head(engine: AsyncEngine) -> None:
    while True:
        await async_require_head(engine)


async def require_head_on_connection(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        while True:
            await async_require_head(connection)


WORK = [
    copy,
    copy_many,
    upsert,
    copy_on_connection,
    copy_in_savepoint,
    search,
    require_head,
    require_head_on_connection,
]


async def cancelled_by_task(work: Awaitable[Any], seconds: float) -> None:
    task = asyncio.ensure_future(work)
    await asyncio.sleep(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancelled_by_timeout(work: Awaitable[Any], seconds: float) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await work


async def cancelled_by_task_group(work: Any, seconds: float) -> None:
    async def fail() -> None:
        await asyncio.sleep(seconds)
        raise ZeroDivisionError

    async def run_both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(work)
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as info:
        await run_both()
    assert [type(error) for error in info.value.exceptions] == [ZeroDivisionError]


async def cancelled_twice(work: Awaitable[Any], seconds: float) -> None:
    task = asyncio.ensure_future(work)
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def left_after(database: Database, work: Work, cancel: Callable[..., Awaitable[None]]) -> list[tuple[float, int]]:
    """Return the moments, in seconds, at which a cancellation left connections checked out, and their number."""

    async def repeat() -> list[tuple[float, int]]:
        engine = create_async_engine(database.url)
        left = []
        for milliseconds in MILLISECONDS:
            await cancel(work(engine), milliseconds / 1000)
            # What SQLAlchemy finishes in another task.
            for _ in range(20):
                await asyncio.sleep(0.001)
            if number := engine.pool.checkedout():  # type: ignore[attr-defined]
                left.append((milliseconds / 1000, number))
        async with AsyncSession(engine) as session:
            await async_copy_rows(session, KpiSummary, [kpi(7)])
            await session.rollback()
        await engine.dispose()
        return left

    return asyncio.run(repeat())


@pytest.mark.parametrize("work", WORK)
def test_cancelled_task_leaves_no_connection_checked_out(database: Database, work: Work) -> None:
    database.execute(SLOW_TABLE)
    assert left_after(database, work, cancelled_by_task) == []
    assert database.query("SELECT count(*) FROM kpi_summary") == [(0,)]


@pytest.mark.parametrize("cancel", [cancelled_by_timeout, cancelled_by_task_group, cancelled_twice])
@pytest.mark.parametrize("work", [copy, upsert])
def test_other_cancellations_leave_no_connection_checked_out(
    database: Database, work: Work, cancel: Callable[..., Awaitable[None]]
) -> None:
    database.execute(SLOW_TABLE)
    assert left_after(database, work, cancel) == []
    assert database.query("SELECT count(*) FROM kpi_summary") == [(0,)]
