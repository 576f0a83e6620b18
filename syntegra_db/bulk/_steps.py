"""Perform the steps of a load on a connection, with and without asyncio."""

from __future__ import annotations

from contextlib import aclosing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn, cast

import psycopg
from psycopg.copy import AsyncLibpqWriter, LibpqWriter
from psycopg.rows import tuple_row

from syntegra_db.bulk._blocks import Blocks
from syntegra_db.bulk._stage import CopyStep, StepResult, WriteStep
from syntegra_db.errors import BulkLoadError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence

    from syntegra_db.bulk._job import LoadJob
    from syntegra_db.bulk._stage import Step, Steps

# How long to wait until the server has received the cancellation of a statement.
CANCEL_SECONDS = 5


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
    """Replaces the lock of a connection while rows are read: a task that holds the real lock would wait forever."""

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
    """Raise `BulkLoadError` for any other use of `connection` inside the block."""
    lock: Any = connection.lock
    # psycopg only enters a lock.
    connection.lock = _RaisingLock()  # type: ignore[assignment]
    try:
        yield
    finally:
        connection.lock = lock


def run_steps(driver: psycopg.Connection[Any], job: LoadJob, steps: Steps, items: Iterable[Any]) -> int:
    """Perform the steps of `job` with the rows of `items`, and return how many were written."""
    with driver.cursor(row_factory=tuple_row) as cursor, driver.cursor() as formatter:
        job.register_dumpers(cursor, formatter)
        blocks = Blocks(job, formatter, job.counted_rows(items))
        result: StepResult | psycopg.Error | None = None
        try:
            while not isinstance(step := _advance(steps, result), int):
                try:
                    result = _perform(driver, cursor, job, blocks, step)
                except psycopg.Error as error:
                    # An error of the caller's rows has priority, so the rejected row need not be found.
                    if isinstance(step, CopyStep) or job.caller_error is not None:
                        raise
                    result = error
            return step
        finally:
            # Break cycles: the traceback of an error has this frame, or that of `fill`.
            blocks.next = None
            del result


def _perform(
    driver: psycopg.Connection[Any],
    cursor: psycopg.Cursor[Any],
    job: LoadJob,
    blocks: Blocks[Iterator[Sequence[Any]]],
    step: Step,
) -> StepResult:
    if isinstance(step, CopyStep):
        if step.in_blocks:
            return _copy_block(driver, cursor, job, blocks, step)
        _copy_rows(driver, cursor, job, blocks.rows, step)
    elif isinstance(step, WriteStep):
        with driver.pipeline() if blocks.more and psycopg.Pipeline.is_supported() else nullcontext():
            # In pipeline mode, this does not wait for the result.
            cursor.execute(step.query, prepare=False)
            if blocks.more:
                with _forbid_reentrant_use(driver):
                    blocks.fill()
                if blocks.interrupted:
                    # A cancellation that arrives before the statement has no effect, so it is not waited for.
                    driver.cancel_safe(timeout=CANCEL_SECONDS)
                    driver.close()
    else:
        cursor.execute(step, prepare=False)
    while cursor.nextset():
        pass
    return StepResult(cursor.fetchone() if cursor.description else None, cursor.rowcount)


def _copy_rows(
    driver: psycopg.Connection[Any],
    cursor: psycopg.Cursor[Any],
    job: LoadJob,
    rows: Iterator[Sequence[Any]],
    step: CopyStep,
) -> None:
    job.begin_copy(step.table)
    with cursor.copy(step.query, writer=_SilentWriter(cursor, job)) as copy, _forbid_reentrant_use(driver):
        copy.set_types(job.column_oids())
        write = copy.write_row
        for row in rows:
            try:
                write(row)
            except Exception:
                job.failed_row = row
                raise


def _copy_block(
    driver: psycopg.Connection[Any],
    cursor: psycopg.Cursor[Any],
    job: LoadJob,
    blocks: Blocks[Iterator[Sequence[Any]]],
    step: CopyStep,
) -> StepResult:
    if blocks.next is None:
        with _forbid_reentrant_use(driver):
            blocks.fill()
    block = blocks.take()
    if block.rows or block.error:
        job.begin_copy(step.table, block.rows_before)
        with cursor.copy(step.query, writer=_SilentWriter(cursor, job)) as copy:
            for part in block.parts:
                copy.write(part)
            block.raise_error(job)
    return StepResult(None, block.rows, blocks.more)


