"""Retry work that failed because other sessions hold locks."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, TypeVar

from psycopg.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from syntegra_db.connections import poll_in_background
from syntegra_db.errors import LockTimeout
from syntegra_db.migrations._blockers import BlockerMonitor

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from syntegra_db.migrations._options import MigrationOptions

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
SAVEPOINT = "syntegra_db_attempt"
INITIAL_BACKOFF_SECONDS = 0.25
MAX_BACKOFF_SECONDS = 5.0
# Of a pause, so that two processes do not try at the same moments.
MIN_JITTER = 0.5


def retry_on_lock_error(
    connection: Connection,
    attempt: Callable[[], Result],
    *,
    options: MigrationOptions,
    end_attempt: Callable[[], bool],
    describe_state: Callable[[], str],
) -> Result:
    """Return the result of `attempt`, repeated after a lock timeout or a deadlock, with growing pauses.

    The caller sets `lock_timeout` on the session. `end_attempt` rolls a failed attempt back, and returns True if part
    of the work was committed; the retry time then starts again. `describe_state` returns the sentence that tells the
    user what was changed if every attempt fails.

    Raises:
        LockTimeout: other sessions held a lock for longer than the options allow; the message names them.
    """
    blockers = BlockerMonitor(connection.scalars(text("SELECT pg_backend_pid()")).one())
    deadline, pause = time.monotonic() + options.lock_retry_timeout, INITIAL_BACKOFF_SECONDS
    while True:
        try:
            with poll_in_background(
                connection.engine, blockers.read, options.lock_timeout / 2, blockers.record_failure
            ):
                return attempt()
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable | DeadlockDetected):
                raise
        if end_attempt():
            deadline, pause = time.monotonic() + options.lock_retry_timeout, INITIAL_BACKOFF_SECONDS
        if time.monotonic() + pause > deadline:
            raise LockTimeout(
                f"The lock was not obtained in {options.lock_retry_timeout:g} s, blocked by {blockers}. "
                f"{describe_state()} End the blocking transactions, or allow more time with "
                "SYNTEGRA_LOCK_RETRY_TIMEOUT, and run this again."
            )
        jittered = pause * random.uniform(MIN_JITTER, 1)  # noqa: S311  spreads attempts, guards nothing
        logger.info("The lock was not obtained, blocked by %s; trying again in %.1f s", blockers, jittered)
        time.sleep(jittered)
        pause = min(2 * pause, MAX_BACKOFF_SECONDS)


def most_attempts(options: MigrationOptions) -> int:
    """Return how often `retry_on_lock_error` tries at most, if each attempt waits once for `lock_timeout`."""
    attempts, elapsed, pause = 1, options.lock_timeout, INITIAL_BACKOFF_SECONDS
    while elapsed + pause <= options.lock_retry_timeout:
        elapsed += MIN_JITTER * pause + options.lock_timeout
        attempts += 1
        pause = min(2 * pause, MAX_BACKOFF_SECONDS)
    return attempts


def retry_in_savepoint(
    connection: Connection,
    work: Callable[[], Result],
    options: MigrationOptions,
    *,
    state: str = "Nothing was changed.",
) -> Result:
    """Return the result of `work`, done in a savepoint and repeated after a lock timeout or a deadlock.

    Locks that the transaction holds already are kept between attempts. `state` is the sentence that tells
    the user what was changed if every attempt fails.

    Raises:
        LockTimeout: other sessions held a lock for longer than the options allow; the message names them.
    """
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {options.lock_timeout_milliseconds}")

    def attempt() -> Result:
        connection.exec_driver_sql(f"SAVEPOINT {SAVEPOINT}")
        result = work()
        connection.exec_driver_sql(f"RELEASE SAVEPOINT {SAVEPOINT}")
        return result

    def end_attempt() -> bool:
        # Released too: a transaction with an open savepoint cannot export its snapshot, as a backup does.
        connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {SAVEPOINT}")
        connection.exec_driver_sql(f"RELEASE SAVEPOINT {SAVEPOINT}")
        return False

    return retry_on_lock_error(
        connection, attempt, options=options, end_attempt=end_attempt, describe_state=lambda: state
    )
