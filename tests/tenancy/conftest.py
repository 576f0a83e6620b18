"""Fixtures of the tests with separated clients: a database with policies, and real logins of the group roles."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.orm import Session

from support.client_sessions import admin_session, engine, protected, protected_template, run, session
from support.logins import Logins, drop_group_roles, set_client
from support.two_clients_fixtures import connection_of, engines, observed, sessions, two_clients
from syntegra_db.client_policies import DEFAULT_PREFIX
from syntegra_db.database import create_engine
from syntegra_db.tenancy import enable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from support.servers import Database, Server

__all__ = [  # fixtures
    "admin_session",
    "connection_of",
    "engine",
    "engines",
    "observed",
    "protected",
    "protected_template",
    "run",
    "session",
    "sessions",
    "two_clients",
]


@pytest.fixture
def no_group_roles(server: Server) -> Iterator[None]:
    """Let the test begin and end without group roles, which belong to the whole server; first of its fixtures."""
    drop_group_roles(server, DEFAULT_PREFIX)
    yield
    drop_group_roles(server, DEFAULT_PREFIX)


@pytest.fixture
def logins(server: Server, no_group_roles: None) -> Iterator[Logins]:  # noqa: ARG001  it runs first
    """Create logins, and drop them at the end."""
    with ExitStack() as stack:
        yield Logins(server, stack)


@pytest.fixture
def separated(logins: Logins, database: Database) -> Database:  # noqa: ARG001  the roles are dropped after the database
    """Return a database at head in which `tenancy enable` was run."""
    enable(database.engine)
    return database


@pytest.fixture
def engine_of(separated: Database, logins: Logins) -> Iterator[Callable[[str], Engine]]:
    """Yield a function that returns an engine, with one connection, of the login of a group role."""
    engines: dict[str, Engine] = {}

    def engine_of(role: str) -> Engine:
        if role not in engines:
            engines[role] = create_engine(separated.url_as(logins.create(role)), pool_size=1, max_overflow=0)
        return engines[role]

    yield engine_of
    for created in engines.values():
        created.dispose()


@pytest.fixture
def service(engine_of: Callable[[str], Engine]) -> Iterator[Session]:
    """Yield a session of a service; in its first transaction the client is 7."""
    with Session(engine_of("syntegra_service")) as session:
        set_client(session, 7)
        yield session


@pytest.fixture
def admin(engine_of: Callable[[str], Engine]) -> Iterator[Session]:
    """Yield a session of batch jobs, which see the rows of all clients."""
    with Session(engine_of("syntegra_admin")) as session:
        yield session
