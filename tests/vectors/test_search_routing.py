"""Searches and loads in sessions that choose a database or a schema."""

from __future__ import annotations

import asyncio
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Delete, Insert, Select, Update, event, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from support.embeddings import EMBEDDING
from support.search import HNSW, current_setting, ids, replace_index
from support.texts import clustered_vectors
from syntegra_db.bulk import async_upsert_rows, copy_rows, upsert_rows
from syntegra_db.database import create_async_engine, create_engine
from syntegra_db.models import KpiSummary, TextSummary
from syntegra_db.vectors import InvalidSearchArgument, _index_state, async_search, nearest, search
from syntegra_db.vectors._statements import Filters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from support.servers import Database, Server

VECTORS = clustered_vectors(np.random.default_rng(3), 300)
QUERY = VECTORS[0]
# The ids of the databases and schemas begin at different numbers.
PRIMARY, REPLICA, TENANT = 0, 1000, 2000
SCHEMA = "Tenant 'n' 1"


def load(session: Session, first_id: int, *, schema: str = "public", count: int = len(VECTORS)) -> None:
    connection = session.connection().execution_options(schema_translate_map={None: schema})
    rows = [
        {"id": first_id + number, "client_id": 1, "text_field": "x", "embedding": vector}
        for number, vector in enumerate(VECTORS[:count])
    ]
    connection.execute(insert(TextSummary), rows)
    connection.execute(text(f'ANALYZE "{schema}".text_summary'))


@pytest.fixture
def use_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searches use an index also on small tables."""
    monkeypatch.setattr("syntegra_db.vectors._strategy.EXACT_SCAN_MAX_ROWS", 5)


@pytest.fixture
def replica_database(server: Server, migrated_template: str) -> Iterator[Database]:
    with server.database(migrated_template, name="syntegra_test_replica") as database:
        yield database


@pytest.fixture
def engines(database: Database, replica_database: Database, use_index: None) -> Iterator[dict[str, Engine]]:  # noqa: ARG001
    """Engines of a primary and a replica whose rows have other ids, and `seen`: the names of those that are asked."""
    engines = {"primary": create_engine(database.url), "replica": create_engine(replica_database.url)}
    for name, first_id in (("primary", PRIMARY), ("replica", REPLICA)):
        with Session(engines[name]) as session:
            load(session, first_id)
            replace_index(session, HNSW)
            session.commit()
    yield engines
    for engine in engines.values():
        engine.dispose()


def asked(engines: dict[str, Engine]) -> list[str]:
    """Return a list that gets the name of the engine of each later statement."""
    seen: list[str] = []
    for name, engine in engines.items():
        event.listen(engine, "before_cursor_execute", lambda *_, name=name: seen.append(name))
    return seen


def routing_session(engines: dict[str, Engine], rule: str) -> type[Session]:
    """Return a session class that chooses one of `engines` for each statement."""
    turns = cycle([engines["primary"], engines["replica"]])

    class BySelect(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **_: Any) -> Any:  # noqa: ARG002
            return engines["replica" if isinstance(clause, Select) and not self._flushing else "primary"]

    class ByWrite(Session):
        """As in SQLAlchemy's documentation: it does not accept the argument `bind`."""

        def get_bind(self, mapper: Any = None, clause: Any = None) -> Any:  # type: ignore[override]
            assert mapper is None or issubclass(mapper.class_, TextSummary | KpiSummary)
            is_write = self._flushing or isinstance(clause, Insert | Update | Delete)
            return engines["primary" if is_write else "replica"]

    class ByTurns(Session):
        def get_bind(self, *_: Any, **__: Any) -> Any:
            return next(turns)

    return {"select": BySelect, "write": ByWrite, "turns": ByTurns}[rule]


