"""Rebuild the vector index on a live database, calibrate it, and store the calibration with it."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from syntegra_db.connections import connect
from syntegra_db.errors import ConnectionFailed, InsufficientResources, RebuildFailed, SyntegraDBError, server_message
from syntegra_db.migrations import load_migration_options, require_head
from syntegra_db.models import TextSummary
from syntegra_db.pgvector_support import DEFAULT_RECALL, VECTOR_INDEX
from syntegra_db.search_path import table_name
from syntegra_db.settings import describe_database
from syntegra_db.sql import execute_raw, literal
from syntegra_db.vectors._index import NEW_INDEX, OLD_INDEX, TABLE, read_primary_index
from syntegra_db.vectors._strategy import smallest_sufficient
from syntegra_db.vectors.maintenance import _build, _resources
from syntegra_db.vectors.maintenance._build import BuildProgress
from syntegra_db.vectors.maintenance._calibration import CALIBRATION_SECONDS, calibrate, read_only_snapshot
from syntegra_db.vectors.maintenance._ground_truth import vector_norm
from syntegra_db.vectors.maintenance._preconditions import acquire_rebuild_lock, require_ownership, require_pgvector
from syntegra_db.vectors.maintenance._resources import IndexSpec, ResourceEstimate, format_megabytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import ColumnElement, Connection, Engine

    from syntegra_db.vectors._index import Calibration, CalibrationPoint, Method, VectorIndex

logger = logging.getLogger(__name__)

CLEANUP_TIMEOUT = "SET statement_timeout = '5s'"
TABLESPACE = text(
    "SELECT spcname FROM pg_class JOIN pg_tablespace ON pg_tablespace.oid = reltablespace "
    "WHERE pg_class.oid = to_regclass(:index)"
)
COMPLETE = f"The rebuild is complete: the new index {VECTOR_INDEX} is in use and calibrated."
INDEX_BYTES = text("SELECT coalesce(pg_relation_size(to_regclass(:index)), 0)")


class RebuildOptions(NamedTuple):
    """The index to build; None keeps the method and precision of the current index, or takes the default.

    `lists` without a method builds an ivfflat index. `memory` is the limit in bytes, `workers` the number of parallel
    workers.
    """

    method: Method | None = None
    lists: int | None = None
    half: bool | None = None
    memory: int | None = None
    workers: int = 2


@dataclass(frozen=True)
class RebuildResult:
    """The rebuilt index.

    `rows` is the number of embeddings that it was built on, `seconds` the duration of the rebuild. `selected` is the
    point with the smallest setting that reaches the requested recall; if it is None, a `search` for that recall is
    exact. `bytes_before` is 0 if there was no index.
    """

    spec: IndexSpec
    rows: int
    bytes_before: int
    bytes_after: int
    seconds: float
    calibration: Calibration
    selected: CalibrationPoint | None


def rebuild(
    engine: Engine,
    options: RebuildOptions | None = None,
    *,
    recall: float = DEFAULT_RECALL,
    calibration_seconds: float = CALIBRATION_SECONDS,
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
        recall: share of the exact nearest rows to find the search setting for.
        calibration_seconds: approximate duration of the calibration.
        on_progress: called about four times a second with the progress, mostly from another thread.

    Raises:
        InsufficientResources: the build needs more memory than is allowed; nothing was built.
        RebuildFailed: the index was not built or not calibrated; the message describes the current index.
        DatabaseBehind, DatabaseAhead, RevisionError: see `require_head`.
        ConnectionFailed: no connection could be opened, or it was lost; the message then describes the current index.
    """
    options = options or RebuildOptions()
    lock_options = load_migration_options()
    started = time.monotonic()
    with connect(engine) as connection, _cleanup_on_failure(engine, connection):
        acquire_rebuild_lock(connection)
        pid = _build.configure_session(connection)
        require_head(connection)
        require_ownership(connection)
        _build.recover_interrupted_rebuild(connection, lock_options)
        rows = _count_indexed_rows(connection)
        if not rows:
            raise RebuildFailed(
                "No row of text_summary has an embedding, so no index was built. Load embeddings first."
            )
        spec, resources = _choose_spec(connection, options, rows)
        require_pgvector(connection, spec)
        _log_plan(spec, resources, rows)
        index = {"index": table_name(connection, VECTOR_INDEX)}
        bytes_before = connection.scalars(INDEX_BYTES, index).one()
        tablespace = connection.scalar(TABLESPACE, index)
        build_started = time.monotonic()
        with _build.monitor_build(engine, pid, on_progress):
            _build.build_index(
                connection, spec, memory=resources.memory, workers=options.workers, tablespace=tablespace
            )
        _build.swap_indexes(connection, lock_options)
        logger.info("Built in %.0f s; the new index is in use", time.monotonic() - build_started)
        with _build.monitor_build(engine, pid, on_progress):
            _build.drop_index(connection, OLD_INDEX)
        if on_progress is not None:
            on_progress(BuildProgress("calibrating"))
        calibration = _calibrate(engine, connection, rows, recall, calibration_seconds)
        comment = f"COMMENT ON INDEX {index['index']} IS {literal(calibration.to_comment())}"
        state = "The new index is in use, but its calibration was not stored."
        _build.run_with_retries(connection, comment, options=lock_options, state=state)
        bytes_after = connection.scalars(INDEX_BYTES, index).one()
    return RebuildResult(
        spec=spec,
        rows=rows,
        bytes_before=bytes_before,
        bytes_after=bytes_after,
        seconds=time.monotonic() - started,
        calibration=calibration,
        selected=smallest_sufficient(calibration.points, recall, 10),
    )


