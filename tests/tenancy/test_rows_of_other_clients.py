"""A row of another client is rejected with the package's error, in every way that a session writes."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import ProgrammingError, SAWarning
from sqlalchemy.orm.exc import StaleDataError

from support.clients import READER
from syntegra_db import errors
from syntegra_db.database import create_engine
from syntegra_db.errors import RowOfOtherClient, SyntegraDBError
from syntegra_db.models import Cluster, TrendSignal
from syntegra_db.tenancy import ClientSession, RowHidden, client, session_factory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session

    from support.servers import Database

VALUES: dict[str, Any] = {"client_id": 8, "cluster_id": 424242, "features_json": {}}
UPSERT = postgresql.insert(Cluster).values(VALUES)


def add(session: Session) -> None:
    session.add(Cluster(**VALUES))
    session.flush()


def change_client(session: Session) -> None:
    session.scalars(select(Cluster).where(Cluster.client_id == 7)).one().client_id = 8
    session.flush()


WRITES: dict[str, Callable[[Session], Any]] = {
    "flush": add,
    "flush of a change": change_client,
    "ORM insert": lambda session: session.execute(insert(Cluster), [VALUES, VALUES]),
    "ORM update": lambda session: session.execute(update(Cluster).values(client_id=8)),
    "Core insert": lambda session: session.execute(insert(Cluster.__table__).values(VALUES)),  # type: ignore[arg-type]
    "connection": lambda session: session.connection().execute(insert(Cluster.__table__), [VALUES]),  # type: ignore[arg-type]
    "upsert": lambda session: session.execute(
        UPSERT.on_conflict_do_update(index_elements=["id"], set_={"cluster_id": 1})
    ),
    "text": lambda session: session.execute(
        text("INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (8, 424242, '{}')")
    ),
}


@pytest.mark.each("write")
@pytest.mark.parametrize("write", WRITES)
def test_row_of_other_client_is_named_without_its_values(session: ClientSession, write: str) -> None:
    with client(session, 7):
        with pytest.raises(RowOfOtherClient, match="the table clusters") as error:
            WRITES[write](session)
        assert error.value.sqlstate == "42501"
        assert "424242" not in str(error.value)
        session.rollback()
        assert session.scalar(text("SELECT count(*) FROM clusters")) == 1


def test_row_without_client_is_rejected(session: ClientSession) -> None:
    with pytest.raises(RowOfOtherClient, match="no client is set"):
        add(session)
    session.rollback()


def test_row_of_other_client_is_named_under_asyncio(
    run: Callable[[Callable[[async_sessionmaker[AsyncSession]], Awaitable[Any]]], Any],
) -> None:
    from syntegra_db.tenancy import async_client

    async def write(factory: async_sessionmaker[AsyncSession]) -> None:
        async with factory() as session, async_client(session, 7):
            session.add(Cluster(**VALUES))
            with pytest.raises(RowOfOtherClient) as error:
                await session.commit()
            assert error.value.sqlstate == "42501"
            await session.rollback()

    run(write)


def test_missing_privilege_stays_database_error(session: ClientSession, protected: Database) -> None:
    with client(session, 7):
        with pytest.raises(ProgrammingError, match="permission denied"):
            session.execute(insert(TrendSignal.__table__), [{"id": 1}])  # type: ignore[arg-type]
        session.rollback()
    engine = create_engine(protected.url_as(READER))
    with session_factory(engine)() as reader, client(reader, 8):
        with pytest.raises(ProgrammingError, match="permission denied"):
            add(reader)
        reader.rollback()
    engine.dispose()


def test_hidden_row_is_explained(session: ClientSession) -> None:
    with client(session, 7):
        row = session.scalars(select(Cluster)).one()
        session.connection().execute(text("SELECT set_config('syntegra.client_id', '8', true)"))
        row.cluster_id = 424242
        with pytest.raises(RowHidden, match="the client that is set does not own it") as error:
            session.commit()
        session.rollback()
    assert isinstance(error.value, StaleDataError)
    assert isinstance(error.value, SyntegraDBError)
    assert "424242" not in str(error.value)


def test_deleted_hidden_row_is_a_warning_of_sqlalchemy(session: ClientSession) -> None:
    with client(session, 7):
        row = session.scalars(select(Cluster)).one()
    session.delete(row)
    with pytest.warns(SAWarning, match="expected to delete 1 row"):
        session.commit()
    with client(session, 7):
        assert len(session.scalars(select(Cluster)).all()) == 1


def test_error_is_the_same_in_another_process(session: ClientSession) -> None:
    with pytest.raises(RowOfOtherClient) as error, client(session, 7):
        add(session)
    copy = pickle.loads(pickle.dumps(error.value))  # noqa: S301  pickled here
    assert (type(copy), str(copy), copy.sqlstate) == (RowOfOtherClient, str(error.value), "42501")


@pytest.mark.parametrize("name", [name for name in errors.__all__ if isinstance(getattr(errors, name), type)])
def test_every_error_can_be_pickled(name: str) -> None:
    error = getattr(errors, name)("message")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  pickled here
    assert (type(copy), str(copy), vars(copy)) == (type(error), "message", vars(error))