@pytest.mark.parametrize("rule", ["select", "write", "turns"])
def test_search_in_routing_session_asks_one_database(engines: dict[str, Engine], rule: str) -> None:
    with routing_session(engines, rule)() as session:
        for first_id in (REPLICA, REPLICA) if rule != "turns" else (PRIMARY, REPLICA):
            seen = asked(engines)
            found = ids(search(session, QUERY, client_id=1, limit=5))
            assert found[0] == first_id
            assert set(seen) == {"primary" if first_id == PRIMARY else "replica"}
            connection = session.connection(bind_arguments={"bind": engines[seen[0]]})
            assert connection.scalar(text("SHOW hnsw.ef_search")) == "100"
        assert "get_bind" not in vars(session)


@pytest.mark.parametrize("rule", ["select", "write"])
def test_pending_object_is_written_to_the_primary(engines: dict[str, Engine], rule: str) -> None:
    with routing_session(engines, rule)() as session:
        session.add(TextSummary(id=-1, client_id=1, text_field="x", embedding=QUERY))
        assert ids(search(session, QUERY))[0] == REPLICA
        session.commit()
    with Session(engines["primary"]) as session:
        assert session.get(TextSummary, -1) is not None


@pytest.mark.parametrize("rule", ["select", "write"])
def test_load_in_routing_session_writes_to_the_primary(engines: dict[str, Engine], rule: str) -> None:
    with routing_session(engines, rule)() as session:
        seen = asked(engines)
        copy_rows(session, TextSummary, [{"id": -1, "client_id": 1, "text_field": "x"}])
        upsert_rows(session, TextSummary, [{"id": -1, "client_id": 1, "text_field": "y"}], key=["id"])
        session.commit()
        assert "replica" not in seen
    with Session(engines["primary"]) as session:
        assert session.get_one(TextSummary, -1).text_field == "y"


@pytest.mark.parametrize("key", [TextSummary, TextSummary.__table__])
def test_bind_of_the_model_is_searched(engines: dict[str, Engine], key: Any) -> None:
    with Session(engines["primary"], binds={key: engines["replica"]}) as session:
        seen = asked(engines)
        assert ids(search(session, QUERY))[0] == REPLICA
        assert set(seen) == {"replica"}


def test_bound_connection_and_scoped_session_are_searched(engines: dict[str, Engine]) -> None:
    with engines["replica"].connect() as connection, Session(connection) as session:
        assert ids(search(session, QUERY))[0] == REPLICA
        assert connection.scalar(text("SHOW hnsw.ef_search")) == "100"
    registry = scoped_session(sessionmaker(class_=routing_session(engines, "select")))
    seen = asked(engines)
    assert ids(search(registry, QUERY))[0] == REPLICA  # type: ignore[arg-type]
    assert set(seen) == {"replica"}
    registry.remove()


def test_search_in_sharded_session_raises(engines: dict[str, Engine]) -> None:
    with (
        ShardedSession(
            lambda *_: "primary", lambda *_, **__: list(engines), lambda _: list(engines), shards=engines
        ) as session,
        pytest.raises(InvalidSearchArgument, match="sends each statement to several databases"),
    ):
        search(session, QUERY)


@pytest.mark.usefixtures("engines")
def test_async_search_in_routing_session_asks_one_database(database: Database, replica_database: Database) -> None:
    async def work() -> None:
        asynchronous = [create_async_engine(database.url), create_async_engine(replica_database.url)]
        engines = dict(zip(("primary", "replica"), (engine.sync_engine for engine in asynchronous), strict=True))
        for rule in ("select", "write"):
            async with AsyncSession(sync_session_class=routing_session(engines, rule)) as session:
                seen = asked(engines)
                assert ids(await async_search(session, QUERY))[0] == REPLICA
                assert set(seen) == {"replica"}
                row = {"id": -1, "client_id": 1, "text_field": rule}
                await async_upsert_rows(session, TextSummary, [row], key=["id"])
                await session.commit()
            assert database.query("SELECT text_field FROM text_summary WHERE id = -1") == [(rule,)]
        for engine in asynchronous:
            await engine.dispose()

    asyncio.run(work())


