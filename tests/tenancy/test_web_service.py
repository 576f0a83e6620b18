"""A FastAPI service whose dependency gives each request the session of its client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator  # noqa: TC003  FastAPI evaluates annotations
from typing import TYPE_CHECKING, Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession  # noqa: TC002  same

from support.clients import CLIENTS, SERVICE
from syntegra_db.database import create_async_engine, create_engine
from syntegra_db.models import Cluster, KpiSummary
from syntegra_db.tenancy import (
    ClientSession,
    async_client,
    async_require_policies,
    async_session_factory,
    client,
    session_factory,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from support.servers import Database

# Fewer than the threads of FastAPI: a request in a thread waits for a connection of another that needs a thread.
REQUESTS = 30
VISIBLE = text("SELECT client_id FROM kpi_summary")


def current_client(x_client: Annotated[int, Header()]) -> int:
    """Return the client of a request; a service reads it from the verified token."""
    return x_client


def session_of_client(request: Request, client_id: Annotated[int, Depends(current_client)]) -> Iterator[ClientSession]:
    """Yield the session of a request, which ends with it."""
    with request.app.state.sessions() as session, client(session, client_id):
        yield session


async def async_session_of_client(
    request: Request, client_id: Annotated[int, Depends(current_client)]
) -> AsyncIterator[AsyncSession]:
    """Do the same for an asynchronous endpoint."""
    async with request.app.state.async_sessions() as session, async_client(session, client_id):
        yield session


router = APIRouter()


@router.get("/sync")
def read(session: Annotated[ClientSession, Depends(session_of_client)]) -> list[int]:
    return [*session.scalars(select(KpiSummary.client_id)), *session.scalars(VISIBLE)]


@router.get("/async")
async def read_async(session: Annotated[AsyncSession, Depends(async_session_of_client)]) -> list[int]:
    clients = [*await session.scalars(select(KpiSummary.client_id))]
    await asyncio.sleep(0)
    return [*clients, *await session.scalars(VISIBLE)]


@router.post("/{kind}/errors/{number}")
def fail(session: Annotated[ClientSession, Depends(session_of_client)], kind: str, number: int) -> None:
    assert session.client_id is not None
    session.add(Cluster(client_id=session.client_id, cluster_id=number, features_json={}))
    if kind == "database":
        session.execute(text("SELECT 1 / 0"))
    if kind == "http":
        raise HTTPException(409)
    raise LookupError


@router.post("/async/errors")
async def fail_async(session: Annotated[AsyncSession, Depends(async_session_of_client)]) -> None:
    await session.execute(text("SELECT 1 / 0"))


def create_service(engine: Engine, async_engine: AsyncEngine) -> FastAPI:
    """Return a service with one endpoint of each kind."""
    app = FastAPI()
    app.state.sessions = session_factory(engine)
    app.state.async_sessions = async_session_factory(async_engine)
    app.include_router(router)
    return app


@pytest.fixture
def request_all(protected: Database) -> Callable[[Callable[[httpx2.AsyncClient], Awaitable[Any]]], Any]:
    """Runs a function with a client of the service, whose engines have two connections each."""

    def request_all(work: Callable[[httpx2.AsyncClient], Awaitable[Any]]) -> Any:
        async def with_service() -> Any:
            url = protected.url_as(SERVICE)
            engine = create_engine(url, pool_size=2, max_overflow=0)
            async_engine = create_async_engine(url, pool_size=2, max_overflow=0)
            await async_require_policies(async_engine)
            transport = httpx2.ASGITransport(create_service(engine, async_engine), raise_app_exceptions=False)
            try:
                async with httpx2.AsyncClient(transport=transport, base_url="http://service") as http:
                    return await work(http)
            finally:
                await async_engine.dispose()
                engine.dispose()

        return asyncio.run(with_service())

    return request_all


@pytest.mark.parametrize("path", ["/sync", "/async"])
def test_concurrent_requests_each_see_their_client(request_all: Any, path: str) -> None:
    async def work(http: httpx2.AsyncClient) -> None:
        async def request(number: int) -> None:
            client_id = CLIENTS[number % 2]
            response = await http.get(path, headers={"x-client": str(client_id)})
            assert set(response.json()) == {client_id}

        await asyncio.gather(*map(request, range(REQUESTS)))
        assert (await http.get(path, headers={"x-client": "9"})).json() == []
        assert (await http.get(path)).status_code == 422

    request_all(work)


def test_requests_after_errors_see_their_client_only(request_all: Any) -> None:
    async def work(http: httpx2.AsyncClient) -> None:
        async def request(number: int) -> None:
            headers = {"x-client": str(CLIENTS[number % 2])}
            for path, status in (
                ("/python/errors/2", 500),
                ("/database/errors/2", 500),
                ("/http/errors/2", 409),
                ("/async/errors", 500),
            ):
                assert (await http.post(path, headers=headers)).status_code == status
            for path in ("/sync", "/async"):
                assert set((await http.get(path, headers=headers)).json()) == {CLIENTS[number % 2]}

        await asyncio.gather(*map(request, range(8)))

    request_all(work)


def test_row_of_failed_request_is_not_stored(request_all: Any, protected: Database) -> None:
    async def work(http: httpx2.AsyncClient) -> None:
        for kind in ("python", "http"):
            await http.post(f"/{kind}/errors/99", headers={"x-client": "7"})

    request_all(work)
    assert protected.query("SELECT count(*) FROM clusters WHERE cluster_id = 99") == [(0,)]
