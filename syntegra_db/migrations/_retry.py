"""Repeat work that other sessions' locks kept from running."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, TypeVar

from psycopg.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from syntegra_db.connections import polling
from syntegra_db.errors import LockTimeout
from syntegra_db.migrations._blockers import BlockerMonitor

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from syntegra_db.migrations._options import MigrationOptions

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
INITIAL_BACKOFF_SECONDS = 0.25
MAX_BACKOFF_SECONDS = 5.0


def retry_on_lock_error(
    connection: Connection,
    attempt: Callable[[], Result],
    *,
    options: MigrationOptions,
    roll_back: Callable[[], bool],
    describe_state: Callable[[], str],
) -> Result:
    """Return the result of `attempt`, repeated after a lock timeout or a deadlock, with growing pauses.

    The caller sets `lock_timeout` on the session. `roll_back` ends a failed attempt and returns whether part of its
    work was committed, which starts `options.lock_retry_timeout` again. `describe_state` says in a sentence what the
    failed attempts changed.

    Raises:
        LockTimeout: other sessions kept a lock for longer than the options allow; the message names them.
    """
    blockers = BlockerMonitor(connection.scalars(text("SELECT pg_backend_pid()")).one())
    deadline, pause = time.monotonic() + options.lock_retry_timeout, INITIAL_BACKOFF_SECONDS
    while True:
        try:
            with polling(connection.engine, blockers.read, options.lock_timeout / 2, blockers.record_failure):
                return attempt()
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable | DeadlockDetected):
                raise
        if roll_back():
            deadline, pause = time.monotonic() + options.lock_retry_timeout, INITIAL_BACKOFF_SECONDS
        if time.monotonic() + pause > deadline:
            raise LockTimeout(
                f"No lock after {options.lock_retry_timeout:g} s of retries, because of {blockers}. {describe_state()} "
                "End that transaction, or allow more time with SYNTEGRA_LOCK_RETRY_TIMEOUT, and run this again."
            )
        jittered = pause * random.uniform(0.5, 1)  # noqa: S311  spreads attempts, guards nothing
        logger.info("Lock not obtained because of %s; trying again in %.1f s", blockers, jittered)
        time.sleep(jittered)
        pause = min(2 * pause, MAX_BACKOFF_SECONDS)


def retry_in_savepoint(
    connection: Connection,
    work: Callable[[], Result],
    options: MigrationOptions,
    *,
    state: str = "Nothing was changed.",
) -> Result:
    """Return the result of `work`, done in a savepoint of the open transaction and repeated after a lock timeout.

    Locks that the transaction holds already are kept between attempts. `state` says what holds after the last one.

    Raises:
        LockTimeout: other sessions kept a lock for longer than the options allow; the message names them.
    """
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {options.lock_timeout_milliseconds}")

    def attempt() -> Result:
        with connection.begin_nested():
            return work()

    return retry_on_lock_error(
        connection, attempt, options=options, roll_back=lambda: False, describe_state=lambda: state
    )
