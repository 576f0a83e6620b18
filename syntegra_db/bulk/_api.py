"""The four functions that services call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from syntegra_db.bulk._execution import execute, execute_async
from syntegra_db.bulk._job import LoadJob

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from syntegra_db.models import Base


def copy_rows(
    session: Session,
    model: type[Base],
    rows: Iterable[Any],
    *,
    columns: Sequence[str] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Add `rows` to the table of `model` by binary COPY in the session's transaction, and return their number.

    Args:
        session: one whose connections are psycopg's. What waits in it is flushed first.
        model: the model of the table.
        rows: in any form that `syntegra_db.bulk` lists, of any length: they are read one at a time, or a batch. What
            yields them cannot use `session` meanwhile.
        columns: the columns that the rows have; needed where they cannot say it and do not have all columns but `id`.
        on_progress: called with the number of rows sent so far, each thousand rows and after the last.
            It cannot use `session` before that.

    Raises:
        RowRefused: a row cannot be stored as it is. It says which row and column, where the server tells.
        BulkError: the rows as a whole cannot be loaded, or the server did not take them for another reason.
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
    """Do the same as `copy_rows` under asyncio; `rows` may be asynchronous too."""
    return await execute_async(session, LoadJob(model, columns, None, on_progress), rows)


def upsert_rows(  # noqa: PLR0913  as copy_rows, and by what
    session: Session,
    model: type[Base],
    rows: Iterable[Any],
    *,
    key: Sequence[str],
    columns: Sequence[str] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Add `rows` to the table of `model`, or update the rows that have their `key`, and return how many were written.

    The rows are copied into a temporary table and go from there into the table in one statement: INSERT … ON CONFLICT
    where a unique key stands on exactly the columns of `key` and `rows` have every column that needs a value, else
    MERGE. An updated row keeps what `rows` do not have, but for `updated_at`, which becomes the transaction's time as
    in every update of the models. NULL in a key is equal to NULL. Where no unique key stands, all rows that have the
    key of a given one are updated and counted.

    A unique key excludes that two sessions add a row of the same key at once. Calls that use MERGE on the same table
    exclude each other, by an advisory lock that is held until the end of the transaction; other writers and readers do
    not wait for it, and without a unique key it does not keep them from adding such rows. An index that begins with the
    columns of the key makes the search fast; a column of the key with a NULL among `rows` is searched without it, and
    slowly where the others leave many rows.

    Objects of the session that were loaded before do not see the update until they are refreshed.

    Args:
        session: as in `copy_rows`; neither in AUTOCOMMIT nor two-phase.
        model: the model of the table.
        rows: as in `copy_rows`, no two with the same key.
        key: the columns that tell rows apart, such as `("client_id", "kpi_name", "period_start", "period_end")`. The
            rows have all of them, and their values fit an index, as a text of more than 2 kB does not.
        columns: as in `copy_rows`.
        on_progress: as in `copy_rows`.

    Raises:
        RowRefused: a row cannot be stored as it is, or has the key of an earlier one of the input.
        BulkError: the rows as a whole cannot be loaded, or the server did not take them for another reason.
    """
    return execute(session, LoadJob(model, columns, key, on_progress), rows)


async def async_upsert_rows(  # noqa: PLR0913  likewise
    session: AsyncSession,
    model: type[Base],
    rows: Iterable[Any] | AsyncIterable[Any],
    *,
    key: Sequence[str],
    columns: Sequence[str] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Do the same as `upsert_rows` under asyncio; `rows` may be asynchronous too."""
    return await execute_async(session, LoadJob(model, columns, key, on_progress), rows)