def _count_indexed_rows(connection: Connection) -> int:
    """Return the number of embeddings in an index by cosine distance, which does not contain vectors of zeros."""
    norm = vector_norm(connection, cast("ColumnElement[Any]", TextSummary.embedding))
    return connection.scalars(select(func.count()).select_from(TextSummary).where(norm > 0)).one()


def _choose_spec(connection: Connection, options: RebuildOptions, rows: int) -> tuple[IndexSpec, ResourceEstimate]:
    """Return the index to build, with fewer lists if memory is short, and the resources that it takes.

    Raises:
        InsufficientResources: no number of lists fits into the memory limit.
    """
    current = read_primary_index(connection)
    method = options.method or ("ivfflat" if options.lists or current is None else current.method)
    half = options.half if options.half is not None else current is not None and current.is_half
    limit = options.memory or connection.scalars(_resources.DEFAULT_MEMORY_LIMIT).one()
    list_counts = [options.lists] if options.lists else _resources.list_count_candidates(rows)
    for lists in [0] if method == "hnsw" else list_counts:
        spec = IndexSpec(method, lists, half)
        resources = _resources.estimate_resources(spec, rows, memory_limit=limit, workers=options.workers)
        if method == "hnsw" or resources.needed <= limit:
            return spec, resources
    source = "that --memory allows" if options.memory else "of the default limit, 25 % of effective_cache_size"
    raise InsufficientResources(
        f"Building an {spec} takes {format_megabytes(resources.needed)} of memory, more than the "
        f"{format_megabytes(limit)} {source}; nothing was built. Allow more with --memory, or build a smaller index "
        "with fewer --lists or with --half."
    )


def _log_plan(spec: IndexSpec, resources: ResourceEstimate, rows: int) -> None:
    logger.info(
        "Building an %s on %s embeddings, with up to %s of memory, and about %s of disk alongside the current index",
        spec,
        f"{rows:,}",
        format_megabytes(resources.memory),
        format_megabytes(resources.disk),
    )
    if resources.needed > resources.memory:
        logger.warning(
            "The graph takes %s of memory; the part beyond %s is built on disk, many times slower. Allow more with "
            "--memory",
            format_megabytes(resources.needed),
            format_megabytes(resources.memory),
        )


def _calibrate(engine: Engine, connection: Connection, rows: int, recall: float, seconds: float) -> Calibration:
    # `search` decides by the planner's estimates, which may be older than the rows.
    execute_raw(connection, f"ANALYZE (SKIP_LOCKED) {table_name(connection, TABLE)}")
    with read_only_snapshot(engine) as snapshot:
        index = read_primary_index(snapshot)
        if index is None:
            raise RebuildFailed(f"Another session dropped {VECTOR_INDEX} before its calibration. Run this again.")
        return calibrate(snapshot, index, rows=rows, recall=recall, seconds=seconds)


@contextmanager
def _cleanup_on_failure(engine: Engine, connection: Connection) -> Iterator[None]:
    """Drop the unfinished index after a failure or an interruption, and report the current index.

    It is read on a new connection: if the connection was lost, its last statement may have been executed.
    """
    before = read_primary_index(connection)
    try:
        yield
    except DBAPIError as error:
        _drop_partial_index(engine)
        state = _describe_current_index(engine, before)
        advice = "" if state == COMPLETE else " Fix the cause and run this again."
        if error.connection_invalidated:
            raise ConnectionFailed(
                f"The connection to the {describe_database(engine.url)} was lost: {server_message(error)}. "
                f"{state}{advice}"
            ) from error
        raise RebuildFailed(f"{server_message(error)}. {state}{advice}") from error
    except KeyboardInterrupt as interruption:
        _drop_partial_index(engine)
        interruption.add_note(_describe_current_index(engine, before))
        raise


def _drop_partial_index(engine: Engine) -> None:
    """Drop the unfinished index if that takes at most 5 s; otherwise the next run drops it."""
    with suppress(SQLAlchemyError, SyntegraDBError), connect(engine, "AUTOCOMMIT") as connection:
        connection.exec_driver_sql(CLEANUP_TIMEOUT)
        if _build.index_validity(connection).get(NEW_INDEX) is False:
            _build.drop_index(connection, NEW_INDEX)


def _describe_current_index(engine: Engine, before: VectorIndex | None) -> str:
    try:
        with connect(engine) as connection:
            validity = _build.index_validity(connection)
            index = read_primary_index(connection)
    except (SQLAlchemyError, SyntegraDBError):
        return "The state of the index could not be read; run `syntegra-db vectors status`."
    rest = "" if validity.keys() <= {VECTOR_INDEX} else " The next run drops the unfinished index."
    if index is None:
        return f"No valid index {VECTOR_INDEX} exists.{rest}"
    if index.calibration is None:
        return f"The index {VECTOR_INDEX} works, but is not calibrated.{rest}"
    if before is None or before.oid != index.oid:
        return COMPLETE
    return f"The index {VECTOR_INDEX} is unchanged.{rest}"
