"""Many threads and tasks with random clients over few connections, direct and through PgBouncer: no foreign row."""

from __future__ import annotations

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from support.clients import CLIENTS, SERVICE
from support.poolers import pgbouncer
from syntegra_db.connections import conninfo
from syntegra_db.database import create_async_engine, create_engine
from syntegra_db.errors import RowOfOtherClient
from syntegra_db.models import Cluster, KpiSummary
from syntegra_db.tenancy import ClientSession, async_client, async_session_factory, client, session_factory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
    from sqlalchemy.orm import sessionmaker

    from support.servers import Database

WORKERS = 20
CONNECTIONS = 4
LONG = 5000
SHORT = 300
# Not all rows: their number grows with the transactions.
NEWEST = select(Cluster).order_by(Cluster.id.desc()).limit(10)
VISIBLE = text("SELECT client_id FROM kpi_summary")
POOL: dict[str, Any] = {"pool_size": CONNECTIONS, "max_overflow": 0, "pool_timeout": 120}
# The pool gives a connection that was returned to the first that asks: without a pause, that is the same worker again,
# and some of the others wait until it has done all of its transactions.
PAUSE_SECONDS = 0.001
TRANSACTIONS = [
    pytest.param(SHORT, id="short"),
    pytest.param(LONG, id="long", marks=[pytest.mark.long, pytest.mark.timeout(1200)]),
]
WAYS = ["direct", pytest.param("pooler", marks=pytest.mark.pooler)]
# Each transaction does some of these in any order, in blocks of any client.
STEPS = ("read", "write", "write other", "error", "savepoint", "savepoint error", "block", "commit", "rollback")


def foreign_rows(clients: list[int], client_id: int | None) -> list[int]:
    return [found for found in clients if found != client_id]


def work(session: ClientSession, choice: random.Random, depth: int = 0) -> list[int]:
    """Do random steps, and return the clients of rows that the session must not see."""
    foreign = foreign_rows(list(session.scalars(VISIBLE)), session.client_id)
    for step in choice.sample(STEPS, 3):
        foreign += take_step(session, step, choice, depth)
        foreign += foreign_rows(list(session.scalars(VISIBLE)), session.client_id)
        if session.client_id is not None:
            foreign += foreign_rows(list(session.scalars(select(KpiSummary.client_id))), session.client_id)
            foreign += foreign_rows([row.client_id for row in session.scalars(NEWEST)], session.client_id)
    return foreign


def take_step(session: ClientSession, step: str, choice: random.Random, depth: int) -> list[int]:
    if step in {"commit", "rollback"} and not session.in_nested_transaction():
        getattr(session, step)()
    elif step == "write" and session.client_id is not None:
        session.add(Cluster(client_id=session.client_id, cluster_id=choice.randrange(9), features_json={}))
    elif step == "savepoint" and depth < 2:
        with session.begin_nested():
            return work(session, choice, depth + 1)
    elif step == "block" and depth < 2:
        with client(session, choice.choice(CLIENTS)):
            return work(session, choice, depth + 1)
    elif step == "savepoint error" and depth < 2:
        savepoint = session.begin_nested()
        with client(session, choice.choice(CLIENTS)):
            foreign = work(session, choice, depth + 1)
            savepoint.rollback()
            return foreign + foreign_rows(list(session.scalars(VISIBLE)), session.client_id)
    elif step == "write other":
        session.add(Cluster(client_id=choice.choice(CLIENTS), cluster_id=9, features_json={}))
        session.flush()
    elif step == "error":
        session.execute(text("SELECT 1 / 0"))
    return []


def run_transactions(factory: sessionmaker[ClientSession], seed: int, count: int) -> list[int]:
    choice = random.Random(seed)
    foreign: list[int] = []
    for number in range(count):
        client_id = choice.choice((*CLIENTS, None))
        try:
            with ExitStack() as stack:
                session = stack.enter_context(factory())
                if client_id is not None:
                    stack.enter_context(client(session, client_id))
                foreign += work(session, choice)
                if number % 2:
                    session.commit()
        except (DBAPIError, RowOfOtherClient):
            assert session.client_id is None
        time.sleep(PAUSE_SECONDS)
    return foreign


