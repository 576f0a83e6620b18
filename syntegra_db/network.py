"""Limits for what a stopped process, a dead machine or a silent network leaves waiting."""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import psycopg
from sqlalchemy import event

from syntegra_db.search_path import read_session
from syntegra_db.sql import execute_raw, literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.abc import PQGen
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import Dialect

# Python needs milliseconds between two statements. A stopped process keeps its locks for this long.
IDLE_IN_TRANSACTION_SECONDS = 5
HEARTBEAT_SECONDS = 1
# After this time without an acknowledgement, each side takes the connection for lost: the sum of the keepalives.
UNACKNOWLEDGED_SECONDS = 25
KEEPALIVE = {"idle": 10, "interval": 5, "count": 3}
LIBPQ_LIMITS = {
    "connect_timeout": 10,
    "tcp_user_timeout": 1000 * UNACKNOWLEDGED_SECONDS,
    **{f"keepalives_{name}": value for name, value in KEEPALIVE.items()},
}
# A proxy acknowledges what it does not forward, so the host is asked too: twice, because it may be busy.
SILENCE_SECONDS = 15
PROBE_SECONDS = 10
PROBES = 2
# The request for TLS, which servers and poolers answer with one byte before they ask who connects.
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
SILENCE_ERRORS = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN}
CHECK_INTERVAL = "client_connection_check_interval"
SESSION_LIMITS = {
    # The role's own limits would end the session during a long statement, or between two attempts.
    "statement_timeout": "0",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
    # They end the session, and release its locks, after the death of the client or of its machine.
    CHECK_INTERVAL: "1s",
    "tcp_user_timeout": f"{UNACKNOWLEDGED_SECONDS}s",
    **{f"tcp_keepalives_{name}": str(value) for name, value in KEEPALIVE.items()},
}
TRANSACTION_TIMEOUT_SINCE = 170_000


def psycopg_connection(connection: Connection) -> psycopg.Connection:
    """Return the psycopg connection behind `connection`."""
    return cast("psycopg.Connection", connection.connection.dbapi_connection)


def limit_session(connection: Connection, *, local: bool = False, **settings: str) -> None:
    """Let the server end the session if its client is stopped in a transaction or dies, but not during long work.

    `settings` are added to `SESSION_LIMITS` or replace them. With `local`, they last until the transaction ends. This
    does not take the transaction's snapshot.
    """
    limits = SESSION_LIMITS | settings
    if psycopg_connection(connection).info.server_version < TRANSACTION_TIMEOUT_SINCE:
        del limits["transaction_timeout"]
    if not read_session(connection).notices_closed_connections:
        del limits[CHECK_INTERVAL]
    keyword = "SET LOCAL" if local else "SET"
    execute_raw(connection, "; ".join(f"{keyword} {name} = {literal(value)}" for name, value in limits.items()))


@contextmanager
def keep_transaction_alive(connection: Connection) -> Iterator[None]:
    """Keep the open transaction from being idle for too long inside the block, as long as this process runs.

    Another thread sends an empty statement every second; the block may use the connection, but not end the transaction.
    """
    driver = psycopg_connection(connection)

    def beat(ended: threading.Event) -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            if driver.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS:
                # The next statement of the block raises the error of a lost connection.
                with suppress(psycopg.Error):
                    driver.execute(b"", prepare=False)

    with running_in_background(beat, "heartbeat"):
        yield


@contextmanager
def running_in_background(work: Callable[[threading.Event], object], name: str) -> Iterator[None]:
    """Run `work` in another thread during the block; the end of the block sets the event that `work` gets."""
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,), name=f"syntegra_db {name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class WatchedConnection(psycopg.Connection[Any]):
    """A connection that is closed if its server's host stops answering while it waits."""

    def wait(self, gen: PQGen[Any], *args: Any, **kwargs: Any) -> Any:
        """Wait as psycopg does."""
        return super().wait(_watched(gen, self), *args, **kwargs)


class AsyncWatchedConnection(psycopg.AsyncConnection[Any]):
    """The asyncio counterpart of `WatchedConnection`."""

    async def wait(self, gen: PQGen[Any], *args: Any, **kwargs: Any) -> Any:
        """Wait as psycopg does."""
        return await super().wait(_watched(gen, self), *args, **kwargs)


def watch_connections(engine: Engine) -> None:
    """Let `engine`, or the engine behind an asyncio engine, open connections that do not wait for a silent network."""

    def connect(dialect: Dialect, _: object, arguments: list[Any], parameters: dict[str, Any]) -> Any:
        if dialect.is_async:
            parameters.setdefault("async_creator_fn", AsyncWatchedConnection.connect)
            return None
        return WatchedConnection.connect(*arguments, **parameters)

    event.listen(engine, "do_connect", connect)


def _watched(gen: PQGen[Any], connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> PQGen[Any]:
    """Run a generator of psycopg, which receives a false value ten times a second while nothing arrives."""
    heard, probe, failures = time.monotonic(), None, 0
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                heard, probe, failures = time.monotonic(), None, 0
            elif probe is None:
                # Not for a Unix socket, which has no network.
                if time.monotonic() - heard >= SILENCE_SECONDS and connection.pgconn.hostaddr:
                    probe = _start_probe(connection.info.hostaddr, connection.info.port)
            elif probe.done():
                failures = 0 if probe.result() else failures + 1
                if failures == PROBES:
                    connection.pgconn.finish()
                    raise psycopg.OperationalError("the server's host does not answer")
                heard, probe = heard if failures else time.monotonic(), None
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value


def _start_probe(host: str, port: int) -> Future[bool]:
    """Find out in another thread whether `host` answers: a rejected or closed connection is an answer too."""
    answered: Future[bool] = Future()

    def probe() -> None:
        try:
            with socket.create_connection((host, port), PROBE_SECONDS) as connection:
                connection.sendall(SSL_REQUEST)
                connection.recv(1)
        except OSError as error:
            answered.set_result(error.errno not in SILENCE_ERRORS and not isinstance(error, TimeoutError))
        else:
            answered.set_result(True)

    threading.Thread(target=probe, name="syntegra_db probe", daemon=True).start()
    return answered
