"""The setting `syntegra.client_id` of a transaction, which the policies read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus

from syntegra_db.client_setting import SETTING
from syntegra_db.errors import UnsupportedSession
from syntegra_db.sql import execute_raw

if TYPE_CHECKING:
    from sqlalchemy import Connection

FAILED = frozenset({TransactionStatus.INERROR, TransactionStatus.UNKNOWN})


def set_client(connection: Connection, client_id: int | None) -> None:
    """Set the client of the open transaction, or none; after an error the connection is of no further use.

    It lasts until the transaction ends, and ROLLBACK TO SAVEPOINT reverts it.
    """
    value = "" if client_id is None else str(client_id)
    statement = f"SELECT pg_catalog.set_config('{SETTING}', '{value}', true)"
    try:
        try:
            _execute(connection, statement)
        except psycopg.Error:
            # SQLAlchemy raises its own error, and notices that a connection was lost.
            execute_raw(connection, statement)
    except BaseException as error:
        # A cancelled task leaves it unknown what the server did. A failed transaction takes no more statements.
        if is_usable(connection) or not isinstance(error, Exception):
            connection.invalidate(error)
        raise


def is_usable(connection: Connection) -> bool:
    """Return whether the transaction of `connection` takes statements: it has not failed, and is not lost."""
    if connection.closed or connection.invalidated:
        return False
    return _driver(connection).info.transaction_status not in FAILED


def is_in_autocommit(connection: Connection) -> bool:
    """Return whether each statement is its own transaction, in which the setting would not last."""
    return bool(_driver(connection).autocommit)


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _execute(connection: Connection, statement: str) -> None:
    """Execute `statement` with a third of the time that SQLAlchemy needs, and without preparing it.

    Prepared, each client's would take the place of another statement in the driver's cache.
    """
    driver: Any = _driver(connection)
    if driver.info.transaction_status == TransactionStatus.ACTIVE and not driver.pgconn.pipeline_status:
        # The driver would wait for the end of it.
        raise UnsupportedSession(
            "The client changed while a COPY on the connection of the session was open, so the connection was closed. "
            "End the COPY in the block in which it began, and roll back the session."
        )
    if isinstance(driver, psycopg.AsyncConnection):
        adapted: Any = connection.connection.dbapi_connection
        adapted.run_async(lambda asynchronous: asynchronous.execute(statement, prepare=False))
    else:
        driver.execute(statement, prepare=False)
