"""Results that are not read to their end when the client of their session changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import ResourceClosedError

from support.clients import KPIS_PER_CLIENT
from syntegra_db.errors import UnsupportedSession
from syntegra_db.models import KpiSummary
from syntegra_db.tenancy import async_client, client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from syntegra_db.tenancy import ClientSession

    Factory = async_sessionmaker[AsyncSession]
    Run = Callable[[Callable[[Factory], Awaitable[Any]]], Any]

KPIS = select(KpiSummary)
COPY = "COPY (SELECT client_id FROM kpi_summary) TO STDOUT"
IN_PARTS = {"yield_per": 1}
READ: dict[str, Callable[[ClientSession], Any]] = {
    "objects": lambda session: session.execute(KPIS),
    "objects in parts": lambda session: session.execute(KPIS, execution_options=IN_PARTS),
    "scalars in parts": lambda session: session.scalars(KPIS.execution_options(yield_per=1)),
    "columns": lambda session: session.execute(select(KpiSummary.client_id)),
    "columns in parts": lambda session: session.execute(select(KpiSummary.client_id), execution_options=IN_PARTS),
    "Core in parts": lambda session: session.execute(select(KpiSummary.__table__), execution_options=IN_PARTS),
    "text in parts": lambda session: session.execute(
        text("SELECT client_id FROM kpi_summary"), execution_options={"stream_results": True}
    ),
}


@pytest.mark.parametrize("is_begun", [False, True], ids=["not read", "partly read"])
@pytest.mark.parametrize("read", READ)
def test_result_of_outer_client_is_closed(session: ClientSession, read: str, *, is_begun: bool) -> None:
    with client(session, 8):
        result = READ[read](session)
        if is_begun:
            next(iter(result))
        with client(session, 7):
            with pytest.raises(ResourceClosedError):
                list(result)
            assert {kpi.client_id for kpi in session.scalars(KPIS)} == {7}


@pytest.mark.parametrize("read", [name for name in READ if "parts" in name])
def test_iterator_of_outer_client_ends(session: ClientSession, read: str) -> None:
    with client(session, 8):
        iterator = iter(READ[read](session))
        next(iterator)
        with client(session, 7):
            with pytest.raises(ResourceClosedError):
                list(iterator)
            assert {kpi.client_id for kpi in session.scalars(KPIS)} == {7}


@pytest.mark.parametrize("read", READ)
def test_result_is_closed_with_its_block(session: ClientSession, read: str) -> None:
    with client(session, 8):
        result = READ[read](session)
    with pytest.raises(ResourceClosedError):
        list(result)


def test_loop_over_loaded_objects_goes_on_after_an_inner_block(session: ClientSession) -> None:
    with client(session, 8):
        seen = []
        for kpi in session.scalars(KPIS):
            seen.append(kpi.client_id)
            with client(session, 7):
                assert {inner.client_id for inner in session.scalars(KPIS)} == {7}
    assert seen == [8] * KPIS_PER_CLIENT


def test_same_client_in_an_inner_block_closes_nothing(session: ClientSession) -> None:
    with client(session, 8):
        result = session.scalars(KPIS, execution_options=IN_PARTS)
        first = next(result)
        with client(session, 8):
            assert {kpi.client_id for kpi in (first, *result)} == {8}


def test_result_of_an_ended_transaction_is_closed_by_the_next_client(session: ClientSession) -> None:
    with client(session, 8):
        result = session.scalars(KPIS)
        session.commit()
        with client(session, 7), pytest.raises(ResourceClosedError):
            result.all()


@pytest.mark.parametrize("read", [name for name in READ if "parts" in name])
def test_result_of_a_reverted_savepoint_leaves_the_transaction_usable(session: ClientSession, read: str) -> None:
    with client(session, 8):
        savepoint = session.begin_nested()
        iterator = iter(READ[read](session))
        next(iterator)
        savepoint.rollback()
        with client(session, 7):
            with pytest.raises(ResourceClosedError):
                list(iterator)
            assert {kpi.client_id for kpi in session.scalars(KPIS)} == {7}
        assert {kpi.client_id for kpi in session.scalars(KPIS)} == {8}


def change_client_during_copy(session: ClientSession) -> None:
    driver: Any = session.connection().connection.driver_connection
    with driver.cursor().copy(COPY) as copy:
        copy.read()
        with client(session, 7):
            pytest.fail("entered")


def test_change_of_client_during_a_copy_is_rejected(session: ClientSession) -> None:
    with client(session, 8):
        with pytest.raises(UnsupportedSession, match="COPY"):
            change_client_during_copy(session)
        session.rollback()
        assert {kpi.client_id for kpi in session.scalars(KPIS)} == {8}


def test_asyncio_stream_of_outer_client_is_closed(run: Run) -> None:
    async def change_client(sessions: Factory) -> None:
        async with sessions() as session, async_client(session, 8):
            stream = await session.stream_scalars(KPIS, execution_options=IN_PARTS)
            assert (await anext(stream)).client_id == 8
            async with async_client(session, 7):
                with pytest.raises(ResourceClosedError):
                    await stream.all()
                assert {kpi.client_id for kpi in await session.scalars(KPIS)} == {7}

    run(change_client)


def test_asyncio_stream_of_a_reverted_savepoint_leaves_the_transaction_usable(run: Run) -> None:
    async def change_client(sessions: Factory) -> None:
        async with sessions() as session, async_client(session, 8):
            savepoint = await session.begin_nested()
            stream = await session.stream_scalars(KPIS, execution_options=IN_PARTS)
            assert (await anext(stream)).client_id == 8
            await savepoint.rollback()
            async with async_client(session, 7):
                assert {kpi.client_id for kpi in await session.scalars(KPIS)} == {7}

    run(change_client)
