"""Check that a database is at the newest revision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine
from sqlalchemy.util import greenlet_spawn

from syntegra_db.catalog import require_usable_revision
from syntegra_db.compatibility import supports_package
from syntegra_db.connections import connect
from syntegra_db.errors import DatabaseBehind
from syntegra_db.revisions import current_revision, describe_revision, head_revision
from syntegra_db.settings import describe_database
from syntegra_db.sql import one_transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


async def async_require_head(bind: AsyncEngine | AsyncConnection) -> None:
    """Do the same as `require_head` under asyncio: same errors."""
    from sqlalchemy.ext.asyncio import AsyncEngine

    await greenlet_spawn(require_head, bind.sync_engine if isinstance(bind, AsyncEngine) else bind.sync_connection)


def require_head(bind: Engine | Connection) -> None:
    """Raise unless services of this package work on the database's schema; services call it when they start.

    It is at this package's newest revision, or at a later one with only expansions in between, which the version table
    says. With an asyncio engine, use `async_require_head`.

    Raises:
        DatabaseBehind: it is at an older revision, or at no revision; the message says what to run.
        TablesInOtherSchema: the search_path leads to a schema without tables, and another schema has them.
        DatabaseAhead: it is at a revision that this package does not know, and on which its services do not work.
        ConnectionFailed: no connection could be opened; one of its subclasses says why.
    """
    if isinstance(bind, Engine):
        with connect(bind) as connection:
            require_head(connection)
        return
    with one_transaction(bind):
        revision = current_revision(bind)
        if supports_package(bind, revision):
            return
        require_usable_revision(bind, revision)
    head = head_revision()
    if revision != head:
        raise DatabaseBehind(
            f"The {describe_database(bind.engine.url)} is at {describe_revision(revision)}, but revision "
            f"{head} is required. Run `syntegra-db upgrade head`."
        )
