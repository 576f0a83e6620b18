"""Connections for the tools."""

from __future__ import annotations

import logging
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psycopg.conninfo import make_conninfo
from sqlalchemy import NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from syntegra_db.diagnosis import diagnose_connection_failure
from syntegra_db.errors import ConnectionFailed, SettingsError, server_message
from syntegra_db.network import LIBPQ_LIMITS, running_in_background, watch_connections
from syntegra_db.search_path import secure_session
from syntegra_db.settings import PREPARE_THRESHOLD, describe_database, libpq_parameters
from syntegra_db.sql import quote_all_keywords

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.engine.interfaces import IsolationLevel

logger = logging.getLogger(__name__)

APPLICATION_NAME = "syntegra_db"
# The keywords that a statement begins with; names of this package's statements are in lower case or quoted.
STATEMENT_KIND = re.compile(r"\s*([A-Z]+(?: [A-Z]+)*)")
# The search for the type hstore, which no table uses, calls operators of any role.
ENGINE_OPTIONS: dict[str, Any] = {"use_native_hstore": False}


def connect_args(url: URL, application_name: str) -> dict[str, Any]:
    """Return the arguments of `psycopg.connect` that `url` does not set, or that SQLAlchemy passes as text."""
    arguments: dict[str, Any] = {
        "application_name": application_name,
        **LIBPQ_LIMITS,
        # A database with the encoding SQL_ASCII would send bytes instead of text.
        "client_encoding": "utf8",
    }
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    if (threshold := url.query.get(PREPARE_THRESHOLD)) is not None:
        # For psycopg, 0 means to prepare at the first use; for other drivers, never.
        arguments[PREPARE_THRESHOLD] = int(str(threshold)) or None
    return arguments


def conninfo(url: URL) -> str:
    """Return libpq's connection string for `url`, with the defaults of this package."""
    defaults = connect_args(url, APPLICATION_NAME)
    defaults.pop(PREPARE_THRESHOLD, None)
    return make_conninfo(**defaults | libpq_parameters(url))


def unpooled_engine(url: URL, application_name: str = APPLICATION_NAME) -> Engine:
    """Return an engine without a pool, for a tool that opens a connection, uses it and closes it."""
    # Behind a pooler in transaction mode, a prepared statement may be in another session.
    arguments = connect_args(url, application_name) | {PREPARE_THRESHOLD: None}
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=arguments, **ENGINE_OPTIONS)
    quote_all_keywords(engine.dialect)
    watch_connections(engine)
    secure_first_connection(engine)
    return engine


def secure_first_connection(engine: Engine) -> None:
    """Let SQLAlchemy read the current schema by a qualified name: the search_path may not begin with pg_catalog."""
    engine.dialect._get_default_schema_name = _read_current_schema  # type: ignore[method-assign]  # noqa: SLF001  no other way


def _read_current_schema(connection: Connection) -> str:
    schema: str = connection.exec_driver_sql("SELECT pg_catalog.current_schema()").scalar_one()
    return schema


@contextmanager
def connect(engine: Engine, isolation_level: IsolationLevel = "READ COMMITTED") -> Iterator[Connection]:
    """Open a connection; if that fails, or the connection is lost later, raise an error that says what to do.

    Its transactions have `isolation_level`, because the default of the engine, role or database may be another one, and
    the search_path of `search_path.secure_session`. It is closed at the end, not returned to a pool.

    Raises:
        ServerUnreachable, AuthenticationFailed, DatabaseNotFound, ConnectionFailed: the reasons.
    """
    try:
        connection = _open(engine, isolation_level)
    except OperationalError as error:
        raise diagnose_connection_failure(engine.url, conninfo(engine.url), error.orig) from None
    except (DBAPIError, UnicodeError) as error:
        # libpq does not accept a parameter of the URL or its value, or the host cannot be the name of one.
        raise SettingsError(
            f"The URL of the {describe_database(engine.url)} is wrong: {server_message(error)}."
        ) from None
    driver = connection.connection.dbapi_connection
    if logger.isEnabledFor(logging.DEBUG):
        _log_statements(connection)
    try:
        with connection:
            yield connection
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        where, reason = describe_database(engine.url), server_message(error.orig)
        raise ConnectionFailed(f"The connection to {where} was lost ({reason}); run this again.") from error
    finally:
        # Of an asyncio engine, SQLAlchemy leaves a detached connection open.
        if engine.dialect.is_async and driver is not None:
            driver.close()


def _open(engine: Engine, isolation_level: IsolationLevel) -> Connection:
    connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        secure_session(connection)
        connection.execution_options(isolation_level=isolation_level)
        connection.detach()
    except BaseException:
        connection.close()
        raise
    return connection


def _log_statements(connection: Connection) -> None:
    """Log the connection, and the kind and duration of each statement: its text can have data of clients."""
    version = ".".join(map(str, connection.dialect.server_version_info or ()))
    logger.debug("Connected to the %s, PostgreSQL %s", describe_database(connection.engine.url), version)
    started = time.monotonic()

    def begin(*_: object) -> None:
        nonlocal started
        started = time.monotonic()

    def end(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        kind = STATEMENT_KIND.match(statement)
        logger.debug("%s: %.0f ms", kind[1] if kind else "Statement", 1000 * (time.monotonic() - started))

    event.listen(connection, "before_cursor_execute", begin)
    event.listen(connection, "after_cursor_execute", end)
    for name in ("commit", "rollback"):
        event.listen(connection, name, lambda _, name=name: logger.debug("%s", name.upper()))


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

    def poll(ended: threading.Event) -> None:
        if ended.wait(seconds):
            return
        try:
            with _open(engine, "READ COMMITTED") as connection:
                while True:
                    read(connection)
                    # An open transaction would delay a concurrent index build.
                    connection.rollback()
                    if ended.wait(seconds):
                        return
        except SQLAlchemyError as error:
            on_error(error)

    with running_in_background(poll, "polling"):
        yield
