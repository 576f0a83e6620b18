"""Blocks of COPY data: the rows of a load in parts, formatted while the server still writes the part before."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import psycopg
from psycopg.copy import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from psycopg.abc import Buffer

    from syntegra_db.bulk._job import LoadJob

Rows = TypeVar("Rows", "Iterator[Sequence[Any]]", "AsyncIterator[Sequence[Any]]")

# Sizes in bytes. A block grows with what was sent: the first ones let the server begin soon, and the subtransactions of
# 140 MB fit into the 64 that PostgreSQL keeps in memory for each session.
MIN_BLOCK = 128 * 1024
MAX_BLOCK = 4 * 1024 * 1024
BLOCKS_BEFORE_GROWTH = 8


class Block(Writer):
    """The data of a binary COPY of consecutive rows, or those before the error that ended them.

    Attributes:
        parts: the data.
        size: the number of bytes in `parts`.
        rows_before: the number of rows before the first one.
        rows: the number of rows, without one that could not be dumped.
        error: the error to raise in the COPY, so that an error of the server for an earlier row is not lost.
        failed_row: the row that could not be dumped, if that is the error.
    """

    def __init__(self, rows_before: int) -> None:
        self.parts: list[Buffer] = []
        self.size = 0
        self.rows_before = rows_before
        self.rows = 0
        self.error: BaseException | None = None
        self.failed_row: Sequence[Any] | None = None

    def write(self, data: Buffer) -> None:
        """Add `data` from psycopg's formatter."""
        self.parts.append(data)
        self.size += len(data)

    def raise_error(self, job: LoadJob) -> None:
        """Raise the error that ended the block, if any; an invalid value belongs to its row."""
        error, self.error = self.error, None
        if error is not None:
            job.failed_row = self.failed_row
            try:
                raise error
            finally:
                # The traceback has this frame.
                del error


class Blocks(Generic[Rows]):
    """The rows of a load in blocks, of which at most one is kept: the memory does not depend on their number.

    Attributes:
        rows: the rows that no block has yet.
        next: the block that is formatted and not sent yet, if any.
        more: whether there may be rows after the last block that was formatted.
    """

    def __init__(self, job: LoadJob, cursor: Any, rows: Rows) -> None:
        self.rows: Rows = rows
        self.next: Block | None = None
        self.more = False
        self._job, self._cursor = job, cursor
        self._size = 0

    @property
    def interrupted(self) -> bool:
        """Return whether an interruption, such as the cancellation of a task, ended the next block."""
        return self.next is not None and not isinstance(self.next.error, Exception | None)

    def fill(self: Blocks[Iterator[Sequence[Any]]]) -> None:
        """Format the next block, which keeps the error that ends it."""
        with self._formatting() as add:
            for row in self.rows:
                if add(row):
                    self.more = True
                    break

    async def fill_async(self: Blocks[AsyncIterator[Sequence[Any]]]) -> None:
        """Do the same as `fill` under asyncio."""
        with self._formatting() as add:
            async for row in self.rows:
                if add(row):
                    self.more = True
                    break

    def take(self) -> Block:
        """Return the next block, which is formatted, and forget it."""
        block, self.next = cast("Block", self.next), None
        return block

    @contextmanager
    def _formatting(self) -> Iterator[Callable[[Sequence[Any]], bool]]:
        """Yield the function that adds a row to the next block, and returns whether the block is full."""
        block = self.next = Block(self._job.row_count)
        self.more = False
        limit = min(MAX_BLOCK, max(MIN_BLOCK, self._size // BLOCKS_BEFORE_GROWTH))
        copy = psycopg.Copy(self._cursor, binary=True, writer=block)
        copy.set_types(self._job.column_oids())

        def add(row: Sequence[Any]) -> bool:
            try:
                copy.write_row(row)
            except Exception:
                block.failed_row = row
                raise
            block.rows += 1
            return block.size >= limit

        try:
            yield add
            copy.finish(None)
        except BaseException as error:  # noqa: BLE001  raised in the COPY of the block
            block.error = error
            if not isinstance(error, Exception):
                self._job.caller_error = error
        self._size += block.size
