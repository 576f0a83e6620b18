"""What the sessions of a backup, a restore and a rollback have in common: long transactions, short waits for locks."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import psycopg
from psycopg.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy import exists, func, select, table, text
from sqlalchemy.exc import DBAPIError, OperationalError

from syntegra_db.catalog._manifest import all_revisions, load_manifest
from syntegra_db.errors import LockTimeout
from syntegra_db.migrations import _one_alembic
from syntegra_db.migrations._blockers import BlockerMonitor
from syntegra_db.migrations._runner import INITIAL_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS
from syntegra_db.revisions import alembic_config
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from alembic.config import Config
    from sqlalchemy import Connection

    from syntegra_db.migrations._options import MigrationOptions

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
TRANSACTION_TIMEOUT_SINCE = 17
EXISTING_TABLES = text("""
    SELECT relname FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'p')
      AND relname = ANY (:names)
""")


class RowProgress(NamedTuple):
    """How far the work is: rows of how many, and bytes of a file written or of rows sent."""

    rows: int
    total_rows: int
    bytes: int


def psycopg_connection(connection: Connection) -> psycopg.Connection:
    """Return psycopg's connection beneath."""
    return cast("psycopg.Connection", connection.connection.dbapi_connection)


def server_version(connection: Connection) -> int:
    """Return the server's major version, from what it said when the session began."""
    return psycopg_connection(connection).info.server_version // 10_000


def begin_unlimited_transaction(connection: Connection) -> None:
    """Begin the transaction if need be, without limits of time, and so that hidden rows are an error.

    Its snapshot is not yet taken by that.
    """
    limits = ["statement_timeout", "idle_in_transaction_session_timeout"]
    if server_version(connection) >= TRANSACTION_TIMEOUT_SINCE:
        limits.append("transaction_timeout")
    for limit in limits:
        connection.exec_driver_sql(f"SET LOCAL {limit} = 0")
    connection.exec_driver_sql("SET LOCAL row_security = off")


def tables_at_revision(revision: str) -> list[str]:
    """Return the tables of `revision` in the order of the revisions that made them, referenced ones first."""
    known = all_revisions()
    earlier = known[: known.index(revision) + 1]
    kept = load_manifest(revision).tables
    return [
        name
        for name in dict.fromkeys(name for number in earlier for name in load_manifest(number).tables)
        if name in kept
    ]


def existing_tables(connection: Connection, names: Iterable[str]) -> list[str]:
    """Return those of `names` that are tables of the current schema, in the order given."""
    there = set(connection.scalars(EXISTING_TABLES, {"names": list(names)}))
    return [name for name in names if name in there]


def nonempty_tables(connection: Connection, tables: Iterable[str]) -> list[str]:
    """Return those of `tables` that hold a row."""
    return [name for name in tables if connection.scalar(select(exists().select_from(table(name))))]


def count_rows(connection: Connection, tables: Iterable[str]) -> dict[str, int]:
    """Return the rows of each of `tables`."""
    return {name: connection.scalars(select(func.count()).select_from(table(name))).one() for name in tables}


def move(command: Callable[[Config, str], None], connection: Connection, revision: str) -> None:
    """Upgrade or downgrade, as Alembic's `command` does, inside the transaction that `connection` is in."""
    config = alembic_config()
    config.attributes["connection"] = connection
    with _one_alembic:
        command(config, revision)


def lock_tables(connection: Connection, tables: Iterable[str], mode: str, options: MigrationOptions) -> None:
    """Lock `tables` in `mode` until the transaction ends, waiting as `patiently` does.

    Raises:
        LockNotObtained: others kept one of them locked.
    """
    names = ", ".join(quote(name) for name in tables)
    if names:
        patiently(connection, lambda: connection.exec_driver_sql(f"LOCK TABLE {names} IN {mode} MODE"), options)


def patiently(connection: Connection, work: Callable[[], Result], options: MigrationOptions) -> Result:
    """Do `work` in a savepoint, and again when a lock is not to be had, as a migration does.

    What the transaction had locked before stays locked in the pauses.

    Raises:
        LockNotObtained: others kept a lock for longer than the options allow; the message says who.
    """
    pid = psycopg_connection(connection).info.backend_pid
    deadline = time.monotonic() + options.lock_retry_timeout
    pause = INITIAL_BACKOFF_SECONDS
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{max(1, round(options.lock_timeout * 1000))}ms'")
    while True:
        savepoint = connection.begin_nested()
        try:
            with BlockerMonitor(connection.engine, pid, options.lock_timeout / 2) as watch:
                result = work()
            savepoint.commit()
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable | DeadlockDetected):
                raise
            savepoint.rollback()
        else:
            return result
        if time.monotonic() + pause > deadline:
            raise LockTimeout(
                f"No lock after {options.lock_retry_timeout:g} s of trying: {watch}. Nothing was changed. End that "
                "transaction, or allow more time with SYNTEGRA_LOCK_PATIENCE, and run this again."
            )
        jittered = pause * random.uniform(0.5, 1)  # noqa: S311  spreads attempts, guards nothing
        logger.info("Stepped aside and trying again in %.1f s; waited for %s", jittered, watch)
        time.sleep(jittered)
        pause = min(2 * pause, MAX_BACKOFF_SECONDS)


def reason(error: DBAPIError | psycopg.Error) -> str:
    """Return the server's own sentence, without the statement or the row that it was about."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    primary = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
    return primary or str(cause).strip().partition("\n")[0]
