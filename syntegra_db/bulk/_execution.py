"""Run the statements of a load on the session's connection, with and without asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing, contextmanager, nullcontext
from inspect import iscoroutinefunction
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn, cast

import psycopg
from psycopg.copy import AsyncLibpqWriter, LibpqWriter
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from sqlalchemy import inspect, update

from syntegra_db.bulk._row_formats import iter_source
from syntegra_db.bulk._stage import CopyStep, StepResult
from syntegra_db.errors import BulkLoadError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from syntegra_db.bulk._job import LoadJob
    from syntegra_db.bulk._stage import Step, Steps

UNUSABLE = {TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN}

_NO_ROWS: Any = object()


class _CopyAborted(Exception):
    """Raised to abort COPY without sending the client's error text to the server's log."""


class _SilentWriter(LibpqWriter):
    """End a failed COPY without the text of the Python error, and keep the server's reply, which psycopg would log."""

    def __init__(self, cursor: psycopg.Cursor[Any], job: LoadJob) -> None:
        super().__init__(cursor)
        self._job = job

    def finish(self, exc: BaseException | None = None) -> None:
        try:
            super().finish(_CopyAborted() if exc else None)
        except psycopg.Error as error:
            if exc is None:
                raise
            self._job.server_error = error


class _AsyncSilentWriter(AsyncLibpqWriter):
    def __init__(self, cursor: psycopg.AsyncCursor[Any], job: LoadJob) -> None:
        super().__init__(cursor)
        self._job = job

    async def finish(self, exc: BaseException | None = None) -> None:
        try:
            await super().finish(_CopyAborted() if exc else None)
        except psycopg.Error as error:
            if exc is None:
                raise
            self._job.server_error = error


class _RaisingLock:
    """Replaces the lock of a connection during COPY: the thread or task that holds the real lock would wait forever."""

    def __enter__(self) -> NoReturn:
        raise BulkLoadError(
            "The session is sending rows; the code that yields them, and on_progress, must use another session."
        )

    async def __aenter__(self) -> NoReturn:
        self.__enter__()

    # `with` looks these up before it enters.
    def __exit__(self, *_: object) -> None: ...
    async def __aexit__(self, *_: object) -> None: ...


@contextmanager
def _forbid_reentrant_use(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> Iterator[None]:
    """Raise `BulkLoadError` for any other use of `connection`, whose lock the caller holds, inside the block."""
    lock: Any = connection.lock
    # psycopg only enters a lock.
    connection.lock = _RaisingLock()  # type: ignore[assignment]
    try:
        yield
    finally:
        connection.lock = lock


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
            written = _run_steps(driver, job, steps, chain([first], cast("Iterator[Any]", remaining)))
        else:
            rows = _aiter_rows(job, first, cast("AsyncIterator[Any]", remaining))
            written = cast("Any", pooled).run_async(lambda driver: _run_steps_async(driver, job, steps, rows))
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


def _run_steps(driver: psycopg.Connection[Any], job: LoadJob, steps: Steps, items: Iterable[Any]) -> int:
    with driver.cursor(row_factory=tuple_row) as cursor:
        job.register_dumpers(cursor)
        result: StepResult | psycopg.Error | None = None
        try:
            while not isinstance(step := _advance(steps, result), int):
                if isinstance(step, CopyStep):
                    job.copy_target = step.table
                    writer = _SilentWriter(cursor, job)
                    with cursor.copy(step.query, writer=writer) as copy, _forbid_reentrant_use(driver):
                        copy.set_types(job.column_oids())
                        write = copy.write_row
                        for row in job.counted_rows(items):
                            try:
                                write(row)
                            except Exception:
                                job.failed_row = row
                                raise
                else:
                    try:
                        cursor.execute(step, prepare=False)
                    except psycopg.Error as error:
                        result = error
                        continue
                while cursor.nextset():
                    pass
                result = StepResult(cursor.fetchone() if cursor.description else None, cursor.rowcount)
            return step
        finally:
            # As in `_load`: the traceback of an error has this frame.
            del result


async def _run_steps_async(
    driver: psycopg.AsyncConnection[Any], job: LoadJob, steps: Steps, rows: AsyncGenerator[Sequence[Any]]
) -> int:
    async with driver.cursor(row_factory=tuple_row) as cursor, aclosing(rows):
        job.register_dumpers(cursor)
        result: StepResult | psycopg.Error | None = None
        try:
            while not isinstance(step := _advance(steps, result), int):
                if isinstance(step, CopyStep):
                    job.copy_target = step.table
                    async with cursor.copy(step.query, writer=_AsyncSilentWriter(cursor, job)) as copy:
                        copy.set_types(job.column_oids())
                        with _forbid_reentrant_use(driver):
                            async for row in rows:
                                try:
                                    await copy.write_row(row)
                                except Exception:
                                    job.failed_row = row
                                    raise
                else:
                    try:
                        await cursor.execute(step, prepare=False)
                    except psycopg.Error as error:
                        result = error
                        continue
                while cursor.nextset():
                    pass
                result = StepResult(await cursor.fetchone() if cursor.description else None, cursor.rowcount)
            return step
        finally:
            # As in `_load`: the traceback of an error has this frame.
            del result


def _advance(steps: Steps, result: StepResult | psycopg.Error | None) -> Step | int:
    """Return the next step after `result` of the last one, or the number of written rows after the last step."""
    try:
        return steps.throw(result) if isinstance(result, psycopg.Error) else steps.send(cast("Any", result))
    except StopIteration as end:
        return cast("int", end.value)
    finally:
        # As in `_load`: the traceback of an error has this frame.
        del result


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
