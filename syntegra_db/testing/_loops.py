"""Close what a test opened in an event loop that does not run any more."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


def close_session(session: AsyncSession) -> None:
    """Close the connection of a session that is in a transaction, without waiting for the server.

    psycopg closes a connection in any loop. Another thread, because this one may have a loop.
    """
    if session.in_transaction():
        with ThreadPoolExecutor(max_workers=1) as executor:
            executor.submit(lambda: asyncio.run(session.invalidate())).result()
