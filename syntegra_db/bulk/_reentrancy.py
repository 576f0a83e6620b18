"""A connection that sends rows refuses whatever else is asked of it meanwhile."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from syntegra_db.bulk.errors import BulkLoadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg


class _RaisingLock:
    """Stands for a connection's lock, which its own thread or task would wait for without end."""

    def __enter__(self) -> NoReturn:
        raise BulkLoadError(
            "The session is sending rows: what yields them, and on_progress, need a session of their own."
        )

    async def __aenter__(self) -> NoReturn:
        self.__enter__()

    # `with` looks for the way out before it goes in.
    def __exit__(self, *_: object) -> None: ...
    async def __aexit__(self, *_: object) -> None: ...


@contextmanager
def forbid_reentrant_use(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> Iterator[None]:
    """Let `connection`, whose lock the caller holds, raise a `BulkLoadError` rather than wait for the lock."""
    lock: Any = connection.lock
    # psycopg does nothing else with a lock than enter it.
    connection.lock = _RaisingLock()  # type: ignore[assignment]
    try:
        yield
    finally:
        connection.lock = lock