async def run_async_transactions(factory: async_sessionmaker[AsyncSession], seed: int, count: int) -> list[int]:
    """Do the same under asyncio, and cancel one transaction of ten."""
    choice = random.Random(seed)
    foreign: list[int] = []

    async def transaction(number: int) -> None:
        async with factory() as session, async_client(session, choice.choice(CLIENTS)):
            foreign.extend(await session.run_sync(lambda sync: work(sync, choice)))  # type: ignore[arg-type]
            if number % 2:
                await session.commit()

    for number in range(count):
        task = asyncio.create_task(transaction(number))
        if number % 10 == 0:
            await asyncio.sleep(choice.random() * 0.02)
            task.cancel()
        with suppress(DBAPIError, RowOfOtherClient, asyncio.CancelledError):
            await task
        await asyncio.sleep(PAUSE_SECONDS)
    return foreign


@contextmanager
def way(protected: Database, name: str, folder: Path) -> Iterator[tuple[URL, dict[str, Any]]]:
    """Yield a URL of the service and options of its engine; each server session has a client that was left set."""
    url = protected.url_as(SERVICE)
    if name == "direct":
        yield url, POOL
        return
    with pgbouncer(protected, "transaction", folder, pool_size=CONNECTIONS, user=SERVICE) as pooled:
        leave_client_set(pooled)
        yield pooled, {**POOL, "pool_size": WORKERS, "pooler": "transaction"}


def leave_client_set(url: URL) -> None:
    """Set a client in all server sessions of the pooler, as a program that does not know of transactions."""
    with ExitStack() as stack:
        connections = [stack.enter_context(psycopg.connect(conninfo(url))) for _ in range(CONNECTIONS)]
        pids = set()
        for connection in connections:
            connection.prepare_threshold = None
            connection.execute("SET syntegra.client_id = '8'")
            pids.add(connection.execute("SELECT pg_backend_pid()").fetchall()[0])
        for connection in connections:
            connection.commit()
    assert len(pids) == CONNECTIONS


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("transactions", TRANSACTIONS)
def test_threads_see_no_foreign_row(protected: Database, tmp_path: Path, name: str, transactions: int) -> None:
    with way(protected, name, tmp_path) as (url, options):
        engine = create_engine(url, **options)
        try:
            if name == "direct":
                leave_client_set_in_pool(engine)
            factory = session_factory(engine)
            with ThreadPoolExecutor(WORKERS) as threads:
                run = partial(run_transactions, factory, count=transactions // WORKERS)
                assert [row for result in threads.map(run, range(WORKERS)) for row in result] == []
        finally:
            engine.dispose()


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("transactions", TRANSACTIONS)
def test_tasks_see_no_foreign_row(protected: Database, tmp_path: Path, name: str, transactions: int) -> None:
    async def run_all(url: URL, options: dict[str, Any]) -> list[int]:
        engine = create_async_engine(url, **options)
        factory = async_session_factory(engine)
        try:
            results = await asyncio.gather(
                *(run_async_transactions(factory, seed, transactions // WORKERS) for seed in range(WORKERS))
            )
        finally:
            await engine.dispose()
        return [row for result in results for row in result]

    with way(protected, name, tmp_path) as (url, options):
        assert asyncio.run(run_all(url, options)) == []


def leave_client_set_in_pool(engine: Any) -> None:
    """Set a client in each pooled session for as long as it lives."""
    with ExitStack() as stack:
        for connection in [stack.enter_context(engine.connect()) for _ in range(CONNECTIONS)]:
            connection.execute(text("SET syntegra.client_id = '8'"))
            connection.commit()