async def run_steps_async(
    driver: psycopg.AsyncConnection[Any], job: LoadJob, steps: Steps, rows: AsyncGenerator[Sequence[Any]]
) -> int:
    """Do the same as `run_steps` under asyncio, with rows that are counted."""
    async with driver.cursor(row_factory=tuple_row) as cursor, driver.cursor() as formatter, aclosing(rows):
        job.register_dumpers(cursor, formatter)
        blocks = Blocks(job, formatter, rows)
        result: StepResult | psycopg.Error | None = None
        try:
            while not isinstance(step := _advance(steps, result), int):
                try:
                    result = await _perform_async(driver, cursor, job, blocks, step)
                except psycopg.Error as error:
                    # An error of the caller's rows has priority, so the rejected row need not be found.
                    if isinstance(step, CopyStep) or job.caller_error is not None:
                        raise
                    result = error
            return step
        finally:
            # Break cycles: the traceback of an error has this frame, or that of `fill`.
            blocks.next = None
            del result


async def _perform_async(
    driver: psycopg.AsyncConnection[Any],
    cursor: psycopg.AsyncCursor[Any],
    job: LoadJob,
    blocks: Blocks[AsyncIterator[Sequence[Any]]],
    step: Step,
) -> StepResult:
    if isinstance(step, CopyStep):
        if step.in_blocks:
            return await _copy_block_async(driver, cursor, job, blocks, step)
        await _copy_rows_async(driver, cursor, job, blocks.rows, step)
    elif isinstance(step, WriteStep):
        async with driver.pipeline() if blocks.more and psycopg.Pipeline.is_supported() else nullcontext():
            # In pipeline mode, this does not wait for the result.
            await cursor.execute(step.query, prepare=False)
            if blocks.more:
                with _forbid_reentrant_use(driver):
                    await blocks.fill_async()
                if blocks.interrupted:
                    # A cancellation that arrives before the statement has no effect, so it is not waited for.
                    await driver.cancel_safe(timeout=CANCEL_SECONDS)
                    await driver.close()
    else:
        await cursor.execute(step, prepare=False)
    while cursor.nextset():
        pass
    return StepResult(await cursor.fetchone() if cursor.description else None, cursor.rowcount)


async def _copy_rows_async(
    driver: psycopg.AsyncConnection[Any],
    cursor: psycopg.AsyncCursor[Any],
    job: LoadJob,
    rows: AsyncIterator[Sequence[Any]],
    step: CopyStep,
) -> None:
    job.begin_copy(step.table)
    async with cursor.copy(step.query, writer=_AsyncSilentWriter(cursor, job)) as copy:
        copy.set_types(job.column_oids())
        with _forbid_reentrant_use(driver):
            async for row in rows:
                try:
                    await copy.write_row(row)
                except Exception:
                    job.failed_row = row
                    raise


async def _copy_block_async(
    driver: psycopg.AsyncConnection[Any],
    cursor: psycopg.AsyncCursor[Any],
    job: LoadJob,
    blocks: Blocks[AsyncIterator[Sequence[Any]]],
    step: CopyStep,
) -> StepResult:
    if blocks.next is None:
        with _forbid_reentrant_use(driver):
            await blocks.fill_async()
    block = blocks.take()
    if block.rows or block.error:
        job.begin_copy(step.table, block.rows_before)
        async with cursor.copy(step.query, writer=_AsyncSilentWriter(cursor, job)) as copy:
            for part in block.parts:
                await copy.write(part)
            block.raise_error(job)
    return StepResult(None, block.rows, blocks.more)


def _advance(steps: Steps, result: StepResult | psycopg.Error | None) -> Step | int:
    """Return the next step after `result` of the last one, or the number of written rows after the last step."""
    try:
        return steps.throw(result) if isinstance(result, psycopg.Error) else steps.send(cast("Any", result))
    except StopIteration as end:
        return cast("int", end.value)
    finally:
        # Break the cycle: the traceback of an error has this frame.
        del result
