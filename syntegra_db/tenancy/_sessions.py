"""Sessions that have one client at a time, and their factories."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.orm.exc import StaleDataError

from syntegra_db.tenancy._blocks import ClientBlocks
from syntegra_db.tenancy._criteria import add_criteria
from syntegra_db.tenancy._row_errors import explain_missing_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Engine, Result
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
    from sqlalchemy.orm import ORMExecuteState, SessionTransaction


class ClientSession(Session):
    """A session whose transactions set a client, for the policies of the tables.

    `syntegra_db.tenancy.client` gives it one for a block; outside of such blocks no client is set, and no client's row
    is visible. With a client, each ORM statement also gets the condition on `client_id`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.blocks = ClientBlocks(self)
        super().__init__(*arguments, **options)

    @property
    def client_id(self) -> int | None:
        """The client of the innermost block, or None outside of blocks."""
        return self.blocks.client_id

    if not TYPE_CHECKING:  # The overloads of SQLAlchemy stay the types.

        def execute(self, *arguments: Any, **options: Any) -> Any:
            """Execute a statement as SQLAlchemy does; a change of client closes the result."""
            result = super().execute(*arguments, **options)
            self.blocks.results.add(result)
            return result

        def scalars(self, *arguments: Any, **options: Any) -> Any:
            """Return the first column of the rows as SQLAlchemy does; a change of client closes the result."""
            return self.execute(*arguments, **options).scalars()

    def flush(self, objects: Sequence[Any] | None = None) -> None:
        """Flush as SQLAlchemy does.

        Raises:
            RowHidden: a changed row was deleted, or belongs to another client.
            RowOfOtherClient: a row has another client's `client_id`.
        """
        with _missing_rows_explained(self):
            super().flush(objects)

    def bulk_save_objects(self, *arguments: Any, **options: Any) -> None:
        """Save objects as SQLAlchemy does, with the errors of `flush`."""
        with _missing_rows_explained(self):
            super().bulk_save_objects(*arguments, **options)

    def bulk_update_mappings(self, *arguments: Any, **options: Any) -> None:
        """Update rows as SQLAlchemy does, with the errors of `flush`."""
        with _missing_rows_explained(self):
            super().bulk_update_mappings(*arguments, **options)

    def expunge_all(self) -> None:
        """Remove all rows from the session, also those of outer blocks."""
        super().expunge_all()
        self.blocks.forget_rows()


def session_factory(engine: Engine) -> sessionmaker[ClientSession]:
    """Return a factory of sessions for `client`; their objects stay readable after a commit."""
    return sessionmaker(engine, class_=ClientSession, expire_on_commit=False)


def async_session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Return a factory of asyncio sessions for `async_client`; their objects stay readable after a commit."""
    from sqlalchemy.ext.asyncio import async_sessionmaker

    return async_sessionmaker(engine, sync_session_class=ClientSession, expire_on_commit=False)


@event.listens_for(ClientSession, "after_begin")
def _begin(session: ClientSession, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.parent is None:
        session.blocks.begin(connection)


@event.listens_for(ClientSession, "after_soft_rollback")
def _roll_back(session: ClientSession, transaction: SessionTransaction) -> None:
    session.blocks.roll_back(transaction)


@event.listens_for(ClientSession, "deleted_to_persistent")
def _restore_deleted(session: ClientSession, row: object) -> None:
    session.blocks.restore_deleted(row)


@event.listens_for(ClientSession, "after_transaction_end")
def _end(session: ClientSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.blocks.end()
    elif transaction.nested:
        session.blocks.end_savepoint()


@event.listens_for(ClientSession, "do_orm_execute")
def _restrict(state: ORMExecuteState) -> Result[Any] | None:
    session = state.session
    if not isinstance(session, ClientSession):
        return None
    if session.client_id is not None:
        add_criteria(state, session.client_id)
    if not state.is_update or not state.is_executemany:
        return None
    # An update by primary key, which must find each row as a flush does.
    with _missing_rows_explained(session):
        return state.invoke_statement()


@contextmanager
def _missing_rows_explained(session: ClientSession) -> Iterator[None]:
    try:
        yield
    except StaleDataError as error:
        raise explain_missing_row(error, session.client_id) from error
