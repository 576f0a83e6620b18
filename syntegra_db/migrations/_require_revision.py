"""Check that a database is at the revision that a service needs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine
from sqlalchemy.util import greenlet_spawn

from syntegra_db.catalog import require_usable_revision, short_lock_timeout
from syntegra_db.compatibility import supports_package
from syntegra_db.connections import connect
from syntegra_db.errors import DatabaseBehind, RevisionError
from syntegra_db.recorded_steps import read_unfinished_revision
from syntegra_db.revisions import (
    all_revisions,
    current_revision,
    describe_revision,
    head_revision,
    list_revisions,
    position_of,
)
from syntegra_db.settings import describe_database
from syntegra_db.sql import one_transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


async def async_require_head(bind: AsyncEngine | AsyncConnection) -> None:
    """Do the same as `require_head` under asyncio: same errors."""
    await greenlet_spawn(require_head, _synchronous(bind))


async def async_require_revision(bind: AsyncEngine | AsyncConnection, *, at_least: str) -> None:
    """Do the same as `require_revision` under asyncio: same errors."""
    await greenlet_spawn(partial(require_revision, at_least=at_least), _synchronous(bind))


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
    require_revision(bind, at_least=head_revision())


def require_revision(bind: Engine | Connection, *, at_least: str) -> None:
    """Raise unless the database is at revision `at_least` or later, on which services of this package work.

    For a service that needs less than this package's newest revision, so that it can start before the upgrade. A later
    revision that this package does not know counts as `require_head` says. With an asyncio engine, use
    `async_require_revision`.

    Raises:
        RevisionError: this package has no revision `at_least`.
        DatabaseBehind, TablesInOtherSchema, DatabaseAhead, ConnectionFailed: see `require_head`.
    """
    if at_least not in all_revisions():
        raise RevisionError(f"There is no revision {at_least}. {list_revisions()}")
    if isinstance(bind, Engine):
        with connect(bind) as connection:
            require_revision(connection, at_least=at_least)
        return
    with one_transaction(bind):
        revision = current_revision(bind)
        if supports_package(bind, revision):
            return
        require_usable_revision(bind, revision)
    if position_of(revision) < position_of(at_least):
        required = at_least if at_least == head_revision() else f"{at_least} or later"
        raise DatabaseBehind(
            f"The {describe_database(bind.engine.url)} is at {describe_revision(revision)}, but revision {required} is "
            "required. Run `syntegra-db upgrade head`."
        )


def read_required_revision(engine: Engine, *, at_least: str) -> str | None:
    """Return the revision of the database, which passes `require_revision`, without waiting for long for a lock.

    Unlike a service that starts, a pipeline also needs to know whether the schema is that of the revision.

    Raises:
        LockTimeout: see `short_lock_timeout`.
        RevisionError: this package has no revision `at_least`, or the downgrade of the revision is unfinished.
        DatabaseBehind, TablesInOtherSchema, DatabaseAhead, ConnectionFailed: see `require_head`.
    """
    with connect(engine) as connection, short_lock_timeout(connection):
        require_revision(connection, at_least=at_least)
        unfinished = read_unfinished_revision(connection)
        if unfinished is not None and unfinished.direction == "downgrade":
            raise RevisionError(
                f"The {describe_database(engine.url)} is not complete: {unfinished}. {unfinished.instructions}"
            )
        return current_revision(connection)


def _synchronous(bind: AsyncEngine | AsyncConnection) -> Engine | Connection | None:
    from sqlalchemy.ext.asyncio import AsyncEngine

    return bind.sync_engine if isinstance(bind, AsyncEngine) else bind.sync_connection
