"""Connections for the tools, and the diagnosis of one that failed.

libpq gives no SQLSTATE for a failed connection, and a server's messages may be in any language, so the diagnosis makes
further attempts instead of reading the message.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from syntegra_db.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    DatabaseNotFound,
    ServerUnreachable,
    SettingsError,
    server_message,
)
from syntegra_db.network import LIBPQ_LIMITS, watch_connections
from syntegra_db.settings import describe_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.engine.interfaces import IsolationLevel

APPLICATION_NAME = "syntegra_db"
MAINTENANCE_DATABASE = "postgres"


def connect_args(url: URL, application_name: str) -> dict[str, Any]:
    """Return libpq's parameters for a connection to `url` that the URL itself does not set."""
    arguments: dict[str, Any] = {
        "application_name": application_name,
        **LIBPQ_LIMITS,
        # A database with the encoding SQL_ASCII would send bytes instead of text.
        "client_encoding": "utf8",
    }
    return {name: value for name, value in arguments.items() if name not in url.query}


def conninfo(url: URL, database: str | None = None) -> str:
    """Return libpq's connection string for `url`, or for another `database` of the same server."""
    parameters: dict[str, Any] = {
        **connect_args(url, APPLICATION_NAME),
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "dbname": database or url.database,
    }
    query = {name: value if isinstance(value, str) else ",".join(value) for name, value in url.query.items()}
    return make_conninfo(**query | {name: str(value) for name, value in parameters.items() if value is not None})


def unpooled_engine(url: URL, application_name: str = APPLICATION_NAME) -> Engine:
    """Return an engine without a pool, for a tool that opens a connection, uses it and closes it."""
    arguments = connect_args(url, application_name)
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=arguments)
    watch_connections(engine)
    return engine


@contextmanager
def connect(engine: Engine, isolation_level: IsolationLevel = "READ COMMITTED") -> Iterator[Connection]:
    """Open a connection; if that fails, or the connection is lost later, raise an error that says what to do.

    Its transactions have `isolation_level`, because the default of the engine, role or database may be another one.

    Raises:
        ServerUnreachable, AuthenticationFailed, DatabaseNotFound, ConnectionFailed: the reasons.
    """
    try:
        connection = engine.connect().execution_options(isolation_level=isolation_level)
    except OperationalError as error:
        raise diagnose_connection_failure(engine.url, error.orig) from None
    except (DBAPIError, UnicodeError) as error:
        # libpq does not accept a parameter of the URL or its value, or the host cannot be the name of one.
        raise SettingsError(
            f"The URL of the {describe_database(engine.url)} is wrong: {server_message(error)}."
        ) from None
    try:
        with connection:
            yield connection
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        where, reason = describe_database(engine.url), server_message(error.orig)
        raise ConnectionFailed(f"The connection to {where} was lost ({reason}); run this again.") from error


@contextmanager
def poll_in_background(
    engine: Engine,
    read: Callable[[Connection], object],
    seconds: float,
    on_error: Callable[[SQLAlchemyError], object] = lambda _: None,
) -> Iterator[None]:
    """Call `read` every `seconds` with a second connection, in another thread, until the block ends.

    The connection is opened after the first `seconds`. An error ends the polling, not the block, and is passed to
    `on_error`.
    """
    ended = threading.Event()

    def poll() -> None:
        if ended.wait(seconds):
            return
        try:
            # In autocommit: an open transaction would delay a concurrent index build.
            with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                while True:
                    read(connection)
                    if ended.wait(seconds):
                        return
        except SQLAlchemyError as error:
            on_error(error)

    thread = threading.Thread(target=poll, name="syntegra_db polling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def diagnose_connection_failure(url: URL, error: BaseException | None) -> ConnectionFailed:
    """Return the error for a connection to `url` that could not be opened.

    It checks whether the server accepts connections (`PQping`, which needs no password), then whether the same login
    can open the database `postgres`, and whether the database of `url` exists.
    """
    where = describe_database(url)
    reply = server_message(error)
    ping = pq.PGconn.ping(conninfo(url).encode())
    if ping == pq.Ping.REJECT:
        return ServerUnreachable(
            f"The server of {where} does not accept connections yet ({reply}); try again in a few seconds."
        )
    if ping != pq.Ping.OK:
        return ServerUnreachable(
            f"No PostgreSQL server answers for {where} ({reply}). Start it (`make up`, or `syntegra-db local start`), "
            f"or correct DATABASE_URL or POSTGRES_HOST and POSTGRES_PORT in the environment or .env."
        )
    listed = _database_exists(url)
    if listed is None:
        return AuthenticationFailed(
            f"The server rejected user {url.username} for {where} ({reply}). If the user or the password is wrong, "
            f"correct it in DATABASE_URL, or in POSTGRES_USER and POSTGRES_PASSWORD, in the environment or .env."
        )
    if not listed:
        return DatabaseNotFound(
            f"The server has no {where}. Create it (`createdb -O {url.username} {url.database}`), or correct "
            "DATABASE_URL or POSTGRES_DB in the environment or .env."
        )
    return ConnectionFailed(f"The server did not open {where}: {reply}.")


def _database_exists(url: URL) -> bool | None:
    try:
        with psycopg.connect(conninfo(url, MAINTENANCE_DATABASE), autocommit=True) as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", (url.database,)).fetchone()
            return found is not None
    except psycopg.OperationalError:
        return None
