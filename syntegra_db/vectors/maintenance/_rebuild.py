"""Rebuild the vector index on a live database, calibrate it, and store the calibration with it."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from syntegra_db.catalog import require_all_rows
from syntegra_db.connections import connect
from syntegra_db.errors import ConnectionFailed, RebuildFailed, SyntegraDBError, server_message
from syntegra_db.migrations import load_migration_options, require_head
from syntegra_db.pgvector_support import DEFAULT_RECALL
from syntegra_db.search_path import table_name
from syntegra_db.settings import describe_database
from syntegra_db.sql import execute_raw, literal
from syntegra_db.vectors._index import read_primary_index
from syntegra_db.vectors._strategy import chosen_point
from syntegra_db.vectors.maintenance import _build
from syntegra_db.vectors.maintenance._build import BuildProgress
from syntegra_db.vectors.maintenance._calibration import CALIBRATION_SECONDS, calibrate, read_only_snapshot
from syntegra_db.vectors.maintenance._defaults import plan_defaults, require_database_ownership, store_defaults
from syntegra_db.vectors.maintenance._embeddings import find_embedding
from syntegra_db.vectors.maintenance._ground_truth import vector_norm
from syntegra_db.vectors.maintenance._preconditions import acquire_rebuild_lock, require_ownership, require_pgvector
from syntegra_db.vectors.maintenance._spec import RebuildOptions, choose_spec, log_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from syntegra_db.models.embeddings import EmbeddingColumn
    from syntegra_db.vectors._index import Calibration, CalibrationPoint, VectorIndex
    from syntegra_db.vectors.maintenance._defaults import SearchDefaults
    from syntegra_db.vectors.maintenance._resources import IndexSpec

logger = logging.getLogger(__name__)

CLEANUP_TIMEOUT = "SET statement_timeout = '5s'"
TABLESPACE = text(
    "SELECT spcname FROM pg_class JOIN pg_tablespace ON pg_tablespace.oid = reltablespace "
    "WHERE pg_class.oid = to_regclass(:index)"
)
COMPLETE = "The rebuild is complete: the new index {} is in use and calibrated."
INDEX_BYTES = text("SELECT coalesce(pg_relation_size(to_regclass(:index)), 0)")


@dataclass(frozen=True)
class RebuildResult:
    """The rebuilt index.

    `rows` is the number of embeddings that it was built on, `seconds` the duration of the rebuild. `selected` is the
    point with the smallest setting that reaches the requested recall; if it is None, a `search` for that recall is
    exact. `defaults` are the settings for searches by plain SQL, None if no setting reaches the recall.
    `bytes_before` is 0 if there was no index.
    """

    spec: IndexSpec
    rows: int
    bytes_before: int
    bytes_after: int
    seconds: float
    calibration: Calibration
    selected: CalibrationPoint | None
    defaults: SearchDefaults | None


def rebuild(  # noqa: PLR0913  one keyword per choice
    engine: Engine,
    options: RebuildOptions | None = None,
    *,
    embedding: str | None = None,
    recall: float = DEFAULT_RECALL,
    calibration_seconds: float = CALIBRATION_SECONDS,
    set_defaults: bool = False,
    on_progress: Callable[[BuildProgress], None] | None = None,
) -> RebuildResult:
    """Rebuild and calibrate the vector index while services read and write.

    The new index is built alongside the old one, takes its name in one short transaction, and is calibrated after the
    old one was dropped. The swap comes before calibration because, with two equivalent indexes, the planner may use
    either. Until the calibration is stored, `search` uses the conservative settings of an uncalibrated index.

    If interrupted, it leaves a working index if there was one, and the next run drops the rest. Only one rebuild per
    database runs at a time.

    Args:
        engine: connections of the table's owner, not through a transaction-mode pooler.
        options: the index to build; by default with the current method and precision, and lists by the number of rows.
        embedding: the column, as `COLUMN` or `TABLE.COLUMN`; may be omitted if only one is declared.
        recall: share of the exact nearest rows to find the search setting for.
        calibration_seconds: approximate duration of the calibration.
        set_defaults: store the measured setting in the database, for searches by plain SQL; needs its owner.
        on_progress: called about four times a second with the progress, mostly from another thread.

    Raises:
        InsufficientResources: the build needs more memory than is allowed; nothing was built.
        RebuildFailed: the index was not built or not calibrated; the message describes the current index.
        DatabaseBehind, DatabaseAhead, RevisionError: see `require_head`.
        ConnectionFailed: no connection could be opened, or it was lost; the message then describes the current index.
    """
    options = options or RebuildOptions()
    lock_options = load_migration_options()
    column = find_embedding(embedding)
    started = time.monotonic()
    with connect(engine) as connection, _cleanup_on_failure(engine, connection, column):
        acquire_rebuild_lock(connection)
        pid = _build.configure_session(connection)
        require_head(connection)
        require_ownership(connection, column.table)
        require_all_rows(connection, [column.table], RebuildFailed)
        if set_defaults:
            require_database_ownership(connection)
        _build.recover_interrupted_rebuild(connection, column, lock_options)
        rows = _count_indexed_rows(connection, column)
        if not rows:
            raise RebuildFailed(
                f"No row of {column.table} has an embedding in the column {column.name}, so no index was built. "
                "Load embeddings first."
            )
        spec, resources = choose_spec(connection, column, options, rows)
        require_pgvector(connection, spec)
        log_plan(column, spec, resources, rows)
        index = {"index": table_name(connection, column.index)}
        bytes_before = connection.scalars(INDEX_BYTES, index).one()
        tablespace = connection.scalar(TABLESPACE, index)
        build_started = time.monotonic()
        with _build.monitor_build(engine, pid, on_progress):
            _build.build_index(
                connection, column, spec, memory=resources.memory, workers=options.workers, tablespace=tablespace
            )
        _build.swap_indexes(connection, column, lock_options)
        logger.info("Built in %.0f s; the new index is in use", time.monotonic() - build_started)
        with _build.monitor_build(engine, pid, on_progress):
            _build.drop_index(connection, column.old_index)
        if on_progress is not None:
            on_progress(BuildProgress("calibrating"))
        calibration = _calibrate(engine, connection, column, rows, recall=recall, seconds=calibration_seconds)
        comment = f"COMMENT ON INDEX {index['index']} IS {literal(calibration.to_comment())}"
        state = "The new index is in use, but its calibration was not stored."
        _build.run_with_retries(connection, comment, options=lock_options, state=state)
        defaults = plan_defaults(connection)
        if set_defaults and defaults is not None:
            defaults = store_defaults(connection, defaults, lock_options)
        bytes_after = connection.scalars(INDEX_BYTES, index).one()
    return RebuildResult(
        spec=spec,
        rows=rows,
        bytes_before=bytes_before,
        bytes_after=bytes_after,
        seconds=time.monotonic() - started,
        calibration=calibration,
        selected=chosen_point(calibration),
        defaults=defaults,
    )


def _count_indexed_rows(connection: Connection, column: EmbeddingColumn) -> int:
    """Return the number of embeddings in an index by cosine distance, which does not contain vectors of zeros."""
    norm = vector_norm(connection, column.sql)
    return connection.scalars(select(func.count()).select_from(column.model).where(norm > 0)).one()


def _calibrate(  # noqa: PLR0913  the index, and how to measure it
    engine: Engine, connection: Connection, column: EmbeddingColumn, rows: int, *, recall: float, seconds: float
) -> Calibration:
    # `search` decides by the planner's estimates, which may be older than the rows.
    execute_raw(connection, f"ANALYZE (SKIP_LOCKED) {table_name(connection, column.table)}")
    with read_only_snapshot(engine) as snapshot:
        index = read_primary_index(snapshot, column)
        if index is None:
            raise RebuildFailed(f"Another session dropped {column.index} before its calibration. Run this again.")
        return calibrate(snapshot, index, rows=rows, recall=recall, seconds=seconds)


@contextmanager
def _cleanup_on_failure(engine: Engine, connection: Connection, column: EmbeddingColumn) -> Iterator[None]:
    """Drop the unfinished index after a failure or an interruption, and report the current index.

    It is read on a new connection: if the connection was lost, its last statement may have been executed.
    """
    before = read_primary_index(connection, column)
    try:
        yield
    except DBAPIError as error:
        _drop_partial_index(engine, column)
        state = _describe_current_index(engine, column, before)
        advice = "" if state == COMPLETE.format(column.index) else " Fix the cause and run this again."
        if error.connection_invalidated:
            raise ConnectionFailed(
                f"The connection to the {describe_database(engine.url)} was lost: {server_message(error)}. "
                f"{state}{advice}"
            ) from error
        raise RebuildFailed(f"{server_message(error)}. {state}{advice}") from error
    except KeyboardInterrupt as interruption:
        _drop_partial_index(engine, column)
        interruption.add_note(_describe_current_index(engine, column, before))
        raise


def _drop_partial_index(engine: Engine, column: EmbeddingColumn) -> None:
    """Drop the unfinished index if that takes at most 5 s; otherwise the next run drops it."""
    with suppress(SQLAlchemyError, SyntegraDBError), connect(engine, "AUTOCOMMIT") as connection:
        connection.exec_driver_sql(CLEANUP_TIMEOUT)
        if _build.index_validity(connection, column).get(column.new_index) is False:
            _build.drop_index(connection, column.new_index)


def _describe_current_index(engine: Engine, column: EmbeddingColumn, before: VectorIndex | None) -> str:
    try:
        with connect(engine) as connection:
            validity = _build.index_validity(connection, column)
            index = read_primary_index(connection, column)
    except (SQLAlchemyError, SyntegraDBError):
        return "The state of the index could not be read; run `syntegra-db vectors status`."
    rest = "" if validity.keys() <= {column.index} else " The next run drops the unfinished index."
    if index is None:
        return f"No valid index {column.index} exists.{rest}"
    if index.calibration is None:
        return f"The index {column.index} works, but is not calibrated.{rest}"
    if before is None or before.oid != index.oid:
        return COMPLETE.format(column.index)
    return f"The index {column.index} is unchanged.{rest}"
