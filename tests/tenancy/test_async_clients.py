"""Clients of asyncio sessions, also when a task is cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

from support.clients import SERVICE
from syntegra_db.database import create_async_engine
from syntegra_db.errors import InvalidClient, UnsupportedSession
from syntegra_db.models import Cluster
from syntegra_db.tenancy import ClientSession, async_client, client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import async_sessionmaker

    from support.servers import Database

    Factory = async_sessionmaker[AsyncSession]
    Run = Callable[[Callable[[Factory], Awaitable[Any]]], Any]

VISIBLE = text("SELECT DISTINCT client_id FROM kpi_summary")


async def visible_clients(session: AsyncSession) -> list[int]:
    return list(await session.scalars(VISIBLE))


def client_of(session: AsyncSession) -> int | None:
    assert isinstance(session.sync_session, ClientSession)
    return session.sync_session.client_id


def test_nested_blocks_savepoints_and_errors(run: Run) -> None:
    async def work(factory: Factory) -> None:
        async with factory() as session:
            async with async_client(session, 7):
                row = (await session.scalars(select(Cluster))).one()
                savepoint = await session.begin_nested()
                async with async_client(session, 8):
                    assert row not in session
                    assert await visible_clients(session) == [8]
                    await savepoint.rollback()
                    assert await visible_clients(session) == [8]
                assert row in session
                assert await visible_clients(session) == [7]
                with pytest.raises(DBAPIError):
                    async with session.begin_nested(), async_client(session, 8):
                        await session.execute(text("SELECT 1 / 0"))
                assert await visible_clients(session) == [7]
                await session.commit()
                assert await visible_clients(session) == [7]
            assert await visible_clients(session) == []

    run(work)


@pytest.mark.parametrize("place", ["transaction", "savepoint"])
@pytest.mark.parametrize("wait", ["SELECT pg_sleep(60)", None])
def test_cancelled_task_leaves_no_client(run: Run, place: str, wait: str | None) -> None:
    async def work(factory: Factory) -> None:
        async with factory() as session:
            entered = asyncio.Event()

            async def block() -> None:
                async with async_client(session, 8):
                    if place == "savepoint":
                        await session.begin_nested()
                    assert await visible_clients(session) == [8]
                    entered.set()
                    await (asyncio.sleep(60) if wait is None else session.execute(text(wait)))

            async with async_client(session, 7):
                task = asyncio.create_task(block())
                await entered.wait()
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert client_of(session) == 7
                if wait is None:
                    assert await visible_clients(session) == [7]
                await session.rollback()
                assert await visible_clients(session) == [7]
            assert await visible_clients(session) == []

    run(work)


def test_task_cancelled_at_any_await_leaves_no_client(run: Run) -> None:
    """Cancel a task at each of its turns in the event loop: while it begins, enters, works and leaves."""

    async def block(session: AsyncSession) -> None:
        async with async_client(session, 7):
            session.add(Cluster(client_id=7, cluster_id=2, features_json={}))
            async with async_client(session, 8):
                await visible_clients(session)

    async def cancel_after(turns: int, factory: Factory) -> bool:
        async with factory() as session:
            await visible_clients(session) if turns % 2 else None
            task = asyncio.create_task(block(session))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            cancelled = bool((await asyncio.gather(task, return_exceptions=True))[0])
            assert client_of(session) is None
            try:
                assert await visible_clients(session) == []
            except (DBAPIError, PendingRollbackError):
                await session.rollback()
                assert await visible_clients(session) == []
            return cancelled

    async def work(factory: Factory) -> None:
        results = [await cancel_after(turns, factory) for turns in range(60)]
        assert results[0]
        async with factory() as session:
            assert await visible_clients(session) == []

    run(work)


def test_other_sessions_and_values_are_rejected(run: Run, protected: Database, session: ClientSession) -> None:
    async def work(factory: Factory) -> None:
        async with factory() as asynchronous:
            with pytest.raises(UnsupportedSession, match="async_client"), client(asynchronous, 7):  # type: ignore[arg-type]
                pytest.fail("entered")
            with pytest.raises(InvalidClient):
                await async_client(asynchronous, "7").__aenter__()  # type: ignore[arg-type]
        with pytest.raises(UnsupportedSession, match="AsyncSession"):
            await async_client(session, 7).__aenter__()  # type: ignore[arg-type]
        engine = create_async_engine(protected.url_as(SERVICE))
        async with AsyncSession(engine) as plain:
            with pytest.raises(UnsupportedSession, match="session_factory"):
                await async_client(plain, 7).__aenter__()
        await engine.dispose()
        registry = async_scoped_session(factory, asyncio.current_task)
        async with async_client(registry, 7):
            assert await visible_clients(registry()) == [7]
        await registry.remove()

    run(work)
