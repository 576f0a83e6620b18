"""Run the statements of a load on the session's connection, with and without asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing, nullcontext
from inspect import iscoroutinefunction
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import inspect, update

from syntegra_db.bulk._row_formats import iter_source
from syntegra_db.bulk._steps import run_steps, run_steps_async
from syntegra_db.errors import BulkLoadError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from syntegra_db.bulk._job import LoadJob

UNUSABLE = {TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN}

_NO_ROWS: Any = object()


def execute(session: Session, job: LoadJob, rows: Iterable[Any]) -> int:
    """Load `rows` and return how many the server wrote."""
    if iscoroutinefunction(session.flush):
        raise BulkLoadError("Use async_copy_rows or async_upsert_rows with an asyncio session.")
    if hasattr(rows, "__aiter__"):
        raise BulkLoadError("Use async_copy_rows or async_upsert_rows for an asynchronous iterable of rows.")
    remaining = iter(iter_source(rows))
    return _load(session, job, next(remaining, _NO_ROWS), remaining)


async def execute_async(session: AsyncSession, job: LoadJob, rows: Iterable[Any] | AsyncIterable[Any]) -> int:
    """Do the same as `execute` under asyncio."""
    if not iscoroutinefunction(session.flush):
        raise BulkLoadError("Use copy_rows or upsert_rows with a synchronous session.")
    async with aclosing(_aiter_source(rows)) as remaining:
        return await session.run_sync(_load, job, await anext(remaining, _NO_ROWS), remaining)


def _load(session: Session, job: LoadJob, first: Any, remaining: Iterator[Any] | AsyncIterator[Any]) -> int:
    session.flush()
    # A session that routes by statement sends an update to the database that takes writes.
    connection = session.connection(bind_arguments={"mapper": inspect(job.model), "clause": update(job.model)})
    pooled = connection.connection
    driver = pooled.driver_connection
    if not isinstance(driver, psycopg.Connection | psycopg.AsyncConnection):
        raise BulkLoadError(
            f"Bulk loads need psycopg 3, but this session's driver is {type(driver).__module__};"
            " use an engine of syntegra_db.database."
        )
    job.require_transaction(connection)
    if first is _NO_ROWS:
        return job.finish(0)
    steps = job.begin(first, connection)
    try:
        if isinstance(driver, psycopg.Connection):
            written = run_steps(driver, job, steps, chain([first], cast("Iterator[Any]", remaining)))
        else:
            rows = _aiter_rows(job, first, cast("AsyncIterator[Any]", remaining))
            written = cast("Any", pooled).run_async(lambda driver: run_steps_async(driver, job, steps, rows))
    except Exception as error:  # noqa: BLE001  raised below, where it has no context to show
        failure = job.to_public_error(error)
    except BaseException:
        _invalidate_if_unusable(connection, driver)
        raise
    else:
        return job.finish(written)
    _invalidate_if_unusable(connection, driver)
    try:
        raise failure
    finally:
        # Break the cycle between the exception, this frame and the row iterator, which would stay open.
        del failure


def _invalidate_if_unusable(
    connection: Connection, driver: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]
) -> None:
    """Invalidate a lost connection, or one whose COPY still runs after a cancellation: it accepts no ROLLBACK."""
    if driver.info.transaction_status in UNUSABLE and not connection.closed:
        connection.invalidate()


async def _aiter_source(rows: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any]:
    if not isinstance(rows, AsyncIterable):
        for item in iter_source(rows):
            yield item
        return
    # Unlike a generator, an asynchronous generator is not closed when the last reference to it is gone.
    async with aclosing(rows) if isinstance(rows, AsyncGenerator) else nullcontext():
        async for item in rows:
            yield item


async def _aiter_rows(job: LoadJob, first: Any, remaining: AsyncIterator[Any]) -> AsyncGenerator[Sequence[Any]]:
    try:
        for row in job.counted_rows((first,)):
            yield row
        async for item in remaining:
            for row in job.counted_rows((item,)):
                yield row
    except BulkLoadError:
        raise
    except Exception as error:
        job.caller_error = error
        raise
