"""Sending a load's steps over the session's connection, with and without asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing, nullcontext
from inspect import iscoroutinefunction
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg.copy import AsyncLibpqWriter, LibpqWriter
from psycopg.rows import tuple_row

from syntegra_db.bulk import _row_formats
from syntegra_db.bulk._reentrancy import forbid_reentrant_use
from syntegra_db.bulk._statements import CopyStep, StepResult
from syntegra_db.bulk.errors import BulkLoadError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from syntegra_db.bulk._job import LoadJob
    from syntegra_db.bulk._statements import StatementStep, Steps

_EMPTY: Any = object()


class _CopyAborted(Exception):
    """What the server is told, and writes into its log, of an error on this side: nothing."""


class _SilentWriter(LibpqWriter):
    """Ends a COPY without the words of an error, and keeps what the server then says where psycopg would log it."""

    refused: psycopg.Error | None = None

    def finish(self, exc: BaseException | None = None) -> None:
        try:
            super().finish(exc and _CopyAborted())
        except psycopg.Error as error:
            if exc is None:
                raise
            self.refused = error


class _AsyncSilentWriter(AsyncLibpqWriter):
    refused: psycopg.Error | None = None

    async def finish(self, exc: BaseException | None = None) -> None:
        try:
            await super().finish(exc and _CopyAborted())
        except psycopg.Error as error:
            if exc is None:
                raise
            self.refused = error


def execute(session: Session, load: LoadJob, given: Iterable[Any]) -> int:
    """Send the rows that are `given`, and return how many the server wrote."""
    if iscoroutinefunction(session.flush):
        raise BulkLoadError("An asyncio session loads rows with async_copy_rows or async_upsert_rows.")
    session.flush()
    connection = session.connection(bind_arguments={"mapper": load.model})
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise _unsupported_driver(driver)
    load.require_transaction(connection, driver)
    if hasattr(given, "__aiter__"):
        raise BulkLoadError("Rows that come asynchronously go in with async_copy_rows or async_upsert_rows.")
    remaining = iter(_row_formats.iter_source(given))
    first = next(remaining, _EMPTY)
    if first is _EMPTY:
        return load.finish(0)
    steps = load.begin(first, connection)
    with driver.cursor(row_factory=tuple_row) as cursor:
        writer = _SilentWriter(cursor)
        try:
            count = _run_steps(cursor, writer, load, steps, chain([first], remaining))
        except Exception as error:  # noqa: BLE001  raised below, where it has no context to show
            failure = load.to_public_error(error, writer.refused)
            writer.refused = load.caller_error = None
        else:
            return load.finish(count)
    if driver.closed and not connection.closed:
        connection.invalidate()
    try:
        raise failure
    finally:
        # It holds this frame, and the frame the _row_formats, which stay open as long as one holds the other.
        del failure


def _run_steps(
    cursor: psycopg.Cursor[Any], writer: _SilentWriter, load: LoadJob, steps: Steps, items: Iterable[Any]
) -> int:
    load.register_dumpers(cursor)
    outcome = None
    while True:
        try:
            step = next(steps) if outcome is None else steps.send(outcome)
        except StopIteration as end:
            count: int = end.value
            return count
        if isinstance(step, CopyStep):
            load.copy_target = step.into
            with cursor.copy(step.query, writer=writer) as copy, forbid_reentrant_use(cursor.connection):
                copy.set_types(load.column_oids())
                write = copy.write_row
                for row in load.counted_rows(items):
                    try:
                        write(row)
                    except Exception:
                        load.failed_row = row
                        raise
        else:
            cursor.execute(step.query, prepare=False)
        outcome = StepResult(cursor.fetchone() if cursor.description else None, cursor.rowcount)


async def execute_async(session: AsyncSession, load: LoadJob, given: Iterable[Any] | AsyncIterable[Any]) -> int:
    """Do the same as `send` under asyncio."""
    if not iscoroutinefunction(session.flush):
        raise BulkLoadError("A session without asyncio loads rows with copy_rows or upsert_rows.")
    await session.flush()
    connection = await session.connection(bind_arguments={"mapper": load.model})
    synchronous = cast("Connection", connection.sync_connection)
    driver = (await connection.get_raw_connection()).driver_connection
    if not isinstance(driver, psycopg.AsyncConnection):
        raise _unsupported_driver(driver)
    load.require_transaction(synchronous, driver)
    async with aclosing(_aiter_source(given)) as remaining:
        first = await anext(remaining, _EMPTY)
        if first is _EMPTY:
            return load.finish(0)
        steps = load.begin(first, synchronous)
        async with (
            driver.cursor(row_factory=tuple_row) as cursor,
            aclosing(_aiter_rows(load, first, remaining)) as tuples,
        ):
            writer = _AsyncSilentWriter(cursor)
            try:
                count = await _run_steps_async(cursor, writer, load, steps, tuples)
            except Exception as error:  # noqa: BLE001  raised below, where it has no context to show
                failure = load.to_public_error(error, writer.refused)
                writer.refused = load.caller_error = None
            else:
                return load.finish(count)
    if driver.closed and not connection.closed:
        await connection.invalidate()
    try:
        raise failure
    finally:
        del failure


async def _run_steps_async(
    cursor: psycopg.AsyncCursor[Any],
    writer: _AsyncSilentWriter,
    load: LoadJob,
    steps: Steps,
    tuples: AsyncIterator[Sequence[Any]],
) -> int:
    load.register_dumpers(cursor)
    outcome = None
    while True:
        try:
            step: CopyStep | StatementStep = next(steps) if outcome is None else steps.send(outcome)
        except StopIteration as end:
            count: int = end.value
            return count
        if isinstance(step, CopyStep):
            load.copy_target = step.into
            async with cursor.copy(step.query, writer=writer) as copy:
                copy.set_types(load.column_oids())
                with forbid_reentrant_use(cursor.connection):
                    async for row in tuples:
                        try:
                            await copy.write_row(row)
                        except Exception:
                            load.failed_row = row
                            raise
        else:
            await cursor.execute(step.query, prepare=False)
        outcome = StepResult(await cursor.fetchone() if cursor.description else None, cursor.rowcount)


async def _aiter_source(given: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any]:
    if not isinstance(given, AsyncIterable):
        for item in _row_formats.iter_source(given):
            yield item
        return
    # An asynchronous generator, unlike another, is not closed when nobody holds it any more.
    async with aclosing(given) if isinstance(given, AsyncGenerator) else nullcontext():
        async for item in given:
            yield item


async def _aiter_rows(load: LoadJob, first: Any, remaining: AsyncIterator[Any]) -> AsyncGenerator[Sequence[Any]]:
    try:
        for row in load.counted_rows((first,)):
            yield row
        async for item in remaining:
            for row in load.counted_rows((item,)):
                yield row
    except BulkLoadError:
        raise
    except Exception as error:
        load.caller_error = error
        raise


def _unsupported_driver(driver: Any) -> BulkLoadError:
    return BulkLoadError(
        f"Rows are loaded over psycopg 3 only, and this session's connection is of {type(driver).__module__};"
        " use an engine of syntegra_db.database."
    )
