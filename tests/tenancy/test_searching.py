"""Searches under row-level security: each client has its own estimates, plans use the indexes, no row is foreign."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from support.embeddings import EMBEDDING
from support.logins import set_client
from support.search import ids
from support.texts import clustered_vectors
from syntegra_db.bulk import copy_rows
from syntegra_db.connections import conninfo
from syntegra_db.database import create_async_engine, create_engine
from syntegra_db.models import KpiSummary, TextSummary
from syntegra_db.tenancy import bind
from syntegra_db.vectors import _index_state, async_search, nearest, search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from support.logins import Logins
    from support.servers import Database

# Rows of each client. Up to `EXACT` rows, a search is exact.
CLIENTS = {7: 1500, 8: 400, 9: 20}
EXACT = 100
OWNERS = np.random.default_rng(3).permutation(np.repeat(list(CLIENTS), list(CLIENTS.values())))
VECTORS = clustered_vectors(np.random.default_rng(3), len(OWNERS))
QUERY = clustered_vectors(np.random.default_rng(4), 1)[0]
HNSW = "CREATE INDEX idx_text_summary_embedding ON text_summary USING hnsw (embedding vector_cosine_ops)"
SERVICE = "syntegra_service"


@pytest.fixture
def searched(separated: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database with texts of three clients, the row with the id n has the vector n - 1."""
    monkeypatch.setattr("syntegra_db.vectors._strategy.EXACT_SCAN_MAX_ROWS", EXACT)
    separated.execute("DROP INDEX idx_text_summary_embedding")
    rows = [
        {"client_id": int(client), "text_field": "x", "sentiment": "neutral", "embedding": vector}
        for client, vector in zip(OWNERS, VECTORS, strict=True)
    ]
    with Session(separated.engine) as session:
        copy_rows(session, TextSummary, rows)
        session.commit()
    separated.execute(HNSW)
    separated.execute("ANALYZE text_summary")
    return separated


@pytest.fixture
def engine(searched: Database, engine_of: Callable[[str], Engine]) -> Engine:  # noqa: ARG001  has the rows
    return engine_of(SERVICE)


def expected(client: int) -> list[int]:
    """The ids of the ten texts of `client` that are nearest to `QUERY`."""
    similarity = np.where(client == OWNERS, VECTORS @ QUERY, -np.inf)
    return [int(row) + 1 for row in np.argsort(-similarity)[:10]]


def explained(engine: Engine) -> list[str]:
    """Return a list that gets each later EXPLAIN of the planner's estimate."""
    seen: list[str] = []
    event.listen(
        engine, "before_cursor_execute", lambda *context: seen.append(context[2]) if "EXPLAIN" in context[2] else None
    )
    return seen


def uses_index(session: Session) -> bool:
    """Whether a search of this transaction has set what the scan of a vector index needs."""
    scan = session.scalar(text("SELECT current_setting('hnsw.iterative_scan', true)"))
    return bool(scan == "relaxed_order")


FILTERS: list[dict[str, Any]] = [{}, {"client_id": None}, {"sentiment": "neutral"}]


@pytest.mark.parametrize("filters", FILTERS, ids=["setting only", "client_id", "sentiment"])
def test_each_client_is_estimated_once(engine: Engine, filters: dict[str, Any]) -> None:
    seen = explained(engine)
    for client in (7, 9, 8, 7, 9, 8, 9):
        with Session(engine) as session:
            set_client(session, client)
            given: Any = {key: value or client for key, value in filters.items()}
            found = ids(search(session, QUERY, **given))
            assert len({*found} & {*expected(client)}) >= (10 if client == 9 else 7)
            assert uses_index(session) is (client != 9)
    assert len(seen) == 3


def test_client_without_a_setting_finds_nothing(engine: Engine) -> None:
    with Session(engine) as session:
        assert search(session, QUERY) == []
        assert search(session, QUERY, client_id=7) == []


def test_estimate_of_another_client_is_not_used(engine: Engine) -> None:
    """Client 9 asks for the texts of client 7: it gets none, and the planner's estimate for client 9."""
    with Session(engine) as session:
        set_client(session, 7)
        search(session, QUERY, client_id=7)
        assert uses_index(session)
    seen = explained(engine)
    with Session(engine) as session:
        set_client(session, 9)
        assert search(session, QUERY, client_id=7) == []
    assert len(seen) == 1


def test_change_of_client_in_a_transaction_is_seen(engine: Engine) -> None:
    with Session(engine) as session:
        for client in (9, 7, 9):
            set_client(session, client)
            assert {row.client_id for row, _ in search(session, QUERY)} == {client}


def test_number_of_estimates_is_limited(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_index_state, "MAX_CACHED_ESTIMATES", 2)
    for client in (7, 8, 9, 7):
        with Session(engine) as session:
            set_client(session, client)
            search(session, QUERY)
            state = _index_state.get_index_state(session.connection(), EMBEDDING)
    assert state.estimates is not None
    assert len(state.estimates) == 2


