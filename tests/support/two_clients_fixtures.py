"""Fixtures: a database with two clients for all tests of a module, and connections of each login."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from support.two_clients import VIEWERS, Viewer, database_of_two_clients
from support.viewed_sessions import Sessions
from support.viewed_statements import Observed
from syntegra_db.connections import conninfo
from syntegra_db.database import create_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from support.servers import Database, Server

Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def two_clients(server: Server, migrated_template: str) -> Iterator[Database]:
    with database_of_two_clients(server, migrated_template) as database:
        yield database


@pytest.fixture(scope="module")
def connection_of(two_clients: Database) -> Iterator[Callable[[Viewer], Connection]]:
    """Yield a function that returns a connection of a login."""
    with ExitStack() as stack:
        opened: dict[str, Connection] = {}

        def connection_of(viewer: Viewer) -> Connection:
            if viewer.login not in opened:
                url = conninfo(two_clients.url_as(viewer.login))
                opened[viewer.login] = stack.enter_context(psycopg.connect(url, autocommit=True))
                # A prepared statement is a single one.
                opened[viewer.login].prepare_threshold = None
            return opened[viewer.login]

        yield connection_of


@pytest.fixture(scope="module")
def observed(two_clients: Database, connection_of: Callable[[Viewer], Connection]) -> Iterator[Observed]:
    with two_clients.connect() as connection:
        yield Observed(connection, connection_of)


@pytest.fixture(scope="module")
def engines(two_clients: Database) -> Iterator[dict[str, Engine]]:
    created = {
        viewer.login: create_engine(two_clients.url_as(viewer.login), pool_size=1, max_overflow=0)
        for viewer in VIEWERS.values()
    }
    yield created
    for engine in created.values():
        engine.dispose()


@pytest.fixture(scope="module")
def sessions(engines: dict[str, Engine], observed: Observed) -> Sessions:
    return Sessions(engines, observed)
