"""The fixtures, as a service's test-suite uses them: engines, sessions, isolation, xdist, own migrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from syntegra_db.connections import conninfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.servers import Server

    RunSuite = Callable[..., pytest.RunResult]

# Each test adds the same row and expects to be the only one that did, in any order.
SUITE = """
import anyio
import pytest
import pytest_asyncio
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from syntegra_db.migrations import async_require_head, require_head
from syntegra_db.models import Cluster
from syntegra_db.testing.factories import ClusterFactory, add, async_add

COUNT = select(func.count()).select_from(Cluster)

@pytest.mark.parametrize("number", range(2))
def test_session_and_engine_share_a_database(syntegra_session, syntegra_engine, number):
    require_head(syntegra_engine)
    add(syntegra_session, ClusterFactory, id=1)
    syntegra_session.commit()
    with Session(syntegra_engine) as service:
        assert service.scalar(COUNT) == 1
        service.add(ClusterFactory.build(id=2))
        service.rollback()
    with syntegra_engine.begin() as connection:
        assert connection.scalar(COUNT) == 1

def test_what_is_not_committed_is_closed(syntegra_session):
    assert syntegra_session.scalar(COUNT) == 0
    add(syntegra_session, ClusterFactory, id=1)

async def use(session, engine):
    await async_require_head(engine)
    await async_add(session, ClusterFactory, id=1)
    await session.commit()
    async with AsyncSession(engine) as service:
        assert await service.scalar(COUNT) == 1
        service.add(ClusterFactory.build(id=2))
        await service.rollback()
    # Stays open.
    assert await session.scalar(COUNT) == 1

@pytest.fixture
def anyio_backend():
    return "asyncio"

if MODE == "anyio":
    @pytest.mark.anyio
    @pytest.mark.parametrize("number", range(2))
    async def test_anyio(syntegra_async_session, syntegra_async_engine, number):
        await use(syntegra_async_session, syntegra_async_engine)

    @pytest.fixture
    async def prepared(syntegra_async_session, anyio_backend):
        await async_add(syntegra_async_session, ClusterFactory, id=1)
        await syntegra_async_session.commit()

    @pytest.mark.anyio
    async def test_async_fixture_shares_the_session(syntegra_async_session, prepared):
        assert await syntegra_async_session.scalar(COUNT) == 1
else:
    mark = pytest.mark.asyncio if MODE == "strict" else pytest.mark.filterwarnings("error")
    @mark
    @pytest.mark.parametrize("number", range(2))
    async def test_asyncio(syntegra_async_session, syntegra_async_engine, number):
        await use(syntegra_async_session, syntegra_async_engine)

    @pytest_asyncio.fixture(loop_scope="module")
    async def prepared(syntegra_async_session):
        await async_add(syntegra_async_session, ClusterFactory, id=1)
        await syntegra_async_session.commit()

    @mark
    async def test_fixture_in_another_loop_shares_the_session(syntegra_async_session, prepared):
        assert await syntegra_async_session.scalar(COUNT) == 1
"""
TESTS = 6
ASYNCIO = ("anyio.pytest_plugin", "pytest_asyncio.plugin")


def suite(mode: str) -> str:
    return f'MODE = "{mode}"\n{SUITE}'


@pytest.mark.parametrize(
    ("isolation", "mode"),
    [("database", "strict"), ("rollback", "anyio"), ("rollback", "auto"), ("database", "anyio"), ("database", "auto")],
)
def test_fixtures_isolate_sync_and_async_tests(run_suite: RunSuite, server: Server, isolation: str, mode: str) -> None:
    before = databases(server)
    options = ("-o", "asyncio_mode=auto") if mode == "auto" else ()
    result = run_suite(suite(mode), f"--syntegra-isolation={isolation}", *options, plugins=ASYNCIO)
    result.assert_outcomes(passed=TESTS)
    assert databases(server) == before


def test_two_processes_of_xdist_share_a_server(run_suite: RunSuite, server: Server) -> None:
    before = databases(server)
    program = """
import pytest
@pytest.mark.parametrize("number", range(4))
def test_names(syntegra_url, worker_id, number):
    print("used", worker_id, syntegra_url.database)
"""
    result = run_suite(program, "-n", "2", "-rP", plugins=["xdist"])
    result.assert_outcomes(passed=4)
    used = [line.split()[1:] for line in result.outlines if line.startswith("used ")]
    assert len({name for _, name in used}) == 4
    assert len({worker for worker, _ in used}) == 2
    assert databases(server) == before


MIGRATE = """
import pytest
from sqlalchemy import create_engine, text, NullPool
from syntegra_db.database import create_engine as create_service_engine

