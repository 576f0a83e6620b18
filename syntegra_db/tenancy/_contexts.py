"""`with client(session, 7):` and its asyncio counterpart."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from syntegra_db.errors import UnsupportedSession, server_message
from syntegra_db.tenancy._sessions import ClientSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from syntegra_db.tenancy._blocks import Block, ClientBlocks


@contextmanager
def client(session: Session | scoped_session[Any], client_id: int) -> Iterator[None]:
    """Let `session` read and write the rows of one client inside the block, and only those.

    Entering and leaving flush. Inside an outer block, its client and its objects are restored at the end; until then
    these objects are detached. A commit, a rollback and an error inside change nothing of that.

    Args:
        session: one of `syntegra_db.tenancy.session_factory`.
        client_id: the client, as in the column `client_id`.

    Raises:
        InvalidClient: `client_id` is not an integer of 64 bits.
        UnsupportedSession: the session is of another class, in autocommit, or two-phase.
    """
    blocks = _client_session(session() if isinstance(session, scoped_session) else session).blocks
    block = blocks.enter(client_id)
    try:
        yield
    except BaseException as error:
        _leave_after(session, error=error, blocks=blocks, block=block)
        raise
    blocks.leave(block)


@asynccontextmanager
async def async_client(session: AsyncSession | async_scoped_session[Any], client_id: int) -> AsyncIterator[None]:
    """Do the same as `client` for a session of `async_session_factory`: same errors."""
    asynchronous = session() if isinstance(session, async_scoped_session) else session
    if not isinstance(asynchronous, AsyncSession):
        raise UnsupportedSession(
            "async_client needs an AsyncSession of async_session_factory; use client for a Session."
        )
    blocks = _client_session(asynchronous.sync_session).blocks
    block = await asynchronous.run_sync(lambda _: blocks.enter(client_id))
    try:
        yield
    except BaseException as error:
        await asynchronous.run_sync(partial(_leave_after, error=error, blocks=blocks, block=block))
        raise
    await asynchronous.run_sync(lambda _: blocks.leave(block))


def _client_session(session: object) -> ClientSession:
    if isinstance(session, AsyncSession):
        raise UnsupportedSession("client needs a Session of session_factory; use async_client for an AsyncSession.")
    if not isinstance(session, ClientSession):
        raise UnsupportedSession(
            f"A {type(session).__name__} sets no client in its transactions. Create the session with session_factory "
            "or async_session_factory of syntegra_db.tenancy, or with class_=ClientSession."
        )
    return session


def _leave_after(_session: object, *, error: BaseException, blocks: ClientBlocks, block: Block) -> None:
    """Leave the block that `error` ends; an error of the flush is a note of it, and the session demands a rollback."""
    try:
        blocks.leave(block)
    except Exception as failure:  # noqa: BLE001  the error of the block is raised
        error.add_note(f"The changes of the block could not be written either: {server_message(failure)}")