def test_estimate_is_of_the_role(searched: Database, logins: Logins) -> None:
    """A login of both groups sees all rows, or those of the client after SET ROLE."""
    login = logins.create(SERVICE, "syntegra_admin")
    engine = create_engine(searched.url_as(login), pool_size=1, max_overflow=0)
    for role, clients in (("syntegra_admin", {7, 8, 9}), (SERVICE, {9}), ("syntegra_admin", {7, 8, 9})):
        with Session(engine) as session:
            session.execute(text(f"SET LOCAL ROLE {role}"))
            set_client(session, 9)
            assert len(search(session, QUERY)) == 10
            assert uses_index(session) is (role != SERVICE)
            assert {row.client_id for row, _ in search(session, QUERY, limit=1000)} == clients
    engine.dispose()


def test_bound_login_finds_texts_of_its_client(searched: Database, logins: Logins) -> None:
    login = logins.create()
    bind(searched.engine, login, 9)
    engine = create_engine(searched.url_as(login), pool_size=1, max_overflow=0)
    seen = explained(engine)
    for client in (7, 9, 7):
        with Session(engine) as session:
            set_client(session, client)
            assert ids(search(session, QUERY)) == expected(9)
            assert not uses_index(session)
    assert len(seen) == 2
    engine.dispose()


@pytest.mark.parametrize("change", ["", "USING (client_id = 8 AND sentiment = current_setting('app.mood'))"])
def test_policy_of_another_kind_is_estimated_each_time(engine: Engine, searched: Database, change: Any) -> None:
    if change:
        searched.execute(f"CREATE POLICY other ON text_summary FOR SELECT {change}")
    seen = explained(engine)
    for _ in range(3):
        with Session(engine) as session:
            session.execute(text("SET LOCAL app.mood = 'neutral'"))
            set_client(session, 9)
            search(session, QUERY)
    assert len(seen) == (3 if change else 1)


def test_iterative_scan_finds_enough_texts_of_a_small_client(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the ten texts nearest to the query, none may be of the client."""
    monkeypatch.setattr("syntegra_db.vectors._search.choose_settings", lambda *_, **__: {"hnsw": 10})
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *context: statements.append(context[2]))
    with Session(engine) as session:
        set_client(session, 9)
        session.execute(text("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"))
        assert len(search(session, QUERY)) == 10
        assert uses_index(session)
    # An index scan with fewer rows would be followed by an exact search.
    assert sum("LIMIT" in statement for statement in statements) == 1


def test_asyncio_search_uses_the_estimates(searched: Database, logins: Logins) -> None:
    async def work() -> list[list[int]]:
        engine = create_async_engine(searched.url_as(logins.create(SERVICE)), pool_size=1, max_overflow=0)
        seen = explained(engine.sync_engine)
        found = []
        for client in (9, 8, 9, 8):
            async with AsyncSession(engine) as session:
                await session.run_sync(set_client, client)
                found.append(ids(await async_search(session, QUERY, client_id=client)))
        await engine.dispose()
        assert len(seen) == 2
        return found

    found = asyncio.run(work())
    assert found[0] == found[2] == expected(9)
    assert found[1] == found[3]


def test_lost_connection_is_reported_and_replaced(engine: Engine, searched: Database) -> None:
    with Session(engine) as session:
        set_client(session, 9)
        search(session, QUERY)
        searched.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with pytest.raises(OperationalError):
            search(session, QUERY)
        session.rollback()
        set_client(session, 9)
        assert ids(search(session, QUERY)) == expected(9)


# Plans.


@pytest.fixture
def connection(searched: Database, logins: Logins) -> Iterator[psycopg.Connection[Any]]:
    """A connection of a service in a transaction with the client 7."""
    with Session(searched.engine) as session:
        session.execute(
            text(
                "INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end) SELECT n % 10,"
                " 'k' || n, n, '2026-01-01', '2026-02-01' FROM generate_series(1, 5000) n"
            )
        )
        session.commit()
    searched.execute("ANALYZE kpi_summary")
    with psycopg.connect(conninfo(searched.url_as(logins.create(SERVICE)))) as connection:
        connection.execute("SELECT set_config('syntegra.client_id', '7', true)")
        yield connection


def compiled(statement: Any, engine: Engine) -> str:
    """The text of a statement with its values."""
    return str(statement.compile(engine, compile_kwargs={"literal_binds": True})).replace("%%", "%")


LOOKUPS = {
    "id and client": select(KpiSummary).where(KpiSummary.id == 17, KpiSummary.client_id == 7),
    "client": select(KpiSummary).where(KpiSummary.client_id == 7),
    "id": select(KpiSummary).where(KpiSummary.id == 17),
    "no condition": select(KpiSummary.kpi_value),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_policy_is_a_one_time_filter_or_an_index_condition(
    connection: psycopg.Connection[Any], searched: Database, name: str
) -> None:
    statement = compiled(LOOKUPS[name], searched.engine)
    plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {statement}"))
    assert "Seq Scan" not in plan
    setting = r"(NULLIF(current_setting('syntegra.client_id'::text, true), ''::text))::bigint"
    lines = [line.strip() for line in plan.splitlines() if setting in line]
    kind = {"id": "Filter:", "no condition": "Index Cond:"}.get(name, "One-Time Filter:")
    assert any(line.startswith(kind) for line in lines)


@pytest.mark.parametrize("client", [None, 7])
def test_vector_index_is_used(connection: psycopg.Connection[Any], searched: Database, client: int | None) -> None:
    connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
    statement = compiled(nearest(QUERY, client_id=client), searched.engine)
    plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {statement}"))
    assert "Index Scan using idx_text_summary_embedding" in plan
    assert ("One-Time Filter" in plan) is (client is not None)