@pytest.fixture(scope="session")
def syntegra_migrate():
    def migrate(url):
        engine = {engine}
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE clients (id bigint PRIMARY KEY)"))
            connection.execute(text("ALTER TABLE clusters ADD FOREIGN KEY (client_id) REFERENCES clients"))
        kept.append(engine)
    return migrate
kept = []
"""
OWN_TABLE = """
from sqlalchemy import text
def test_own_table(syntegra_session):
    assert syntegra_session.scalar(text("SELECT count(*) FROM clients")) == 0
"""


def test_own_migration_is_in_each_copy(run_suite: RunSuite) -> None:
    result = run_suite(OWN_TABLE, conftest=MIGRATE.format(engine="create_engine(url, poolclass=NullPool)"))
    result.assert_outcomes(passed=1)


def test_own_migration_that_keeps_a_connection_ends_the_run_with_a_sentence(run_suite: RunSuite) -> None:
    result = run_suite(OWN_TABLE, conftest=MIGRATE.format(engine="create_service_engine(url)"))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines("*syntegra_migrate left a connection to its database open*")
    result.stdout.no_fnmatch_line("*Traceback*")


ROLLBACK = """
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from syntegra_db.bulk import copy_rows
from syntegra_db.models import Cluster
from syntegra_db.testing.factories import ClusterFactory, add
from sqlalchemy import text

def test_url(syntegra_url): ...
@pytest.mark.syntegra_isolation("database")
def test_marked(syntegra_url, syntegra_engine, syntegra_async_engine): ...
def test_both(syntegra_engine, syntegra_async_engine): ...
def test_level(syntegra_engine):
    syntegra_engine.connect().execution_options(isolation_level="SERIALIZABLE")
def test_older_rollback(syntegra_engine):
    with Session(syntegra_engine) as older:
        add(older, ClusterFactory)
        with Session(syntegra_engine) as newer:
            add(newer, ClusterFactory)
            newer.commit()
        older.rollback()
def test_failed(syntegra_engine):
    with Session(syntegra_engine) as older:
        with pytest.raises(Exception, match="nothing"):
            older.execute(text("SELECT * FROM nothing"))
        with Session(syntegra_engine) as newer:
            newer.connection()
def test_reader_does_not_undo_a_later_commit(syntegra_engine, syntegra_session):
    count = select(func.count()).select_from(Cluster)
    assert syntegra_session.scalar(count) == 0
    with Session(syntegra_engine) as service:
        copy_rows(service, Cluster, [{"client_id": 7, "cluster_id": 1, "features_json": {}}])
        add(service, ClusterFactory)
        service.commit()
    syntegra_session.rollback()
    assert syntegra_session.scalar(count) == 2
def test_settings_end_with_the_transaction(syntegra_engine):
    setting = text("SELECT current_setting('syntegra.client_id', true), current_setting('search_path')")
    with Session(syntegra_engine) as session:
        before = session.execute(setting).one()
        session.execute(text("SELECT set_config('syntegra.client_id', '7', true)"))
        session.execute(text("SET LOCAL search_path TO nothing"))
        session.commit()
        assert [value or "" for value in session.execute(setting).one()] == [value or "" for value in before]
"""
MESSAGES = {
    "test_url": "*what a connection to syntegra_url commits would stay for other tests*",
    "test_both": "*a test uses either syntegra_engine or syntegra_async_engine*",
    "test_level": "*asks for the isolation level SERIALIZABLE*",
    "test_older_rollback": "*the other one would be lost too*",
    "test_failed": "*A statement failed in a transaction that is still open*",
}


def test_rollback_isolation_reports_what_one_transaction_cannot_do(run_suite: RunSuite) -> None:
    result = run_suite(ROLLBACK, "--syntegra-isolation", "rollback", "-rA")
    result.assert_outcomes(passed=3, failed=3, errors=2)
    for name, message in MESSAGES.items():
        result.stdout.re_match_lines_random([f"(FAILED|ERROR) .*::{name}"])
        result.stdout.fnmatch_lines_random([message])


def databases(server: Server) -> set[str]:
    """Return the databases on `server`."""
    with psycopg.connect(conninfo(server.url)) as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
