"""`wait_for_database`: until the server accepts connections, or until the database is migrated."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from support.processes import in_thread
from support.revisions import AFTER_HEAD, HEAD
from support.servers import EmbeddedServer, embedded_server
from syntegra_db import migrations
from syntegra_db.connections import unpooled_engine
from syntegra_db.errors import (
    AuthenticationFailed,
    DatabaseAhead,
    DatabaseBehind,
    DatabaseNotFound,
    LockTimeout,
    ServerUnreachable,
    SyntegraDBError,
)
from syntegra_db.migrations import wait_for_database
from syntegra_db.settings import parse_url
from syntegra_db.testing._options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import URL

    from support.servers import Database

# Port 9 is the discard service, which no test machine runs.
UNREACHABLE = parse_url("postgresql://user@localhost:9/database")


@pytest.fixture(scope="module")
def own_server(pytestconfig: pytest.Config) -> Iterator[EmbeddedServer]:
    """A server that the tests of this module stop."""
    with embedded_server(pytestconfig.stash[OPTIONS].postgres) as server:
        yield server


def later(action: Callable[[], object]) -> AbstractContextManager[None]:
    """Run `action` in another thread, half a second after the beginning of the block."""

    def act() -> None:
        time.sleep(0.5)
        action()

    return in_thread(act)


def test_server_that_is_started_later_is_waited_for(own_server: EmbeddedServer) -> None:
    wait_for_database(own_server.url, timeout=0)
    own_server.stop_immediately()
    with pytest.raises(ServerUnreachable):
        wait_for_database(own_server.url, timeout=0)
    with later(own_server.start):
        assert wait_for_database(own_server.url, timeout=60) is None


def test_server_that_is_starting_up_is_waited_for(own_server: EmbeddedServer) -> None:
    # The server restores a segment of the log until the file is removed.
    starting = own_server.data / "starting"
    starting.touch()
    command = f"while [ -e {starting} ]; do sleep 0.1; done; false"
    own_server.execute(sql.SQL("ALTER SYSTEM SET restore_command = {}").format(command))
    own_server.stop_immediately()
    (own_server.data / "recovery.signal").touch()
    with in_thread(own_server.start):
        time.sleep(1)
        with pytest.raises(ServerUnreachable, match=r"Waited 0\.5 s for the server.*does not accept connections yet"):
            wait_for_database(own_server.url, timeout=0.5)
        with later(starting.unlink):
            wait_for_database(own_server.url, timeout=60)
    own_server.execute("ALTER SYSTEM RESET restore_command")


@pytest.mark.parametrize("timeout", [0, 0.3, 1.5])
def test_unreachable_server_fails_after_the_timeout(timeout: float) -> None:
    started = time.monotonic()
    with pytest.raises(
        ServerUnreachable, match=rf"^Waited {timeout:g} s for the server\. No PostgreSQL server answers"
    ):
        wait_for_database(UNREACHABLE, timeout=timeout)
    assert timeout <= time.monotonic() - started < timeout + 3


@pytest.mark.parametrize("limit", ["30", "0"])
def test_silent_server_fails_soon_after_the_timeout(limit: str) -> None:
    # Connections wait in its queue, as those to a server that is stopped.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = UNREACHABLE.set(host="127.0.0.1", port=silent.getsockname()[1])
        url = url.update_query_dict({"connect_timeout": limit})
        started = time.monotonic()
        with pytest.raises(ServerUnreachable, match="Waited 1 s"):
            wait_for_database(url, timeout=1)
    assert time.monotonic() - started < 1 + 2 + 2


def wrong_database(url: URL) -> URL:
    return url.set(database="syntegra_nowhere")


def wrong_user(url: URL) -> URL:
    return url.set(username="syntegra_unknown", password="any")


@pytest.mark.parametrize(("change", "error"), [(wrong_database, DatabaseNotFound), (wrong_user, AuthenticationFailed)])
def test_wrong_name_or_password_fails_at_once(
    database: Database, change: Callable[[URL], URL], error: type[SyntegraDBError]
) -> None:
    started = time.monotonic()
    with pytest.raises(error):
        wait_for_database(change(database.url), timeout=60)
    assert time.monotonic() - started < 10


def test_migration_is_waited_for(empty_database: Database) -> None:
    for bind in (empty_database.url, empty_database.engine):
        wait_for_database(bind, timeout=0)
        with pytest.raises(
            DatabaseBehind, match=rf"^Waited 0\.2 s for revision {HEAD}\. The database .* at no revision"
        ):
            wait_for_database(bind, timeout=0.2, at_least=HEAD)
    with later(lambda: migrations.upgrade(url=empty_database.url)):
        assert wait_for_database(empty_database.url, timeout=60, at_least=HEAD) == HEAD
    assert wait_for_database(unpooled_engine(empty_database.url), timeout=0, at_least=HEAD) == HEAD


def test_locked_version_table_is_no_longer_waited_for_than_asked(database: Database) -> None:
    with database.connect() as holder:
        holder.autocommit = False
        holder.execute("LOCK TABLE alembic_version")
        started = time.monotonic()
        with pytest.raises(LockTimeout, match="Waited 1 s"):
            wait_for_database(database.url, timeout=1, at_least=HEAD)
        assert time.monotonic() - started < 5
        with later(holder.rollback):
            assert wait_for_database(database.url, timeout=60, at_least=HEAD) == HEAD


def test_newer_database_fails_at_once_unless_services_work_on_it(database: Database) -> None:
    database.execute(f"UPDATE alembic_version SET version_num = '{AFTER_HEAD}'")
    with pytest.raises(DatabaseAhead, match=r"^The database is at"):
        wait_for_database(database.url, timeout=60, at_least=HEAD)
    database.execute(
        f"COMMENT ON TABLE alembic_version IS 'Services of revision {HEAD} and later work on revision {AFTER_HEAD}.'"
    )
    assert wait_for_database(database.url, timeout=60, at_least=HEAD) == AFTER_HEAD
