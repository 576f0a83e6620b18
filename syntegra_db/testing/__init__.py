"""A pytest plugin for services: each test gets a migrated database, with engines and sessions on it.

A conftest.py opts in with `pytest_plugins = ["syntegra_db.testing"]`. docs/guides/test.md is the guide.

PYTEST_DONT_REWRITE: it has no assertions, and a conftest may import the factories before pytest loads the plugin.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from syntegra_db.testing import _options, _seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

__all__ = [
    "syntegra_async_engine",
    "syntegra_async_session",
    "syntegra_engine",
    "syntegra_migrate",
    "syntegra_server_url",
    "syntegra_session",
    "syntegra_template",
    "syntegra_url",
]

Value = TypeVar("Value")
AnyEngine = TypeVar("AnyEngine", "Engine", "AsyncEngine")
ENGINE = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    _options.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{_options.MARKER}(isolation): database or rollback, for this test")
    config.stash[_options.OPTIONS] = _options.read_options(config)


def pytest_report_header(config: pytest.Config) -> str:
    options = config.stash[_options.OPTIONS]
    server = options.server if options.server in {_options.EMBEDDED, _options.DOCKER} else "given by its URL"
    version = f" {options.postgres}" if options.postgres and options.server == _options.EMBEDDED else ""
    return f"syntegra_db: server {server}{version}, isolation {options.isolation}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        _options.isolation_of(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _seeds.start(item.nodeid)


@pytest.fixture(scope="session")
def syntegra_server_url(pytestconfig: pytest.Config) -> Iterator[URL]:
    """Yield the URL of an administrator of the server of `--syntegra-server`."""
    from syntegra_db.testing._servers import chosen_server

    options = pytestconfig.stash[_options.OPTIONS]
    with _entered(pytestconfig, lambda: chosen_server(options.server, options.postgres)) as url:
        yield url


@contextmanager
def _entered(config: pytest.Config, start: Callable[[], AbstractContextManager[Value]]) -> Iterator[Value]:
    """Enter the block that `start` returns; if that fails, end the run with one sentence instead of a traceback."""
    from syntegra_db.errors import SyntegraDBError

    with ExitStack() as stack:
        try:
            value = stack.enter_context(start())
        except SyntegraDBError as error:
            message = f"syntegra_db.testing: {error}"
        else:
            yield value
            return
    if hasattr(config, "workerinput"):
        # A process of xdist cannot end the run: each of its tests fails.
        pytest.fail(message, pytrace=False)
    pytest.exit(message, pytest.ExitCode.USAGE_ERROR)


@pytest.fixture(scope="session")
def syntegra_migrate() -> Callable[[URL], object]:
    """Return what migrates the template after this package; override it to add the application's own tables.

    It gets the URL of the template, and leaves no connection open.
    """
    return lambda _url: None


@pytest.fixture(scope="session")
def syntegra_template(
    pytestconfig: pytest.Config,
    syntegra_server_url: URL,
    syntegra_migrate: Callable[[URL], object],
) -> Iterator[str]:
    """Yield the name of the migrated database that each test's database is a copy of."""
    from syntegra_db.testing._databases import migrated_template

    with _entered(pytestconfig, lambda: migrated_template(syntegra_server_url, syntegra_migrate)) as name:
        yield name


@pytest.fixture(scope="session")
def _syntegra_shared_url(syntegra_server_url: URL, syntegra_template: str) -> Iterator[URL]:
    """Yield the URL of the database of all tests with the isolation rollback."""
    from syntegra_db.testing._databases import temporary_database

    with temporary_database(syntegra_server_url, syntegra_template) as url:
        yield url


@pytest.fixture
def syntegra_url(request: pytest.FixtureRequest, syntegra_server_url: URL, syntegra_template: str) -> Iterator[URL]:
    """Yield the URL of the test's migrated database; an administrator owns it, and it is dropped afterwards."""
    from syntegra_db.testing._databases import temporary_database

    if _is_rolled_back(request):
        pytest.fail(
            "With the isolation rollback, what a connection to syntegra_url commits would stay for other tests. Use "
            f'syntegra_engine or syntegra_session, or mark the test with @pytest.mark.{_options.MARKER}("database").',
            pytrace=False,
        )
    with temporary_database(syntegra_server_url, syntegra_template) as url:
        yield url


@pytest.fixture
def syntegra_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Yield an engine of `syntegra_db.database` on the test's database."""
    from syntegra_db.database import create_engine

    if _is_rolled_back(request):
        with _rolled_back(request, create_engine) as engine:
            yield engine
        return
    engine = create_engine(request.getfixturevalue("syntegra_url"))
    yield engine
    engine.dispose()


@pytest.fixture
def syntegra_session(syntegra_engine: Engine) -> Iterator[Session]:
    """Yield a session on `syntegra_engine`; what it did not commit is rolled back."""
    from syntegra_db.database import session_factory

    with session_factory(syntegra_engine)() as session:
        yield session


@pytest.fixture
def syntegra_async_engine(request: pytest.FixtureRequest) -> Iterator[AsyncEngine]:
    """Yield an asyncio engine of `syntegra_db.database` on the test's database.

    It keeps no connection for later, so a test and its fixtures may use it in different event loops.
    """
    from sqlalchemy import NullPool

    from syntegra_db.database import create_async_engine

    _require_asyncio(request)
    if _is_rolled_back(request):
        with _rolled_back(request, create_async_engine) as engine:
            yield engine
        return
    yield create_async_engine(request.getfixturevalue("syntegra_url"), poolclass=NullPool)


@pytest.fixture
def syntegra_async_session(syntegra_async_engine: AsyncEngine) -> Iterator[AsyncSession]:
    """Yield an asyncio session on `syntegra_async_engine`; what it did not commit is rolled back."""
    from syntegra_db.database import async_session_factory
    from syntegra_db.testing._loops import close_session

    session = async_session_factory(syntegra_async_engine)()
    yield session
    close_session(session)


def _is_rolled_back(request: pytest.FixtureRequest) -> bool:
    return _options.isolation_of(request.node) == _options.ROLLBACK


@contextmanager
def _rolled_back(request: pytest.FixtureRequest, create: Callable[..., AnyEngine]) -> Iterator[AnyEngine]:
    """Yield an engine on one connection to the shared database; roll its transaction back afterwards."""
    from syntegra_db.testing._rollback import SharedPool, SharedTransaction

    if request.node.stash.setdefault(ENGINE, create.__name__) != create.__name__:
        pytest.fail(
            "With the isolation rollback, a test uses either syntegra_engine or syntegra_async_engine: each has a "
            "transaction that the other one does not see. Use one of them, or mark the test with "
            f'@pytest.mark.{_options.MARKER}("database").',
            pytrace=False,
        )
    engine = create(request.getfixturevalue("_syntegra_shared_url"), poolclass=SharedPool)
    sync_engine: Any = getattr(engine, "sync_engine", engine)
    transaction = SharedTransaction(sync_engine)
    yield engine
    transaction.end()


def _require_asyncio(request: pytest.FixtureRequest) -> None:
    """Fail if anyio runs the test with another library, which SQLAlchemy does not support."""
    if "anyio_backend_name" in request.fixturenames or "anyio_backend" in request.fixturenames:
        backend: Any = request.getfixturevalue("anyio_backend")
        name = backend if isinstance(backend, str) else backend[0]
        if name != "asyncio":
            pytest.fail(
                f"SQLAlchemy's asyncio engines do not work with {name}. Run the test with asyncio only: define a "
                'fixture anyio_backend that returns "asyncio".',
                pytrace=False,
            )
