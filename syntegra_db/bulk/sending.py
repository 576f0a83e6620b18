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

from syntegra_db.bulk import rows
from syntegra_db.bulk.errors import BulkError
from syntegra_db.bulk.steps import Copy, Outcome
from syntegra_db.bulk.taken import taken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from syntegra_db.bulk.load import Load
    from syntegra_db.bulk.steps import Statement, Steps

NOTHING: Any = object()


class _Abandoned(Exception):
    """What the server is told, and writes into its log, of an error on this side: nothing."""


class _Writer(LibpqWriter):
    """Ends a COPY without the words of an error, and keeps what the server then says where psycopg would log it."""

    refused: psycopg.Error | None = None

    def finish(self, exc: BaseException | None = None) -> None:
        try:
            super().finish(exc and _Abandoned())
        except psycopg.Error as error:
            if exc is None:
                raise
            self.refused = error


class _AsyncWriter(AsyncLibpqWriter):
    refused: psycopg.Error | None = None

    async def finish(self, exc: BaseException | None = None) -> None:
        try:
            await super().finish(exc and _Abandoned())
        except psycopg.Error as error:
            if exc is None:
                raise
            self.refused = error


def send(session: Session, load: Load, given: Iterable[Any]) -> int:
    """Send the rows that are `given`, and return how many the server wrote."""
    if iscoroutinefunction(session.flush):
        raise BulkError("An asyncio session loads rows with async_copy_rows or async_upsert_rows.")
    session.flush()
    connection = session.connection(bind_arguments={"mapper": load.model})
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise _other_driver(driver)
    load.check_transaction(connection, driver)
    if hasattr(given, "__aiter__"):
        raise BulkError("Rows that come asynchronously go in with async_copy_rows or async_upsert_rows.")
    remaining = iter(rows.items(given))
    first = next(remaining, NOTHING)
    if first is NOTHING:
        return load.done(0)
    steps = load.begin(first, connection)
    with driver.cursor(row_factory=tuple_row) as cursor:
        writer = _Writer(cursor)
        try:
            count = _run(cursor, writer, load, steps, chain([first], remaining))
        except Exception as error:  # noqa: BLE001  raised below, where it has no context to show
            failure = load.explain(error, writer.refused)
            writer.refused = load.of_caller = None
        else:
            return load.done(count)
    if driver.closed and not connection.closed:
        connection.invalidate()
    try:
        raise failure
    finally:
        # It holds this frame, and the frame the rows, which stay open as long as one holds the other.
        del failure


def _run(cursor: psycopg.Cursor[Any], writer: _Writer, load: Load, steps: Steps, items: Iterable[Any]) -> int:
    load.register(cursor)
    outcome = None
    while True:
        try:
            step = next(steps) if outcome is None else steps.send(outcome)
        except StopIteration as end:
            count: int = end.value
            return count
        if isinstance(step, Copy):
            load.copied_into = step.into
            with cursor.copy(step.query, writer=writer) as copy, taken(cursor.connection):
                copy.set_types(load.types())
                write = copy.write_row
                for row in load.tuples(items):
                    try:
                        write(row)
                    except Exception:
                        load.stuck = row
                        raise
        else:
            cursor.execute(step.query, prepare=False)
        outcome = Outcome(cursor.fetchone() if cursor.description else None, cursor.rowcount)


async def send_async(session: AsyncSession, load: Load, given: Iterable[Any] | AsyncIterable[Any]) -> int:
    """Do the same as `send` under asyncio."""
    if not iscoroutinefunction(session.flush):
        raise BulkError("A session without asyncio loads rows with copy_rows or upsert_rows.")
    await session.flush()
    connection = await session.connection(bind_arguments={"mapper": load.model})
    synchronous = cast("Connection", connection.sync_connection)
    driver = (await connection.get_raw_connection()).driver_connection
    if not isinstance(driver, psycopg.AsyncConnection):
        raise _other_driver(driver)
    load.check_transaction(synchronous, driver)
    async with aclosing(_asynchronous(given)) as remaining:
        first = await anext(remaining, NOTHING)
        if first is NOTHING:
            return load.done(0)
        steps = load.begin(first, synchronous)
        async with driver.cursor(row_factory=tuple_row) as cursor, aclosing(_tuples(load, first, remaining)) as tuples:
            writer = _AsyncWriter(cursor)
            try:
                count = await _run_async(cursor, writer, load, steps, tuples)
            except Exception as error:  # noqa: BLE001  raised below, where it has no context to show
                failure = load.explain(error, writer.refused)
                writer.refused = load.of_caller = None
            else:
                return load.done(count)
    if driver.closed and not connection.closed:
        await connection.invalidate()
    try:
        raise failure
    finally:
        del failure


async def _run_async(
    cursor: psycopg.AsyncCursor[Any],
    writer: _AsyncWriter,
    load: Load,
    steps: Steps,
    tuples: AsyncIterator[Sequence[Any]],
) -> int:
    load.register(cursor)
    outcome = None
    while True:
        try:
            step: Copy | Statement = next(steps) if outcome is None else steps.send(outcome)
        except StopIteration as end:
            count: int = end.value
            return count
        if isinstance(step, Copy):
            load.copied_into = step.into
            async with cursor.copy(step.query, writer=writer) as copy:
                copy.set_types(load.types())
                with taken(cursor.connection):
                    async for row in tuples:
                        try:
                            await copy.write_row(row)
                        except Exception:
                            load.stuck = row
                            raise
        else:
            await cursor.execute(step.query, prepare=False)
        outcome = Outcome(await cursor.fetchone() if cursor.description else None, cursor.rowcount)


async def _asynchronous(given: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any]:
    if not isinstance(given, AsyncIterable):
        for item in rows.items(given):
            yield item
        return
    # An asynchronous generator, unlike another, is not closed when nobody holds it any more.
    async with aclosing(given) if isinstance(given, AsyncGenerator) else nullcontext():
        async for item in given:
            yield item


async def _tuples(load: Load, first: Any, remaining: AsyncIterator[Any]) -> AsyncGenerator[Sequence[Any]]:
    try:
        for row in load.tuples((first,)):
            yield row
        async for item in remaining:
            for row in load.tuples((item,)):
                yield row
    except BulkError:
        raise
    except Exception as error:
        load.of_caller = error
        raise


def _other_driver(driver: Any) -> BulkError:
    return BulkError(
        f"Rows are loaded over psycopg 3 only, and this session's connection is of {type(driver).__module__};"
        " use an engine of syntegra_db.database."
    )
