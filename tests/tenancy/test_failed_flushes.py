"""The client of a session after a flush that failed in a savepoint, which leaves the session without statements."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import DBAPIError

from syntegra_db.errors import RowOfOtherClient
from syntegra_db.models import Cluster
from syntegra_db.tenancy import client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.servers import Database
    from syntegra_db.tenancy import ClientSession

TABLE: Any = Cluster.__table__


def rejected(session: ClientSession) -> None:
    session.add(Cluster(client_id=8, silhouette_score=5))
    session.flush()


def rejected_at_the_end(session: ClientSession) -> None:
    session.add(Cluster(client_id=8, silhouette_score=5))


def of_another_client(session: ClientSession) -> None:
    session.add(Cluster(client_id=7))
    session.flush()


def in_an_inner_savepoint(session: ClientSession) -> None:
    with session.begin_nested():
        rejected(session)


@contextmanager
def savepoint(session: ClientSession, end: str) -> Iterator[None]:
    """Make a savepoint that ends with the block, or by its method `end`."""
    made = session.begin_nested()
    if end == "with":
        with made:
            yield
        return
    try:
        yield
    finally:
        getattr(made, end)()


@pytest.mark.parametrize("fail", [rejected, rejected_at_the_end, of_another_client, in_an_inner_savepoint])
@pytest.mark.parametrize("end", ["with", "close", "rollback"])
@pytest.mark.parametrize("outer", [7, None])
def test_savepoint_with_a_failed_flush_gives_the_outer_client_back(
    session: ClientSession,
    outer: int | None,
    end: str,
    fail: Callable[[ClientSession], None],
) -> None:
    with nullcontext() if outer is None else client(session, outer):
        session.execute(select(Cluster))
        with pytest.raises((DBAPIError, RowOfOtherClient)), savepoint(session, end), client(session, 8):
            fail(session)
        assert session.client_id == outer
        assert session.scalar(select(func.current_setting("syntegra.client_id"))) == str(outer or "")
        assert set(session.scalars(select(TABLE.c.client_id))) == {outer} - {None}
        changed: Any = session.execute(update(TABLE).where(TABLE.c.client_id == 8).values(cluster_name="x"))
        assert changed.rowcount == 0
        with pytest.raises(RowOfOtherClient):
            session.execute(insert(TABLE).values(client_id=8))


def test_savepoint_without_a_change_of_client_needs_no_statement_at_its_end(
    session: ClientSession, protected: Database
) -> None:
    with client(session, 7):
        pid = session.scalar(select(func.pg_backend_pid()))
        for end in ("with", "rollback"):
            with savepoint(session, end):
                session.execute(select(Cluster))
            with protected.connect() as observer:
                [last] = observer.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone() or [""]
            assert "SAVEPOINT" in last
            assert session.scalar(select(func.current_setting("syntegra.client_id"))) == "7"
