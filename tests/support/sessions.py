"""Fixtures that open sessions on the database of a test, with and without asyncio."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from syntegra_db.database import create_async_engine, create_engine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from support.servers import Database


@contextmanager
def session_on(database: Database) -> Iterator[Session]:
    """A session on an engine of the package."""
    engine = create_engine(database.url)
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with session_on(database) as session:
        yield session


@pytest.fixture
def run(database: Database) -> Callable[[Callable[[AsyncSession], Awaitable[Any]]], Any]:
    """Runs a function with an asyncio session and returns its result."""

    def run(work: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
        async def with_session() -> Any:
            engine = create_async_engine(database.url)
            try:
                async with AsyncSession(engine) as session:
                    return await work(session)
            finally:
                await engine.dispose()

        return asyncio.run(with_session())

    return run
