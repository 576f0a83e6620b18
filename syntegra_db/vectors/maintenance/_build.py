"""Building a vector index beside the one that stands, and putting it in its place."""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from psycopg.errors import DiskFull, LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from syntegra_db.errors import RebuildFailed
from syntegra_db.migrations._blockers import BLOCKERS, Blocker
from syntegra_db.models import EMBEDDING_DIMENSIONS
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.sql import quote
from syntegra_db.vectors._index import INDEX_NAMES, NEW_INDEX, OLD_INDEX

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sqlalchemy import Connection, Engine

    from syntegra_db.vectors.maintenance._resources import IndexSpec

logger = logging.getLogger(__name__)

# Twice pgvector's own: building takes twice as long, and a recall of .95 takes two thirds of the ef_search.
EF_CONSTRUCTION = 128
LOCK_TIMEOUT_SECONDS = 0.5
SWAP_PATIENCE_SECONDS = 60
LONGEST_PAUSE_SECONDS = 5.0
POLL_SECONDS = 0.25
# A build may take hours, whatever the role or the database allows a statement; and it must not go on for long in the
# server once nobody waits for it.
SESSION_SETTINGS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
    "client_connection_check_interval": "1s",
    "client_min_messages": "warning",
}
# In whatever language the server says that it is full.
SHARED_MEMORY_ERROR_MARK = "/PostgreSQL."
SET_SESSION = text(
    "SELECT set_config(name, :value, false) FROM pg_settings WHERE name = :name AND setting IS DISTINCT FROM :value"
)
VALIDITY = text(
    """
    SELECT relname, indisvalid
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = to_regclass('text_summary') AND relname = ANY (:names)
    """
)
PROGRESS = text(
    "SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total FROM pg_stat_progress_create_index "
    "WHERE pid = :pid"
)


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is: the server's own name of its phase, the part of it that is done, and who is waited for.

    `done` and `total` are rows or blocks of this phase; `total` is 0 where the server does not count.
    """

    phase: str
    done: int = 0
    total: int = 0
    blocked_by: tuple[Blocker, ...] = ()


def configure_session(connection: Connection) -> int:
    """Let the session of `connection`, in autocommit, work for hours, and not on without its client; return its pid."""
    for name, value in SESSION_SETTINGS.items():
        connection.execute(SET_SESSION, {"name": name, "value": value})
    pid: int = connection.scalars(text("SELECT pg_backend_pid()")).one()
    return pid


def recover_interrupted_rebuild(connection: Connection) -> None:
    """Bring about, after whatever a rebuild was interrupted in, that only the index of the real name is left.

    One that works keeps or gets that name: where the index of the name is missing or invalid, the new one that a
    rebuild had finished, or the old one that it had not dropped yet.
    """
    standing = index_validity(connection)
    if not standing.get(VECTOR_INDEX):
        rescued = next((name for name in (NEW_INDEX, OLD_INDEX) if standing.get(name)), None)
        if rescued is not None:
            if VECTOR_INDEX in standing:
                drop_index(connection, VECTOR_INDEX)
            patiently(connection, f"ALTER INDEX {rescued} RENAME TO {VECTOR_INDEX}")
            logger.info("%s, from an interrupted rebuild, is %s again", rescued, VECTOR_INDEX)
            standing = index_validity(connection)
    for name in (NEW_INDEX, OLD_INDEX):
        if name in standing:
            drop_index(connection, name)
            logger.info("Dropped %s, which an interrupted rebuild had left", name)


def index_validity(connection: Connection) -> dict[str, bool]:
    """Return which indexes of a rebuild there are on text_summary, and whether they are valid."""
    found = connection.execute(VALIDITY, {"names": [*INDEX_NAMES]})
    return {name: is_valid for name, is_valid in found}  # noqa: C416  rows are no pairs to mypy


def build_index(
    connection: Connection, kind: IndexSpec, *, memory: int, workers: int, tablespace: str | None = None
) -> None:
    """Build the new index beside the standing one, while others read and write.

    Where the parallel workers' shared memory does not fit, as in a container with the usual 64 MB of it, once more
    without them.
    """
    embedding = f"((embedding::halfvec({EMBEDDING_DIMENSIONS})) halfvec_cosine_ops)"
    column = embedding if kind.is_half else "(embedding vector_cosine_ops)"
    options = f"lists = {kind.lists:d}" if kind.method == "ivfflat" else f"ef_construction = {EF_CONSTRUCTION}"
    place = f" TABLESPACE {quote(tablespace)}" if tablespace else ""
    statement = (
        f"CREATE INDEX CONCURRENTLY {NEW_INDEX} ON text_summary USING {kind.method} {column} WITH ({options}){place}"
    )
    connection.exec_driver_sql(f"SET maintenance_work_mem = '{memory // 1024:d}kB'")
    connection.exec_driver_sql(f"SET max_parallel_maintenance_workers = {workers:d}")
    try:
        connection.exec_driver_sql(statement)
    except OperationalError as error:
        if not (workers and isinstance(error.orig, DiskFull) and SHARED_MEMORY_ERROR_MARK in str(error.orig)):
            raise
        logger.warning("There is too little shared memory for parallel workers (%s); building without them", error.orig)
        drop_index(connection, NEW_INDEX)
        connection.exec_driver_sql("SET max_parallel_maintenance_workers = 0")
        connection.exec_driver_sql(statement)


def swap_indexes(connection: Connection) -> None:
    """Give the new index the real name, and the one that had it the name of the old one, in one transaction.

    Nobody who reads or writes waits for it: renaming an index conflicts with nothing that they hold.

    Raises:
        RebuildFailed: others kept one of the indexes locked for a minute.
    """
    renamings = [f"ALTER INDEX {NEW_INDEX} RENAME TO {VECTOR_INDEX}"]
    if VECTOR_INDEX in index_validity(connection):
        renamings.insert(0, f"ALTER INDEX {VECTOR_INDEX} RENAME TO {OLD_INDEX}")
    patiently(connection, *renamings)


def drop_index(connection: Connection, name: str) -> None:
    """Drop an index while others read and write, if it is there."""
    connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def patiently(connection: Connection, *statements: str) -> None:
    """Run statements as one transaction that waits half a second for a lock, steps aside and tries again for a minute.

    Raises:
        RebuildFailed: it got no lock.
    """
    deadline = time.monotonic() + SWAP_PATIENCE_SECONDS
    pause = LOCK_TIMEOUT_SECONDS
    limit = f"SET LOCAL lock_timeout = '{1000 * LOCK_TIMEOUT_SECONDS:.0f}ms'"
    while True:
        try:
            # psycopg sends them as one message, which the server runs as one transaction.
            connection.exec_driver_sql("; ".join((f"BEGIN; {limit}", *statements, "COMMIT")))
        except OperationalError as error:
            connection.exec_driver_sql("ROLLBACK")
            if not isinstance(error.orig, LockNotAvailable):
                raise
            if time.monotonic() + pause > deadline:
                raise RebuildFailed(
                    f"Others kept the vector index locked for {SWAP_PATIENCE_SECONDS} s, so that the new one did not "
                    "get its name or its settings. The one of that name stands; run this again when they have ended."
                ) from None
            time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  spreads attempts, guards nothing
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        else:
            return


class BuildMonitor:
    """Tells `show` how far the session `pid` is with its index, asked on a connection of its own."""

    def __init__(self, engine: Engine, pid: int, show: Callable[[BuildProgress], None] | None) -> None:
        self._engine = engine
        self._pid = pid
        self._show = show
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="syntegra_db build watch", daemon=True)

    def __enter__(self) -> Self:
        if self._show is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        if self._show is not None:
            self._thread.join()

    def _watch(self) -> None:
        # A build waits for every transaction that is older than it; these end at once.
        engine = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        # Without progress, the build goes on.
        with suppress(SQLAlchemyError), engine.connect() as connection:
            while not self._done.wait(POLL_SECONDS):
                progress = _read_progress(connection, self._pid)
                if progress is not None and self._show is not None:
                    self._show(progress)


def _read_progress(connection: Connection, pid: int) -> BuildProgress | None:
    found = connection.execute(PROGRESS, {"pid": pid}).first()
    if found is None or found[0].startswith("waiting"):
        blockers = tuple(Blocker(*row) for row in connection.execute(BLOCKERS, {"pid": pid}))
        # While an index is dropped, the server tells of no phase.
        phase = found[0] if found else "waiting to drop the old index"
        return BuildProgress(phase, blocked_by=blockers) if found or blockers else None
    phase, blocks_done, blocks_total, tuples_done, tuples_total = found
    if tuples_total:
        return BuildProgress(phase, tuples_done, tuples_total)
    return BuildProgress(phase, blocks_done, blocks_total)


def first_line(error: DBAPIError) -> str:
    """Return the server's own words, without the statement."""
    return str(error.orig).partition("\n")[0]
