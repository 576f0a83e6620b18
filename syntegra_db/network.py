"""Limits for what a stopped process, a dead machine or a silent network leaves waiting."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

import psycopg

from syntegra_db.sql import execute_raw, literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

# Python needs milliseconds between two statements. A stopped process keeps its locks for this long.
IDLE_IN_TRANSACTION_SECONDS = 5
HEARTBEAT_SECONDS = 1
# After this time without an acknowledgement, each side takes the connection for lost: the sum of the keepalives.
UNACKNOWLEDGED_SECONDS = 25
KEEPALIVE = {"idle": 10, "interval": 5, "count": 3}
SESSION_LIMITS = {
    # The role's own limits would end the session during a long statement, or between two attempts.
    "statement_timeout": "0",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
    # They end the session, and release its locks, after the death of the client or of its machine.
    "client_connection_check_interval": "1s",
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
    keyword = "SET LOCAL" if local else "SET"
    execute_raw(connection, "; ".join(f"{keyword} {name} = {literal(value)}" for name, value in limits.items()))


@contextmanager
def keep_transaction_alive(connection: Connection) -> Iterator[None]:
    """Keep the open transaction from being idle for too long inside the block, as long as this process runs.

    Another thread sends an empty statement every second; the block may use the connection, but not end the transaction.
    """
    driver = psycopg_connection(connection)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            if driver.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS:
                # The next statement of the block raises the error of a lost connection.
                with suppress(psycopg.Error):
                    driver.execute(b"", prepare=False)

    thread = threading.Thread(target=beat, name="syntegra_db heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
