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
from syntegra_db.catalog.statements import literal
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import RebuildFailed, SyntegraDBError
from syntegra_db.migrations.revision import require_head
from syntegra_db.vectors import building, sizing
from syntegra_db.vectors.building import Progress
from syntegra_db.vectors.index import NEW, OLD, VECTOR_INDEX, read_index
from syntegra_db.vectors.measuring import MEASURING_SECONDS, one_moment, tune
from syntegra_db.vectors.planning import cheapest
from syntegra_db.vectors.requirements import require_rights, require_version
from syntegra_db.vectors.sizing import Kind, Room, size
from syntegra_db.vectors.turn import take_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

    from syntegra_db.vectors.index import Measurement, Method, Tuning

logger = logging.getLogger(__name__)

APPLICATION_NAME = "syntegra_db rebuild"
TIDYING = "SET statement_timeout = '5s'"
DEFAULT_WORKERS = 2
# No index by cosine distance holds a vector of zeros.
EMBEDDINGS = text("SELECT count(*) FROM text_summary WHERE vector_norm(embedding) > 0")
TABLESPACE = text(
    "SELECT spcname FROM pg_class JOIN pg_tablespace ON pg_tablespace.oid = reltablespace "
    "WHERE pg_class.oid = to_regclass(:index)"
)
INDEX_BYTES = text("SELECT coalesce(pg_relation_size(to_regclass(:index)), 0)")


class Wish(NamedTuple):
    """What to build; None is as the standing index has it, or the default. `memory` is in bytes.

    Lists without a method mean ivfflat.
    """

    method: Method | None = None
    lists: int | None = None
    half: bool | None = None
    memory: int | None = None
    workers: int = DEFAULT_WORKERS


@dataclass(frozen=True)
class Rebuilt:
    """The index that stands now.

    `rows` is how many embeddings it was built on, `build_seconds` what the server took to build it, `seconds` all of
    the rebuild. `chosen` is the least setting that reaches the asked recall, None where none does; a `search` for
    that recall then compares all rows. Sizes are in bytes; `bytes_before` is 0 where no index stood.
    """

    kind: Kind
    rows: int
    room: Room
    bytes_before: int
    bytes_after: int
    build_seconds: float
    seconds: float
    tuning: Tuning
    chosen: Measurement | None


def rebuild(
    url: URL,
    wish: Wish | None = None,
    *,
    recall: float = 0.95,
    measuring_seconds: float = MEASURING_SECONDS,
    on_progress: Callable[[Progress], None] | None = None,
) -> Rebuilt:
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
    with connect(engine) as connection, _tidied(engine):
        take_turn(connection)
        connection.execution_options(isolation_level="AUTOCOMMIT")
        built = _build(connection, wish or Wish(), on_progress)
        if on_progress is not None:
            on_progress(Progress("measuring what it finds"))
        tuning = _measure(engine, connection, built, recall, measuring_seconds)
        bytes_after = connection.scalars(INDEX_BYTES, {"index": VECTOR_INDEX}).one()
    return Rebuilt(
        kind=built.kind,
        rows=built.rows,
        room=built.room,
        bytes_before=built.bytes_before,
        bytes_after=bytes_after,
        build_seconds=built.seconds,
        seconds=time.monotonic() - began,
        tuning=tuning,
        chosen=cheapest(tuning.measured, recall, 10),
    )


class _Built(NamedTuple):
    kind: Kind
    rows: int
    room: Room
    bytes_before: int
    seconds: float


def _build(connection: Connection, wish: Wish, on_progress: Callable[[Progress], None] | None) -> _Built:
    """Return what now stands, unmeasured, in place of the old index."""
    pid = building.prepare_session(connection)
    require_head(connection)
    version = require_rights(connection)
    building.clear_leftovers(connection)
    rows: int = connection.scalars(EMBEDDINGS).one()
    if not rows:
        raise RebuildFailed(
            "No row of text_summary has an embedding to build an index on, and nothing was built. Load them first."
        )
    tablespace = connection.scalar(TABLESPACE, {"index": VECTOR_INDEX})
    kind, room = _plan(connection, wish, rows, tablespace)
    require_version(version, kind)
    sizing.require_room(kind, room)
    _announce(kind, room, rows)
    bytes_before = connection.scalars(INDEX_BYTES, {"index": VECTOR_INDEX}).one()
    began = time.monotonic()
    with building.BuildWatch(connection.engine, pid, on_progress):
        building.build(connection, kind, memory=room.memory, workers=wish.workers, tablespace=tablespace)
    took = time.monotonic() - began
    building.swap(connection)
    logger.info("Built in %.0f s; the new index is in place", took)
    with building.BuildWatch(connection.engine, pid, on_progress):
        building.drop(connection, OLD)
    return _Built(kind, rows, room, bytes_before, took)


