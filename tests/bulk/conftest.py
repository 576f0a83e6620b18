"""What the tests of bulk loads share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from support.bulk_rows import session_on
from syntegra_db.database import create_async_engine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sqlalchemy.orm import Session

    from support.servers import Database


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with session_on(database) as session:
        yield session


@pytest.fixture
def run(database: Database) -> Callable[[Callable[[AsyncSession], Awaitable[Any]]], Any]:
    """What runs a function with an asyncio session and gives what it returns."""

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
