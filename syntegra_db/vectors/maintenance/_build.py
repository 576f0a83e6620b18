"""Build a vector index alongside the current one, and swap their names."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.errors import DiskFull
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from syntegra_db.connections import poll_in_background
from syntegra_db.errors import LockTimeout, RebuildFailed, server_message
from syntegra_db.migrations import Blocker, read_blockers, retry_on_lock_error
from syntegra_db.network import limit_session, psycopg_connection
from syntegra_db.search_path import extension_schema, table_name
from syntegra_db.sql import execute_raw, qualify, quote
from syntegra_db.vectors._index import IS_ON_COLUMN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from syntegra_db.migrations import MigrationOptions
    from syntegra_db.models.embeddings import EmbeddingColumn
    from syntegra_db.vectors.maintenance._resources import IndexSpec

logger = logging.getLogger(__name__)

# Twice pgvector's default: the build takes twice as long, and a recall of 0.95 takes 67 % of the ef_search.
EF_CONSTRUCTION = 128
POLL_SECONDS = 0.25
# Not translated, unlike the message around it.
SHARED_MEMORY_ERROR_MARK = "/PostgreSQL."
INDEX_VALIDITY = text(
    f"""
    SELECT relname, indisvalid
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = to_regclass(:table) AND relname = ANY (:names) AND {IS_ON_COLUMN}
    """  # noqa: S608  a constant
)
PROGRESS = text(
    "SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total FROM pg_stat_progress_create_index "
    "WHERE pid = :pid"
)


@dataclass(frozen=True)
class BuildProgress:
    """Progress of a build: the server's name of its phase, and the sessions that it waits for.

    `done` and `total` are rows or blocks of this phase; `total` is 0 if the server does not count them.
    """

    phase: str
    done: int = 0
    total: int = 0
    blocked_by: tuple[Blocker, ...] = ()


def configure_session(connection: Connection) -> int:
    """Let the session wait for locks during a build, and return the backend PID.

    From now on the session is in autocommit. Its transactions have the default isolation level, so it is set too.
    """
    connection.rollback()
    psycopg_connection(connection).autocommit = True
    limit_session(
        connection, lock_timeout="0", default_transaction_isolation="read committed", client_min_messages="warning"
    )
    pid: int = connection.scalars(text("SELECT pg_backend_pid()")).one()
    return pid


def index_validity(connection: Connection, embedding: EmbeddingColumn) -> dict[str, bool]:
    """Return the installed indexes of `embedding` with one of its `index_names`, and whether each is valid."""
    parameters = {
        "table": table_name(connection, embedding.table),
        "column": embedding.name,
        "names": [*embedding.index_names],
    }
    rows = connection.execute(INDEX_VALIDITY, parameters)
    return {name: is_valid for name, is_valid in rows}  # noqa: C416  mypy does not take rows for pairs


def recover_interrupted_rebuild(connection: Connection, embedding: EmbeddingColumn, options: MigrationOptions) -> None:
    """Recover from an interrupted rebuild: keep one working index with the declared name, drop the rest.

    If the index of that name is missing or invalid, the finished new index or the old one gets the name.
    """
    validity = index_validity(connection, embedding)
    rebuild_indexes = (embedding.new_index, embedding.old_index)
    if not validity.get(embedding.index):
        usable = next((name for name in rebuild_indexes if validity.get(name)), None)
        if usable is not None:
            if embedding.index in validity:
                drop_index(connection, embedding.index)
            run_with_retries(
                connection,
                _rename(connection, usable, embedding.index),
                options=options,
                state=f"The index {usable} is unchanged.",
            )
            logger.info("Renamed %s, left by an interrupted rebuild, to %s", usable, embedding.index)
            validity = index_validity(connection, embedding)
    for name in rebuild_indexes:
        if name in validity:
            drop_index(connection, name)
            logger.info("Dropped %s, left by an interrupted rebuild", name)


def _rename(connection: Connection, index: str, name: str) -> str:
    return f"ALTER INDEX {table_name(connection, index)} RENAME TO {quote(name)}"


def build_index(  # noqa: PLR0913  the index, its resources and its place
    connection: Connection,
    embedding: EmbeddingColumn,
    spec: IndexSpec,
    *,
    memory: int,
    workers: int,
    tablespace: str | None = None,
) -> None:
    """Build the new index alongside the current one, while other sessions read and write.

    If the shared memory of parallel workers does not fit, as in a container with 64 MB of it, build without workers.
    """
    schema = extension_schema(connection)
    halfvec, vector_ops, halfvec_ops = (
        qualify(schema, name) for name in ("halfvec", "vector_cosine_ops", "halfvec_cosine_ops")
    )
    name = quote(embedding.name)
    half = f"(({name}::{halfvec}({embedding.dimensions})) {halfvec_ops})"
    column = half if spec.is_half else f"({name} {vector_ops})"
    parameters = f"lists = {spec.lists:d}" if spec.method == "ivfflat" else f"ef_construction = {EF_CONSTRUCTION}"
    location = f" TABLESPACE {quote(tablespace)}" if tablespace else ""
    statement = (
        f"CREATE INDEX CONCURRENTLY {quote(embedding.new_index)} ON {table_name(connection, embedding.table)} "
        f"USING {spec.method} {column} WITH ({parameters}){location}"
    )
    connection.exec_driver_sql(f"SET maintenance_work_mem = '{memory // 1024:d}kB'")
    connection.exec_driver_sql(f"SET max_parallel_maintenance_workers = {workers:d}")
    try:
        execute_raw(connection, statement)
    except OperationalError as error:
        if not (workers and isinstance(error.orig, DiskFull) and SHARED_MEMORY_ERROR_MARK in str(error.orig)):
            raise
        logger.warning(
            "Not enough shared memory for parallel workers (%s); building without them", server_message(error)
        )
        drop_index(connection, embedding.new_index)
        connection.exec_driver_sql("SET max_parallel_maintenance_workers = 0")
        execute_raw(connection, statement)


def swap_indexes(connection: Connection, embedding: EmbeddingColumn, options: MigrationOptions) -> None:
    """Rename the current index to the old name and the new index to the primary name, in one transaction.

    Renaming an index does not block reads or writes.

    Raises:
        RebuildFailed: other sessions held a lock on one of the indexes; the message names them.
    """
    renames = [_rename(connection, embedding.new_index, embedding.index)]
    if embedding.index in index_validity(connection, embedding):
        renames.insert(0, _rename(connection, embedding.index, embedding.old_index))
    run_with_retries(connection, *renames, options=options, state=f"The index {embedding.index} is unchanged.")


def drop_index(connection: Connection, name: str) -> None:
    """Drop an index if it exists, while other sessions read and write."""
    execute_raw(connection, f"DROP INDEX CONCURRENTLY IF EXISTS {table_name(connection, name)}")


def run_with_retries(connection: Connection, *statements: str, options: MigrationOptions, state: str) -> None:
    """Run `statements` in one transaction with retries; `state` describes the index if all attempts fail.

    Raises:
        RebuildFailed: other sessions held a lock for longer than the options allow; the message names them.
    """
    limit = f"SET LOCAL lock_timeout = {options.lock_timeout_milliseconds}"
    # psycopg sends them as one message, so no round trip lies between the locks and the commit.
    transaction = "; ".join(("BEGIN", limit, *statements, "COMMIT"))

    def roll_back() -> bool:
        connection.exec_driver_sql("ROLLBACK")
        return False

    try:
        retry_on_lock_error(
            connection,
            lambda: execute_raw(connection, transaction),
            options=options,
            end_attempt=roll_back,
            describe_state=lambda: state,
        )
    except LockTimeout as error:
        raise RebuildFailed(str(error)) from None


@contextmanager
def monitor_build(engine: Engine, pid: int, on_progress: Callable[[BuildProgress], None] | None) -> Iterator[None]:
    """Report the build progress of the session `pid` to `on_progress` inside the block, from a second connection."""
    if on_progress is None:
        yield
        return

    def read(connection: Connection) -> None:
        progress = _read_progress(connection, pid)
        if progress is not None:
            on_progress(progress)

    # If the second connection fails, the build continues without progress.
    with poll_in_background(engine, read, POLL_SECONDS):
        yield


def _read_progress(connection: Connection, pid: int) -> BuildProgress | None:
    row = connection.execute(PROGRESS, {"pid": pid}).first()
    if row is None or row.phase.startswith("waiting"):
        blockers = read_blockers(connection, pid)
        # The server reports no phase while it drops an index.
        phase = row.phase if row else "waiting to drop the old index"
        return BuildProgress(phase, blocked_by=blockers) if row or blockers else None
    if row.tuples_total:
        return BuildProgress(row.phase, row.tuples_done, row.tuples_total)
    return BuildProgress(row.phase, row.blocks_done, row.blocks_total)
