"""Building the vector index anew on a live database, measuring it, and keeping with it what was measured."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from syntegra_db.binary_vectors import enable_binary_vectors
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import RebuildFailed, SyntegraDBError
from syntegra_db.migrations import require_head
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.sql import literal
from syntegra_db.vectors._index import NEW_INDEX, OLD_INDEX, read_primary_index
from syntegra_db.vectors._strategy import smallest_sufficient
from syntegra_db.vectors.maintenance import _build, _resources
from syntegra_db.vectors.maintenance._build import BuildProgress
from syntegra_db.vectors.maintenance._calibration import CALIBRATION_SECONDS, calibrate, read_only_snapshot
from syntegra_db.vectors.maintenance._preconditions import acquire_rebuild_lock, require_ownership, require_pgvector
from syntegra_db.vectors.maintenance._resources import IndexSpec, ResourceEstimate, format_megabytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

    from syntegra_db.vectors._index import Calibration, CalibrationPoint, Method

logger = logging.getLogger(__name__)

APPLICATION_NAME = "syntegra_db rebuild"
CLEANUP_TIMEOUT = "SET statement_timeout = '5s'"
DEFAULT_WORKERS = 2
# No index by cosine distance holds a vector of zeros.
EMBEDDINGS = text("SELECT count(*) FROM text_summary WHERE vector_norm(embedding) > 0")
TABLESPACE = text(
    "SELECT spcname FROM pg_class JOIN pg_tablespace ON pg_tablespace.oid = reltablespace "
    "WHERE pg_class.oid = to_regclass(:index)"
)
INDEX_BYTES = text("SELECT coalesce(pg_relation_size(to_regclass(:index)), 0)")


class RebuildOptions(NamedTuple):
    """What to build; None is as the standing index has it, or the default. `memory` is in bytes.

    Lists without a method mean ivfflat.
    """

    method: Method | None = None
    lists: int | None = None
    half: bool | None = None
    memory: int | None = None
    workers: int = DEFAULT_WORKERS


@dataclass(frozen=True)
class RebuildResult:
    """The index that stands now.

    `rows` is how many embeddings it was built on, `build_seconds` what the server took to build it, `seconds` all of
    the rebuild. `chosen` is the least setting that reaches the asked recall, None where none does; a `search` for
    that recall then compares all rows. Sizes are in bytes; `bytes_before` is 0 where no index stood.
    """

    kind: IndexSpec
    rows: int
    room: ResourceEstimate
    bytes_before: int
    bytes_after: int
    build_seconds: float
    seconds: float
    tuning: Calibration
    selected: CalibrationPoint | None


def rebuild(
    url: URL,
    wish: RebuildOptions | None = None,
    *,
    recall: float = 0.95,
    measuring_seconds: float = CALIBRATION_SECONDS,
    on_progress: Callable[[BuildProgress], None] | None = None,
) -> RebuildResult:
    """Build the vector index of the database at `url` anew, while services read and write, and measure it.

    The new index is built beside the old one and takes its name in one short transaction; then the old one is dropped,
    and the new one measured. Not the other way round: of two indexes on the same numbers the planner takes the one
    that it likes. Until the measurements are kept with the index, `search` uses the careful settings of an index that
    nobody has measured.

    Interrupted at any moment, it leaves a working index of the name, if there was one, and the next run clears what
    else was left. Rebuilds of one database exclude each other.

    Args:
        url: where the database is.
        wish: what to build; by default the kind that stands, with as many lists as the rows want.
        recall: share of the true nearest rows for which the setting is to be found.
        measuring_seconds: about so long it may be measured.
        on_progress: called about four times a second, mostly from another thread, with how far the rebuild is.

    Raises:
        RoomMissing: the server has not the memory or disk for it; nothing was built.
        RebuildFailed: it could not be built, or not be measured; the message says which index stands.
        DatabaseBehind, DatabaseAhead, RevisionError: see `require_head`.
        ConnectionFailed: there is no connection, or it was lost; one of its subclasses says why.
    """
    engine = unpooled_engine(url, APPLICATION_NAME)
    enable_binary_vectors(engine)
    began = time.monotonic()
    with connect(engine) as connection, _cleanup_on_failure(engine):
        acquire_rebuild_lock(connection)
        connection.execution_options(isolation_level="AUTOCOMMIT")
        built = _build_and_swap(connection, wish or RebuildOptions(), on_progress)
        if on_progress is not None:
            on_progress(BuildProgress("measuring what it finds"))
        tuning = _calibrate(engine, connection, built, recall, measuring_seconds)
        bytes_after = connection.scalars(INDEX_BYTES, {"index": VECTOR_INDEX}).one()
    return RebuildResult(
        kind=built.kind,
        rows=built.rows,
        room=built.room,
        bytes_before=built.bytes_before,
        bytes_after=bytes_after,
        build_seconds=built.seconds,
        seconds=time.monotonic() - began,
        tuning=tuning,
        selected=smallest_sufficient(tuning.measured, recall, 10),
    )


class _BuildResult(NamedTuple):
    kind: IndexSpec
    rows: int
    room: ResourceEstimate
    bytes_before: int
    seconds: float


def _build_and_swap(
    connection: Connection, wish: RebuildOptions, on_progress: Callable[[BuildProgress], None] | None
) -> _BuildResult:
    """Return what now stands, unmeasured, in place of the old index."""
    pid = _build.configure_session(connection)
    require_head(connection)
    version = require_ownership(connection)
    _build.recover_interrupted_rebuild(connection)
    rows: int = connection.scalars(EMBEDDINGS).one()
    if not rows:
        raise RebuildFailed(
            "No row of text_summary has an embedding to build an index on, and nothing was built. Load them first."
        )
    tablespace = connection.scalar(TABLESPACE, {"index": VECTOR_INDEX})
    kind, room = _choose_spec(connection, wish, rows, tablespace)
    require_pgvector(version, kind)
    _resources.require_resources(kind, room)
    _log_plan(kind, room, rows)
    bytes_before = connection.scalars(INDEX_BYTES, {"index": VECTOR_INDEX}).one()
    began = time.monotonic()
    with _build.BuildMonitor(connection.engine, pid, on_progress):
        _build.build_index(connection, kind, memory=room.memory, workers=wish.workers, tablespace=tablespace)
    took = time.monotonic() - began
    _build.swap_indexes(connection)
    logger.info("Built in %.0f s; the new index is in place", took)
    with _build.BuildMonitor(connection.engine, pid, on_progress):
        _build.drop_index(connection, OLD_INDEX)
    return _BuildResult(kind, rows, room, bytes_before, took)


def _choose_spec(
    connection: Connection, wish: RebuildOptions, rows: int, tablespace: str | None
) -> tuple[IndexSpec, ResourceEstimate]:
    """Return what is to be built and what it takes: with fewer lists where memory does not suffice."""
    standing = read_primary_index(connection)
    method = wish.method or ("ivfflat" if wish.lists or standing is None else standing.method)
    half = wish.half if wish.half is not None else standing is not None and standing.is_half
    if method == "hnsw":
        kinds = [IndexSpec(method, 0, half)]
    else:
        kinds = [
            IndexSpec(method, lists, half)
            for lists in ([wish.lists] if wish.lists else _resources.list_count_candidates(rows))
        ]
    for kind in kinds:
        room = _resources.estimate_resources(
            connection, kind, rows, memory=wish.memory, workers=wish.workers, tablespace=tablespace
        )
        if _resources.fits_memory(kind, room):
            break
    return kind, room


def _log_plan(kind: IndexSpec, room: ResourceEstimate, rows: int) -> None:
    free_memory = "an amount unknown" if room.free_memory is None else format_megabytes(room.free_memory)
    free_disk = "an amount unknown" if room.free_disk is None else format_megabytes(room.free_disk)
    logger.info(
        "Building an %s on %s embeddings, with up to %s of memory, of which %s is available, and %s of disk beside the "
        "old index, of which %s is free",
        kind,
        f"{rows:,}",
        format_megabytes(room.memory),
        free_memory,
        format_megabytes(room.disk),
        free_disk,
    )
    if room.needed > room.memory:
        logger.warning(
            "The graph takes %s of memory; what is beyond %s is built on disk, many times slower",
            format_megabytes(room.needed),
            format_megabytes(room.memory),
        )


def _calibrate(
    engine: Engine, connection: Connection, built: _BuildResult, recall: float, seconds: float
) -> Calibration:
    """Measure the index that stands, and keep what was found as its comment.

    Raises:
        RebuildFailed: it could not be measured, or somebody else has dropped it meanwhile.
    """
    # The planner's estimates decide how `search` goes about it, and rows were loaded, most likely, before this.
    connection.exec_driver_sql("ANALYZE (SKIP_LOCKED) text_summary")
    with read_only_snapshot(engine) as moment:
        index = read_primary_index(moment)
        if index is None:
            raise RebuildFailed(f"Somebody else dropped {VECTOR_INDEX} before it was measured. Run this again.")
        tuning = calibrate(moment, index, rows=built.rows, recall=recall, seconds=seconds)
    _build.patiently(connection, f"COMMENT ON INDEX {VECTOR_INDEX} IS {literal(tuning.to_comment())}")
    return tuning


@contextmanager
def _cleanup_on_failure(engine: Engine) -> Iterator[None]:
    """Clear up after a failure or an interruption, and say what stands."""
    try:
        yield
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        _drop_partial_index(engine)
        raise RebuildFailed(
            f"{_build.first_line(error)}. {_describe_current_index(engine)} Mend it and run this again."
        ) from error
    except KeyboardInterrupt:
        _drop_partial_index(engine)
        logger.warning("Interrupted. %s", _describe_current_index(engine))
        raise


def _drop_partial_index(engine: Engine) -> None:
    """Drop the half-built index, if that goes quickly; else the next run does."""
    with suppress(SQLAlchemyError, SyntegraDBError), connect(engine) as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql(CLEANUP_TIMEOUT)
        if _build.index_validity(connection).get(NEW_INDEX) is False:
            _build.drop_index(connection, NEW_INDEX)


def _describe_current_index(engine: Engine) -> str:
    """Return a sentence on the index that searches use now."""
    try:
        with connect(engine) as connection:
            standing = _build.index_validity(connection)
            index = read_primary_index(connection)
    except (SQLAlchemyError, SyntegraDBError):
        return "Which index stands could not be asked; `syntegra-db vectors status` says it."
    left = "" if standing.keys() <= {VECTOR_INDEX} else " What is left of the other one, the next run drops."
    if index is None:
        return f"There is no valid index {VECTOR_INDEX}, as before.{left}"
    if index.tuning is None:
        return f"The index {VECTOR_INDEX} works, and was not measured.{left}"
    return f"The index {VECTOR_INDEX} stands as it was.{left}"