@pytest.fixture
def tenants(database: Database, use_index: None) -> Iterator[Engine]:  # noqa: ARG001
    """An engine of a database with an index in the schema `public`, and without one in the schema of a tenant."""
    engine = create_engine(database.url)
    with Session(engine) as session:
        load(session, PRIMARY)
        replace_index(session, HNSW)
        session.execute(text(f'CREATE SCHEMA "{SCHEMA}"'))
        session.execute(text(f'CREATE TABLE "{SCHEMA}".text_summary (LIKE text_summary INCLUDING ALL)'))
        session.commit()
    with Session(engine) as session:
        load(session, TENANT, schema=SCHEMA, count=100)
        session.commit()
    yield engine
    engine.dispose()


def translated_session(engine: Engine, place: str) -> Session:
    """Return a session whose schema is translated to that of the tenant at `place`."""
    options = {"schema_translate_map": {None: SCHEMA}}
    if place == "engine":
        return Session(engine.execution_options(**options))
    if place == "connection":
        return Session(engine.connect().execution_options(**options))
    if place == "binds":
        return Session(engine, binds={TextSummary: engine.execution_options(**options)})
    if place == "session":
        return Session(engine, execution_options=options)
    session = Session(engine)
    session.connection(execution_options=options)
    return session


PLACES = ["engine", "connection", "binds", "session", "session.connection()"]


@pytest.mark.parametrize("place", PLACES)
def test_translated_schema_is_searched_with_its_own_index_state(tenants: Engine, place: str) -> None:
    with Session(tenants) as session:
        assert ids(search(session, QUERY))[0] == PRIMARY
        assert current_setting(session, "hnsw.ef_search") == "100"
    with translated_session(tenants, place) as session:
        assert ids(search(session, QUERY)) == [row.id for row in session.scalars(nearest(QUERY))]
        assert ids(search(session, QUERY, client_id=1))[0] == TENANT
        connection = session.connection({"mapper": TextSummary})
        assert connection.scalar(text("SELECT current_setting('hnsw.ef_search', true)")) != "100"
        state = _index_state.get_index_state(connection, EMBEDDING)
        assert (state.index, state.embeddings) == (None, 100)
        assert _index_state.estimate_rows(connection, EMBEDDING, Filters(client_id=1)) == 100
        if place == "connection":
            connection.close()
    # The other schema's state is still cached, so its index is used at once.
    seen = asked({"primary": tenants})
    with Session(tenants) as session:
        assert ids(search(session, QUERY))[0] == PRIMARY
        assert current_setting(session, "hnsw.ef_search") == "100"
    assert len(seen) == 3


def test_index_of_translated_schema_is_used(tenants: Engine) -> None:
    with translated_session(tenants, "engine") as session:
        definition = HNSW.replace("ON text_summary", f'ON "{SCHEMA}".text_summary')
        session.execute(text(definition))
        assert ids(search(session, QUERY))[0] == TENANT
        assert current_setting(session, "hnsw.ef_search") == "100"


def test_loads_use_the_translated_schema_of_the_session(tenants: Engine) -> None:
    row = {"id": -1, "client_id": 1, "text_field": "x"}
    for place in PLACES:
        with translated_session(tenants, place) as session:
            copy_rows(session, TextSummary, [row])
            assert upsert_rows(session, TextSummary, [row], key=["id"]) == 1
            assert session.scalars(select(TextSummary.id).where(TextSummary.id < 0)).all() == [-1]
            session.rollback()
            if place == "connection":
                session.connection({"mapper": TextSummary}).close()


def test_async_search_uses_the_translated_schema(tenants: Engine, database: Database) -> None:  # noqa: ARG001
    async def work() -> list[int]:
        engine = create_async_engine(database.url)
        found = []
        async with AsyncSession(engine) as session:
            found += ids(await async_search(session, QUERY, limit=1))
        async with AsyncSession(engine.execution_options(schema_translate_map={None: SCHEMA})) as session:
            found += ids(await async_search(session, QUERY, limit=1))
        async with AsyncSession(engine) as session:
            await session.connection(execution_options={"schema_translate_map": {None: SCHEMA}})
            found += ids(await async_search(session, QUERY, limit=1))
        await engine.dispose()
        return found

    assert asyncio.run(work()) == [PRIMARY, TENANT, TENANT]
