"""Find out whether a transaction was committed if the connection was lost before the answer to COMMIT arrived."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from psycopg.errors import InvalidParameterValue
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from syntegra_db.connections import connect
from syntegra_db.errors import CommitUnconfirmed, ConnectionFailed, server_message
from syntegra_db.settings import describe_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

logger = logging.getLogger(__name__)

# A server that crashed needs time to recover, and a commit that waits for a standby is still in progress.
CONFIRMATION_TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.2
TRANSACTION_ID = text("SELECT CAST(pg_catalog.pg_current_xact_id_if_assigned() AS pg_catalog.text)")
TRANSACTION_STATUS = text("SELECT pg_catalog.pg_xact_status(CAST(:id AS pg_catalog.xid8))")


def connection_was_lost(error: DBAPIError) -> bool:
    """Return whether `error` leaves open what the server did, unlike an error that the server reported in a session."""
    diagnosis = getattr(error.orig, "diag", None)
    return getattr(diagnosis, "severity_nonlocalized", None) != "ERROR"


def transaction_id(connection: Connection) -> str | None:
    """Return the id of the open transaction for `was_committed`, or None if it has changed nothing so far."""
    identifier: str | None = connection.scalar(TRANSACTION_ID)
    return identifier


@contextmanager
def confirmed_transaction(connection: Connection) -> Iterator[None]:
    """Run the block in a transaction and commit it; if the answer to COMMIT is lost, ask on a new connection.

    After a loss the connection is invalidated, also if the transaction was committed.

    Raises:
        DBAPIError: a statement or COMMIT failed, and the transaction was rolled back.
        CommitUnconfirmed: see `was_committed`.
    """
    with connection.begin() as transaction:
        yield
        identifier = transaction_id(connection)
        try:
            transaction.commit()
        except DBAPIError as error:
            if not connection_was_lost(error):
                raise
            connection.invalidate()
            if not was_committed(connection.engine, identifier):
                raise
        except KeyboardInterrupt as interruption:
            committed = was_committed(connection.engine, identifier)
            interruption.add_note(f"The changes were {'committed' if committed else 'rolled back'}.")
            raise


def was_committed(engine: Engine, identifier: str | None) -> bool:
    """Ask on new connections, until the transaction has ended, whether it was committed, and log the answer.

    Raises:
        CommitUnconfirmed: no new connection gave the answer in time; the message says how to ask later.
    """
    if identifier is None:
        return False
    logger.warning("The answer to COMMIT was lost; asking on a new connection whether the transaction was committed")
    deadline = time.monotonic() + CONFIRMATION_TIMEOUT_SECONDS
    while True:
        reason = "it is still in progress"
        try:
            with connect(engine) as connection:
                status = _status(connection, identifier)
        except (ConnectionFailed, DBAPIError) as error:
            status, reason = None, server_message(error)
        if status in {"committed", "aborted"}:
            logger.warning("The transaction was %s", "committed" if status == "committed" else "rolled back")
            return status == "committed"
        if time.monotonic() > deadline:
            raise CommitUnconfirmed(
                f"The connection to the {describe_database(engine.url)} was lost during COMMIT, and it is unknown "
                f'whether the changes were committed: {reason} To find out, run: syntegra-db psql -c "SELECT '
                f"pg_catalog.pg_xact_status('{identifier}')\". After `committed`, the changes are complete; after "
                "`aborted`, nothing was changed, and you can run this again."
            )
        time.sleep(POLL_SECONDS)


def _status(connection: Connection, identifier: str) -> str | None:
    try:
        status: str | None = connection.scalar(TRANSACTION_STATUS, {"id": identifier})
    except DBAPIError as error:
        if not isinstance(error.orig, InvalidParameterValue):
            raise
        # "The transaction ID is in the future": the server crashed before it stored anything of the transaction.
        return "aborted"
    return status