def _plan(connection: Connection, wish: Wish, rows: int, tablespace: str | None) -> tuple[Kind, Room]:
    """Return what is to be built and what it takes: with fewer lists where memory does not suffice."""
    standing = read_index(connection)
    method = wish.method or ("ivfflat" if wish.lists or standing is None else standing.method)
    half = wish.half if wish.half is not None else standing is not None and standing.is_half
    if method == "hnsw":
        kinds = [Kind(method, 0, half)]
    else:
        kinds = [Kind(method, lists, half) for lists in ([wish.lists] if wish.lists else sizing.lists_to_try(rows))]
    for kind in kinds:
        room = sizing.plan_room(connection, kind, rows, memory=wish.memory, workers=wish.workers, tablespace=tablespace)
        if sizing.has_memory(kind, room):
            break
    return kind, room


def _announce(kind: Kind, room: Room, rows: int) -> None:
    free_memory = "an amount unknown" if room.free_memory is None else size(room.free_memory)
    free_disk = "an amount unknown" if room.free_disk is None else size(room.free_disk)
    logger.info(
        "Building an %s on %s embeddings, with up to %s of memory, of which %s is available, and %s of disk beside the "
        "old index, of which %s is free",
        kind,
        f"{rows:,}",
        size(room.memory),
        free_memory,
        size(room.disk),
        free_disk,
    )
    if room.needed > room.memory:
        logger.warning(
            "The graph takes %s of memory; what is beyond %s is built on disk, many times slower",
            size(room.needed),
            size(room.memory),
        )


def _measure(engine: Engine, connection: Connection, built: _Built, recall: float, seconds: float) -> Tuning:
    """Measure the index that stands, and keep what was found as its comment.

    Raises:
        RebuildFailed: it could not be measured, or somebody else has dropped it meanwhile.
    """
    # The planner's estimates decide how `search` goes about it, and rows were loaded, most likely, before this.
    connection.exec_driver_sql("ANALYZE (SKIP_LOCKED) text_summary")
    with one_moment(engine) as moment:
        index = read_index(moment)
        if index is None:
            raise RebuildFailed(f"Somebody else dropped {VECTOR_INDEX} before it was measured. Run this again.")
        tuning = tune(moment, index, rows=built.rows, recall=recall, seconds=seconds)
    building.patiently(connection, f"COMMENT ON INDEX {VECTOR_INDEX} IS {literal(tuning.to_comment())}")
    return tuning


@contextmanager
def _tidied(engine: Engine) -> Iterator[None]:
    """Clear up after a failure or an interruption, and say what stands."""
    try:
        yield
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        _tidy(engine)
        raise RebuildFailed(
            f"{building.first_line(error)}. {_what_stands(engine)} Mend it and run this again."
        ) from error
    except KeyboardInterrupt:
        _tidy(engine)
        logger.warning("Interrupted. %s", _what_stands(engine))
        raise


def _tidy(engine: Engine) -> None:
    """Drop the half-built index, if that goes quickly; else the next run does."""
    with suppress(SQLAlchemyError, SyntegraDBError), connect(engine) as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql(TIDYING)
        if building.find_indexes(connection).get(NEW) is False:
            building.drop(connection, NEW)


def _what_stands(engine: Engine) -> str:
    """Return a sentence on the index that searches use now."""
    try:
        with connect(engine) as connection:
            standing = building.find_indexes(connection)
            index = read_index(connection)
    except (SQLAlchemyError, SyntegraDBError):
        return "Which index stands could not be asked; `syntegra-db vectors status` says it."
    left = "" if standing.keys() <= {VECTOR_INDEX} else " What is left of the other one, the next run drops."
    if index is None:
        return f"There is no valid index {VECTOR_INDEX}, as before.{left}"
    if index.tuning is None:
        return f"The index {VECTOR_INDEX} works, and was not measured.{left}"
    return f"The index {VECTOR_INDEX} stands as it was.{left}"
