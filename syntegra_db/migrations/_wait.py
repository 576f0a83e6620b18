"""Wait until the server accepts connections, and until the database is migrated."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from syntegra_db import settings
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import ConnectionFailed, DatabaseBehind, LockTimeout, ServerUnreachable, SyntegraDBError
from syntegra_db.interruption import report_if_interrupted
from syntegra_db.migrations._require_revision import read_required_revision
from syntegra_db.network import LIBPQ_LIMITS

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

logger = logging.getLogger(__name__)

WAIT_SECONDS = 60
INITIAL_POLL_SECONDS = 0.1
MAX_POLL_SECONDS = 1.0
# psycopg takes no shorter one.
MIN_CONNECT_SECONDS = 2
CONNECT_TIMEOUT = "connect_timeout"


def wait_for_database(
    bind: URL | Engine | None = None, *, timeout: float = WAIT_SECONDS, at_least: str | None = None
) -> str | None:
    """Wait at most `timeout` seconds until the database at `bind` accepts connections; the settings name the default.

    With a revision `at_least`, wait until `read_required_revision` passes too, and return its revision; otherwise
    return None. An error that waiting does not end, such as a wrong password, is raised at once. An attempt to connect
    can end up to 2 s after the timeout; those of an engine have its own limits.

    Raises:
        ServerUnreachable: no server accepted connections in time.
        DatabaseBehind: the database was not migrated in time.
        LockTimeout: the version table was locked until the end.
        AuthenticationFailed, DatabaseNotFound, ConnectionFailed, SettingsError: see `connect`.
        DatabaseAhead, TablesInOtherSchema, RevisionError: see `read_required_revision`.
    """
    bind = bind or settings.database_url()
    aim = f"revision {at_least}" if at_least else "the server"
    deadline, pause, latest = time.monotonic() + timeout, INITIAL_POLL_SECONDS, ""
    with report_if_interrupted(lambda: f"It was waiting for {aim}; nothing was changed."):
        while True:
            try:
                return _attempt(_engine(bind, deadline - time.monotonic()), at_least)
            except SyntegraDBError as error:
                if not _can_pass(error):
                    raise
                left = deadline - time.monotonic()
                if left <= 0:
                    raise type(error)(f"Waited {timeout:g} s for {aim}. {error}") from None
                if str(error) != latest:
                    latest = str(error)
                    logger.info("Waiting for %s, at most %.0f s more. %s", aim, left, latest)
            time.sleep(min(pause, left))
            pause = min(2 * pause, MAX_POLL_SECONDS)


def _attempt(engine: Engine, at_least: str | None) -> str | None:
    if at_least is not None:
        return read_required_revision(engine, at_least=at_least)
    with connect(engine):
        return None


def _can_pass(error: SyntegraDBError) -> bool:
    """Return whether waiting can end `error`: a server that starts or was restarted, or a migration that runs later."""
    was_lost = isinstance(error, ConnectionFailed) and isinstance(error.__cause__, DBAPIError)
    return was_lost or isinstance(error, ServerUnreachable | DatabaseBehind | LockTimeout)


def _engine(bind: URL | Engine, seconds: float) -> Engine:
    """Return `bind`, or an engine whose attempts to connect end in about `seconds`."""
    if isinstance(bind, Engine):
        return bind
    limit = max(MIN_CONNECT_SECONDS, math.ceil(seconds))
    configured = str(bind.query.get(CONNECT_TIMEOUT, LIBPQ_LIMITS[CONNECT_TIMEOUT]))
    # 0 is no limit; an error is reported by the attempt.
    if configured.isdecimal() and not 0 < int(configured) <= limit:
        bind = bind.update_query_dict({CONNECT_TIMEOUT: str(limit)})
    return unpooled_engine(bind)
