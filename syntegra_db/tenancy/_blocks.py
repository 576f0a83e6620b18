"""The blocks of a session that have a client: entering and leaving them, and what a rollback does in between."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from syntegra_db.errors import InvalidClient, UnsupportedSession
from syntegra_db.sql import BIGINT
from syntegra_db.tenancy._identities import ClientRows
from syntegra_db.tenancy._results import OpenResults
from syntegra_db.tenancy._setting import is_in_autocommit, is_usable, set_client

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session, SessionTransaction


@dataclass(eq=False)
class Block:
    """A block with a client, and what its end restores."""

    outer_client: int | None
    outer_rows: list[object] = field(default_factory=list)
    # The transaction and the savepoints in which these rows were loaded or changed.
    transactions: list[SessionTransaction] = field(default_factory=list)
    rolled_back: bool = False


class ClientBlocks:
    """The blocks that a session is in, the innermost of which gives its client."""

    def __init__(self, session: Session) -> None:
        self.client_id: int | None = None
        self.results = OpenResults()
        self._session = session
        self._rows = ClientRows(session)
        self._blocks: list[Block] = []
        self._connections: list[Connection] = []
        # Whether a rollback to an open savepoint reverts the setting to that of another client.
        self._is_revertible = False

    def enter(self, client_id: Any) -> Block:
        """Flush, and give the session the client `client_id`; its previous one is restored by `leave`.

        Raises:
            InvalidClient: `client_id` is not an integer of 64 bits.
        """
        validated = _validate(client_id)
        block = Block(self.client_id)
        if validated != self.client_id:
            self._flush()
            block.transactions = _open_transactions(self._session)
            block.outer_rows = self._rows.remove_others(validated)
        self._blocks.append(block)
        try:
            self._switch(validated)
        except BaseException:
            self._restore(block)
            raise
        return block

    def leave(self, block: Block) -> None:
        """Flush, and restore the client and the rows from before `block`; blocks inside it end too."""
        if block not in self._blocks:
            return
        try:
            if self.client_id != block.outer_client:
                self._flush()
        finally:
            self._restore(block)

    def begin(self, connection: Connection) -> None:
        """Set the client, or none, in the transaction that `connection` began; after an error it cannot be used."""
        try:
            _require_transaction(self._session, connection)
            set_client(connection, self.client_id)
        except BaseException as error:
            # SQLAlchemy would use it for the next statement, without the setting.
            if not connection.invalidated:
                connection.invalidate(error)
            raise
        self._connections.append(connection)

    def end(self) -> None:
        """Remove the client from a transaction that goes on without the session, which is of the caller."""
        self.results.forget_streams()
        connections, self._connections = self._connections, []
        for connection in connections:
            if not connection.closed and connection.in_transaction() and is_usable(connection):
                set_client(connection, None)

    def end_savepoint(self) -> None:
        """Set the client again: its rollback reverted the setting, and after a failed flush no client could be set."""
        if self._is_revertible:
            self._is_revertible = self._session.in_nested_transaction()
            self._apply()

    def roll_back(self, transaction: SessionTransaction) -> None:
        """Remember for the ends of the blocks that a rollback expires their rows."""
        if transaction.nested:
            self.results.check_cursors()
        for block in self._blocks:
            block.rolled_back |= transaction in block.transactions

    def restore_deleted(self, row: object) -> None:
        """Detach a row that a rollback restores unless it belongs to the client; its own outer block gets it back."""
        client_id = self._rows.client_of(row)
        if self.client_id in {None, client_id}:
            return
        self._session.expunge(row)
        for block in reversed(self._blocks):
            if block.outer_client == client_id:
                block.outer_rows.append(row)
                return

    def forget_rows(self) -> None:
        """Leave the rows of outer blocks detached, as those of a session that was closed."""
        for block in self._blocks:
            block.outer_rows.clear()

    def _flush(self) -> None:
        if self._session.is_active and all(map(is_usable, self._connections)):
            self._session.flush()

    def _switch(self, client_id: int | None) -> None:
        if client_id != self.client_id:
            self.client_id = client_id
            self._is_revertible |= self._session.in_nested_transaction()
            try:
                self.results.close()
            finally:
                self._apply()

    def _apply(self) -> None:
        # After a failed flush SQLAlchemy holds a connection whose transaction or savepoint has ended.
        if self._session.is_active:
            for connection in filter(is_usable, self._connections):
                set_client(connection, self.client_id)

    def _restore(self, block: Block) -> None:
        ended = self._blocks[self._blocks.index(block) :]
        del self._blocks[-len(ended) :]
        if block.outer_client is not None:
            self._rows.remove_others(block.outer_client)
        elif self.client_id is not None:
            self._rows.remember_client(self.client_id)
        try:
            self._switch(block.outer_client)
        finally:
            for inner in ended:
                if inner.outer_client == block.outer_client:
                    self._rows.attach_again(inner.outer_rows, expired=inner.rolled_back)


def _validate(client_id: Any) -> int:
    if not isinstance(client_id, int) or isinstance(client_id, bool):
        raise InvalidClient(
            f"A client is given by its id, an integer, not by a value of type {type(client_id).__name__}."
        )
    if client_id not in BIGINT:
        raise InvalidClient("The id of a client is an integer of at most 64 bits; this one is larger.")
    return int(client_id)


def _open_transactions(session: Session) -> list[SessionTransaction]:
    transactions = []
    transaction = session.get_nested_transaction() or session.get_transaction()
    while transaction is not None:
        transactions.append(transaction)
        transaction = transaction.parent
    return transactions


def _require_transaction(session: Session, connection: Connection) -> None:
    if session.twophase:
        raise UnsupportedSession(
            "A session with two-phase commit cannot hold a client, because a prepared transaction outlives the "
            "setting. Use a session without twophase=True."
        )
    if is_in_autocommit(connection):
        raise UnsupportedSession(
            "A session on a connection in autocommit cannot hold a client, because the setting lasts for one "
            "transaction, which is one statement there. Remove isolation_level='AUTOCOMMIT' from the engine or the "
            "connection, or use a second engine for such statements."
        )
