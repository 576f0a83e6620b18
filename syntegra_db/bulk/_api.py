"""The public functions for bulk loads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from syntegra_db.bulk._execution import execute, execute_async
from syntegra_db.bulk._job import LoadJob

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from syntegra_db.models import Base

UPSERT_LOCK_SECONDS = 60


def copy_rows(
    session: Session,
    model: type[Base],
    rows: Iterable[Any],
    *,
    columns: Sequence[str] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Insert `rows` into the table of `model` with binary COPY in the session's transaction, and return their number.

    Args:
        session: a session over psycopg 3; its pending objects are flushed first. Under row-level security neither in
            AUTOCOMMIT nor two-phase.
        model: the model of the table.
        rows: any of the forms that `syntegra_db.bulk` lists. They are read one at a time, or one batch at a time; the
            code that yields them cannot use `session`.
        columns: the columns of the rows; required for tuples and lists that do not have all columns except `id`.
        on_progress: called with the number of rows sent so far, after each 1000 rows and after the last one. It cannot
            use `session` before the last call.

    Raises:
        RowRejected: a row cannot be stored; it has the row and the column if the server reports them.
        BulkLoadError: the input as a whole cannot be loaded, or the server rejected it for another reason.
    """
    return execute(session, LoadJob(model, columns, None, on_progress), rows)


async def async_copy_rows(
    session: AsyncSession,
    model: type[Base],
    rows: Iterable[Any] | AsyncIterable[Any],
    *,
    columns: Sequence[str] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Do the same as `copy_rows` under asyncio; `rows` may be an asynchronous iterable."""
    return await execute_async(session, LoadJob(model, columns, None, on_progress), rows)


def upsert_rows(  # noqa: PLR0913  the parameters of copy_rows, and the key
    session: Session,
    model: type[Base],
    rows: Iterable[Any],
    *,
    key: Sequence[str],
    columns: Sequence[str] | None = None,
    on_progress: Callable[[int], None] | None = None,
    lock_timeout: float = UPSERT_LOCK_SECONDS,
) -> int:
    """Insert `rows` into the table of `model`, update those whose `key` exists, and return how many were written.

    COPY loads the rows into a temporary table; then one statement writes them into the table: INSERT … ON CONFLICT if
    exactly the columns of `key` have a unique key and `rows` have every column that needs a value, otherwise MERGE. An
    update keeps the columns that `rows` do not have, except `updated_at`, which becomes the transaction's time as in
    every update of the models. NULL in a key equals NULL. Without a unique key, all rows with the same key are updated
    and counted.

    A unique key prevents two sessions from inserting the same key at once. Calls with MERGE on the same table wait for
    each other: they hold an advisory lock until the transaction ends. Other writers and readers do not wait for it, so
    without a unique key another writer can insert the same key. An index on the columns of the key makes the search
    fast; it cannot be used for a column of the key in which a row has NULL.

    Under row-level security, a key is searched among the rows that the policies show. If ON CONFLICT finds it in a
    hidden row, the row is rejected with the SQLSTATE 42501. MERGE inserts a row, unless a unique key of the table
    rejects it.

    Objects that the session has already loaded show the update only after a refresh.

    Args:
        session: as in `copy_rows`; neither in AUTOCOMMIT nor two-phase.
        model: the model of the table.
        rows: as in `copy_rows`; no two rows with the same key.
        key: the columns that identify a row, such as `("client_id", "kpi_name", "period_start", "period_end")`. The
            rows have all of them, and their values fit an index: a text of more than 2 kB does not.
        columns: as in `copy_rows`.
        on_progress: as in `copy_rows`.
        lock_timeout: how many seconds to wait for the other calls with MERGE, at most 2,147,483; a smaller
            `lock_timeout` of the session takes precedence.

    Raises:
        BulkLockTimeout: another call, or another transaction with a lock on the table, did not end in time.
        RowRejected: a row cannot be stored, or has the same key as an earlier row of the input.
        BulkLoadError: the input as a whole cannot be loaded, or the server rejected it for another reason.
    """
    return execute(session, LoadJob(model, columns, key, on_progress, lock_timeout), rows)


async def async_upsert_rows(  # noqa: PLR0913  the parameters of upsert_rows
    session: AsyncSession,
    model: type[Base],
    rows: Iterable[Any] | AsyncIterable[Any],
    *,
    key: Sequence[str],
    columns: Sequence[str] | None = None,
    on_progress: Callable[[int], None] | None = None,
    lock_timeout: float = UPSERT_LOCK_SECONDS,
) -> int:
    """Do the same as `upsert_rows` under asyncio; `rows` may be an asynchronous iterable."""
    return await execute_async(session, LoadJob(model, columns, key, on_progress, lock_timeout), rows)
