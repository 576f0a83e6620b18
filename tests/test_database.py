"""Engines and sessions, sync and async, as services make them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import NullPool, select, text

from support.commands import succeed
from support.revisions import AFTER_HEAD, HEAD
from syntegra_db.database import async_session_factory, create_async_engine, create_engine, session_factory
from syntegra_db.errors import DatabaseAhead, DatabaseBehind, DatabaseNotFound
from syntegra_db.migrations import async_require_head, downgrade, require_head
from syntegra_db.models import EMBEDDING_DIMENSIONS, DataSource, TextSummary

FORKING_SERVICE = """
import os
from sqlalchemy import text
from syntegra_db.database import create_engine
from syntegra_db.migrations import require_head

engine = create_engine({options})
require_head(engine)
for _ in range(3):
    if os.fork() == 0:
        with engine.connect() as connection:
            os.write(1, b"%d\\n" % connection.scalar(text("SELECT pg_backend_pid() FROM pg_sleep(0.5)")))
        os._exit(0)
for _ in range(3):
    os.wait()
"""

if TYPE_CHECKING:
    from support.servers import Database

APPLICATION = text("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")
VECTOR = [1.0] * EMBEDDING_DIMENSIONS
NEAREST = select(TextSummary.embedding.cosine_distance([0.5] * EMBEDDING_DIMENSIONS))


def test_engine_without_url_uses_environment(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database.environment_url)
    engine = create_engine(application_name="kpi worker")
    with engine.connect() as connection:
        assert connection.scalar(APPLICATION) == "kpi worker"
    engine.dispose()


def test_application_name_in_url_takes_precedence(database: Database) -> None:
    engine = create_engine(database.url.update_query_dict({"application_name": "from the URL"}))
    with engine.connect() as connection:
        assert connection.scalar(APPLICATION) == "from the URL"
    engine.dispose()


def test_engine_options_override_defaults(database: Database) -> None:
    create_engine(database.url, pool_size=2, max_overflow=0).dispose()
    engine = create_engine(database.url, poolclass=NullPool, connect_args={"options": "-c work_mem=8MB"})
    with engine.connect() as connection:
        assert connection.scalar(text("SHOW work_mem")) == "8MB"
        assert connection.scalar(APPLICATION) == "syntegra_db"


def test_dead_pooled_connection_is_replaced(database: Database) -> None:
    engine = create_engine(database.url)
    with engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    with database.connect() as administrator:
        administrator.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != pid
    engine.dispose()


def test_object_after_commit_is_readable(database: Database) -> None:
    engine = create_engine(database.url)
    with session_factory(engine)() as session:
        source = DataSource(client_id=1, name="till", type="simple_csv")
        session.add(source)
        session.commit()
        assert not session.in_transaction()
        assert (source.id, source.status) == (1, "idle")
    engine.dispose()


def test_vector_on_sync_connection_is_binary(database: Database) -> None:
    engine = create_engine(database.url)
    with session_factory(engine)() as session:
        session.add(TextSummary(client_id=1, text_field="x", embedding=VECTOR))
        session.commit()
        assert session.scalars(NEAREST).one() == pytest.approx(0)
        raw = session.connection().connection.driver_connection
        assert raw is not None
        (vector,) = raw.execute("SELECT embedding FROM text_summary").fetchone()
        assert type(vector).__name__ == "Vector"
    engine.dispose()


def test_vector_on_async_connection_is_binary(database: Database) -> None:
    async def search() -> float:
        engine = create_async_engine(database.url)
        await async_require_head(engine)
        async with engine.connect() as connection:
            await async_require_head(connection)
        async with async_session_factory(engine)() as session:
            row = TextSummary(client_id=1, text_field="x", embedding=VECTOR)
            session.add(row)
            await session.commit()
            assert row.id == 1
            row.text_field = "y"
            await session.commit()
            distance: float = (await session.scalars(NEAREST)).one()
        await engine.dispose()
        return distance

    assert asyncio.run(search()) == pytest.approx(0)


def test_server_default_under_asyncio_is_loaded(database: Database) -> None:
    async def update() -> bool:
        engine = create_async_engine(database.url)
        async with async_session_factory(engine)() as session:
            source = DataSource(client_id=1, name="till", type="simple_csv")
            session.add(source)
            await session.commit()
            source.status = "error"
            await session.commit()
            later = source.updated_at > source.created_at
        await engine.dispose()
        return later

    assert asyncio.run(update())


def test_engine_without_extension_connects(empty_database: Database) -> None:
    engine = create_engine(empty_database.url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


def test_require_head(database: Database) -> None:
    engine = create_engine(database.url)
    require_head(engine)
    with engine.connect() as connection:
        require_head(connection)
    downgrade("002", database.url)
    with pytest.raises(DatabaseBehind, match=f"at revision 002, but revision {HEAD} is required"):
        require_head(engine)
    downgrade("base", database.url)
    with pytest.raises(DatabaseBehind, match="at no revision"):
        require_head(engine)
    database.execute(f"INSERT INTO alembic_version VALUES ('{AFTER_HEAD}')")
    with pytest.raises(DatabaseAhead, match=f"revision {AFTER_HEAD}, which this package does not know"):
        require_head(engine)
    engine.dispose()


@pytest.mark.parametrize("options", ["", "pool_size=1, max_overflow=0", "pool_size=5, pool_pre_ping=False"])
def test_processes_that_fork_after_require_head_share_no_connection(database: Database, options: str) -> None:
    printed = succeed("python", "-c", FORKING_SERVICE.format(options=options), url=database.environment_url)
    assert len({*printed.split()}) == 3


def test_require_head_leaves_no_session(database: Database) -> None:
    sessions = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'alerts'"
    engine = create_engine(database.url, application_name="alerts")
    require_head(engine)
    asynchronous = create_async_engine(database.url, application_name="alerts")
    asyncio.run(async_require_head(asynchronous))
    assert database.query(sessions) == []
    with engine.connect() as connection:
        assert database.query(sessions) == [()]
        require_head(connection)
    engine.dispose()


def test_require_head_without_server_raises_server_unreachable(database: Database) -> None:
    with pytest.raises(DatabaseNotFound):
        require_head(create_engine(database.url.set(database="syntegra_nowhere")))
