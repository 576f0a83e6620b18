"""Fixtures: a database with policies, and sessions of logins that they restrict, with and without asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from support.clients import ADMIN, SERVICE, protected_database
from syntegra_db import tenancy
from syntegra_db.database import create_async_engine, create_engine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from support.servers import Database, Server

TEMPLATE = "syntegra_test_protected_template"


@pytest.fixture(scope="module")
def protected_template(server: Server, migrated_template: str) -> Iterator[str]:
    """Yield the name of a database with policies and rows of two clients; the roles of the server exist until then."""
    with protected_database(server, migrated_template, TEMPLATE):
        yield TEMPLATE


@pytest.fixture
def protected(server: Server, protected_template: str) -> Iterator[Database]:
    """Yield a database with policies, with rows of the clients 7 and 8."""
    with server.database(protected_template) as database:
        yield database


@pytest.fixture
def engine(protected: Database) -> Iterator[Engine]:
    """Yield an engine of a service with one connection, so that each transaction follows the one before on it."""
    engine = create_engine(protected.url_as(SERVICE), pool_size=1, max_overflow=0)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[tenancy.ClientSession]:
    with tenancy.session_factory(engine)() as session:
        yield session


@pytest.fixture
def admin_session(protected: Database) -> Iterator[tenancy.ClientSession]:
    """Yield a session whose login sees all clients, so that only the session separates them."""
    engine = create_engine(protected.url_as(ADMIN))
    with tenancy.session_factory(engine)() as session:
        yield session
    engine.dispose()


@pytest.fixture
def run(protected: Database) -> Callable[[Callable[[async_sessionmaker[AsyncSession]], Awaitable[Any]]], Any]:
    """Runs a function with a factory of asyncio sessions of the service, and returns its result."""

    def run(work: Callable[[async_sessionmaker[AsyncSession]], Awaitable[Any]]) -> Any:
        async def with_factory() -> Any:
            engine = create_async_engine(protected.url_as(SERVICE), pool_size=1, max_overflow=0)
            try:
                return await work(tenancy.async_session_factory(engine))
            finally:
                await engine.dispose()

        return asyncio.run(with_factory())

    return run
