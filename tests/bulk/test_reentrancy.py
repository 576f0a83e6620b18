"""Use of a session during its own load raises an error, and does not wait forever."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select, text

from support.bulk_rows import kpi, stored
from support.sessions import session_on
from syntegra_db.bulk import BulkLoadError, async_copy_rows, copy_rows, upsert_rows
from syntegra_db.models import KpiSummary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from support.servers import Database

pytestmark = [
    pytest.mark.timeout(30),
    # A streamed result cannot close its cursor during the load; the rollback does.
    pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning"),
]

MANY = 2000
REJECTED = "The session is sending rows; the code that yields them, and on_progress, must use another session"
STREAMED = (
    select(*[column for column in KpiSummary.__table__.columns if column.name != "id"])
    .limit(300)
    .execution_options(yield_per=100)
)


def many() -> Iterator[dict[str, Any]]:
    return (kpi(n) for n in range(MANY))


def streamed(session: Session) -> int:
    return copy_rows(session, KpiSummary, session.execute(STREAMED))


def looked_up(session: Session) -> int:
    highest = select(func.max(KpiSummary.client_id))
    return copy_rows(session, KpiSummary, (kpi(session.scalar(highest) or 0) for _ in range(3)))


def nested(session: Session) -> int:
    return copy_rows(session, KpiSummary, (kpi(copy_rows(session, KpiSummary, [kpi(1)])) for _ in range(3)))


def reported_with_a_query(session: Session) -> int:
    def report(_: int) -> None:
        session.execute(text("SELECT 1"))

    return copy_rows(session, KpiSummary, many(), on_progress=report)


def reported_with_a_commit(session: Session) -> int:
    return copy_rows(session, KpiSummary, many(), on_progress=lambda _: session.commit())


def upserted(session: Session) -> int:
    return upsert_rows(session, KpiSummary, many(), key=["client_id"], on_progress=lambda _: session.rollback())


@pytest.mark.parametrize("load", [streamed, looked_up, nested, reported_with_a_query, reported_with_a_commit, upserted])
def test_use_of_the_session_during_the_load_raises(session: Session, load: Callable[[Session], int]) -> None:
    copy_rows(session, KpiSummary, many())
    session.commit()
    with pytest.raises(BulkLoadError, match=REJECTED):
        load(session)
    session.rollback()
    gc.collect()
    copy_rows(session, KpiSummary, [kpi(-1)])
    session.commit()
    assert len(stored(session, KpiSummary)) == MANY + 1


def test_another_session_can_be_used_during_the_load(session: Session, database: Database) -> None:
    copy_rows(session, KpiSummary, many())
    session.commit()
    with session_on(database) as other:
        assert copy_rows(session, KpiSummary, other.execute(STREAMED)) == 300


async def looked_up_async(session: AsyncSession) -> int:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        for _ in range(3):
            yield kpi(await session.scalar(select(func.max(KpiSummary.client_id))) or 0)

    return await async_copy_rows(session, KpiSummary, rows())


async def streamed_async(session: AsyncSession) -> int:
    result = await session.stream(STREAMED)
    try:
        return await async_copy_rows(session, KpiSummary, result)
    finally:
        # Its cursor on the server would otherwise be closed when it is collected, perhaps in another test.
        await result.close()


@pytest.mark.parametrize("load", [streamed_async, looked_up_async])
def test_use_of_asyncio_session_raises(run: Any, session: Session, load: Callable[[AsyncSession], Any]) -> None:
    async def work(asynchronous: AsyncSession) -> None:
        await async_copy_rows(asynchronous, KpiSummary, many())
        await asynchronous.commit()
        with pytest.raises(BulkLoadError, match=REJECTED):
            await asyncio.wait_for(load(asynchronous), 10)
        await asynchronous.rollback()
        await async_copy_rows(asynchronous, KpiSummary, [kpi(-1)])
        await asynchronous.commit()

    run(work)
    gc.collect()
    assert len(stored(session, KpiSummary)) == MANY + 1
