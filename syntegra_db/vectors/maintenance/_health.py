"""What the vector index is worth now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.errors import QueryCanceled
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from syntegra_db.binary_vectors import enable_binary_vectors
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import RebuildFailed
from syntegra_db.migrations import require_head
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors._index import NEW_INDEX, OLD_INDEX, read_primary_index, was_built_on_data
from syntegra_db.vectors._index_state import estimate_rows
from syntegra_db.vectors._statements import Filters
from syntegra_db.vectors._strategy import EXACT_SCAN_MAX_ROWS, choose_setting
from syntegra_db.vectors.maintenance._build import index_validity
from syntegra_db.vectors.maintenance._calibration import evaluate_setting, read_only_snapshot, require_index_used
from syntegra_db.vectors.maintenance._ground_truth import compute_ground_truth, sample_queries, time_exact_search
from syntegra_db.vectors.maintenance._preconditions import is_rebuilding

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

    from syntegra_db.vectors._index import VectorIndex

SECONDS = 10
QUERIES = 200
FEWEST_QUERIES = 5
SHARE_FOR_EXACT = 0.2
SHARE_FOR_TRUTH = 0.6
# Of a normal distribution, 95 % lie within so many standard errors.
STANDARD_ERRORS = 1.96
COMMAND = "syntegra-db vectors rebuild"
INDEX_DEFINITION = text("""
    SELECT amname, indisvalid, pg_relation_size(pg_class.oid),
           pg_get_indexdef(pg_class.oid) LIKE '%halfvec%',
           (SELECT json_object_agg(option_name, option_value::int) FROM pg_options_to_table(reloptions))
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
    WHERE indrelid = to_regclass('text_summary') AND relname = :index
""")


@dataclass(frozen=True)
class IndexDefinition:
    """The index of the name as the catalog has it, valid or not; `options` are `lists`, `m` or `ef_construction`."""

    method: str
    options: dict[str, int]
    is_half: bool
    is_valid: bool
    bytes: int


@dataclass(frozen=True)
class HealthMeasurement:
    """What searches for ten rows took and found now.

    `setting` is the `ivfflat.probes` or `hnsw.ef_search` that `search` uses for a recall of .95, None where it compares
    all rows. `recall` is what it finds, give or take `margin`, within which it is in 95 of 100 cases. They and
    `milliseconds` are None too where the time was too short. `queries` is how many were tried.
    """

    exact_milliseconds: float
    setting: int | None = None
    recall: float | None = None
    margin: float | None = None
    milliseconds: float | None = None
    queries: int = 0


@dataclass(frozen=True)
class IndexHealth:
    """The vector index as it stands.

    `rows` is about how many rows have an embedding now, `rows_at_build` how many had when the index was built: 0 when
    it came with the empty table, None when nobody knows. `leftovers` are the indexes of a rebuild that was interrupted,
    or is running. `measured` is None where it could not be measured, and `not_measured_reason` then says why. `advice`
    is one sentence, `command` what to run, None when there is nothing to do.
    """

    shape: IndexDefinition | None
    leftovers: list[str]
    rows: int
    built_on: int | None
    measured: HealthMeasurement | None
    not_measured_reason: str | None
    advice: str
    command: str | None


def check_index_health(url: URL, seconds: float = SECONDS) -> IndexHealth:
    """Return what the vector index of the database at `url` is, and is worth, measured in about `seconds`.

    Changes nothing. The server ends each statement that takes longer.

    Raises:
        DatabaseBehind, DatabaseAhead, RevisionError: see `require_head`.
        ConnectionFailed: there is no connection; one of its subclasses says why.
    """
    engine = unpooled_engine(url)
    enable_binary_vectors(engine)
    with connect(engine) as connection:
        require_head(connection)
        index = read_primary_index(connection)
        shape = _shape(connection)
        standing = index_validity(connection)
        rows = estimate_rows(connection, Filters())
        built_on = _built_on(connection, index)
        rebuilding = is_rebuilding(connection)
    leftovers = sorted(standing.keys() & {NEW_INDEX, OLD_INDEX})
    rivals = [name for name in leftovers if standing[name]]
    measured: HealthMeasurement | None = None
    because: str | None = f"{', '.join(rivals)} serves searches as well"
    if not rivals:
        measured, because = _try_to_measure(engine, index, rows, seconds)
    advice, is_due = recommend(Evidence(rebuilding, index, shape, leftovers, rows, built_on, measured))
    return IndexHealth(
        shape=shape,
        leftovers=leftovers,
        rows=rows,
        built_on=built_on,
        measured=measured,
        not_measured_reason=because,
        advice=advice,
        command=COMMAND if is_due else None,
    )


def _try_to_measure(
    engine: Engine, index: VectorIndex | None, rows: int, seconds: float
) -> tuple[HealthMeasurement | None, str | None]:
    """Return what was measured, or None and why nothing was."""
    try:
        with read_only_snapshot(engine, seconds) as moment:
            measured = _measure(moment, index, rows, seconds) if rows else None
    except RebuildFailed as error:
        return None, str(error)
    except OperationalError as error:
        if not isinstance(error.orig, QueryCanceled):
            raise
        return None, f"{seconds:g} s were too short; allow more with --seconds"
    return measured, None if measured else "there is nothing to search"


def _measure(connection: Connection, index: VectorIndex | None, rows: int, seconds: float) -> HealthMeasurement | None:
    deadline = time.monotonic() + seconds
    queries = sample_queries(connection, QUERIES, rows)
    if not queries:
        return None
    exact = time_exact_search(connection, queries, deadline - (1 - SHARE_FOR_EXACT) * seconds)
    if index is None:
        return HealthMeasurement(exact)
    setting = choose_setting(index, recall=RECALL, limit=10, rows=rows, all_rows=rows)
    if setting is None:
        return HealthMeasurement(exact)
    require_index_used(connection, index, queries[0], setting)
    try:
        allowed = SHARE_FOR_TRUTH * (deadline - time.monotonic())
        truth = compute_ground_truth(connection, index, queries, setting, fewest=FEWEST_QUERIES, seconds=allowed)
        found = evaluate_setting(connection, index, truth, setting, deadline)
    except OperationalError as error:
        if not isinstance(error.orig, QueryCanceled):
            raise
        return HealthMeasurement(exact, setting)
    margin = STANDARD_ERRORS * found.error[0]
    return HealthMeasurement(exact, setting, found.recall[0], margin, found.milliseconds, found.queries)


def _shape(connection: Connection) -> IndexDefinition | None:
    row = connection.execute(INDEX_DEFINITION, {"index": VECTOR_INDEX}).first()
    if row is None:
        return None
    method, is_valid, size, is_half, options = row
    return IndexDefinition(method, options or {}, is_half, is_valid, size)


def _built_on(connection: Connection, index: VectorIndex | None) -> int | None:
    if index is None:
        return None
    if index.rows_at_build is not None:
        return index.rows_at_build
    return 0 if index.tuning is None and was_built_on_data(connection) is False else None


RECALL = 0.95
# Of the recall: with more, nothing can be said.
MAX_MARGIN = 0.03
# An ivfflat index that has grown tenfold since it was built has .9 of its speed, a hundredfold .57.
GROWTH_TO_REBUILD = 10


@dataclass(frozen=True)
class Evidence:
    """What an advice follows from, each as in `IndexHealth`.

    `is_rebuilding` says that a rebuild is going on; `index` is None where none of the name serves searches.
    """

    is_rebuilding: bool
    index: VectorIndex | None
    shape: IndexDefinition | None
    leftovers: list[str]
    rows: int
    built_on: int | None
    measured: HealthMeasurement | None


def recommend(seen: Evidence) -> tuple[str, bool]:
    """Return what to do, and why, in one sentence, and whether that is a rebuild."""
    if seen.is_rebuilding:
        return "Wait: a rebuild is running.", False
    if seen.leftovers:
        left = ", ".join(seen.leftovers)
        return f"Rebuild it: a rebuild was interrupted and left {left}, which the next one drops.", True
    if seen.rows <= EXACT_SCAN_MAX_ROWS:
        return f"Nothing to do: up to {EXACT_SCAN_MAX_ROWS:,} rows, a search compares all of them, as fast.", False
    if seen.index is None:
        return f"Rebuild it: the index {_missing_reason(seen.shape)}, so that each search compares all rows.", True
    reason = _rebuild_reason(seen.index, seen.rows, seen.built_on, seen.measured)
    if reason is not None:
        return f"Rebuild it: {reason}.", True
    return _no_action_message(seen.measured), False


def _missing_reason(shape: IndexDefinition | None) -> str:
    if shape is None:
        return "is missing"
    return "serves no search by cosine distance" if shape.is_valid else "is invalid"


def _rebuild_reason(
    index: VectorIndex, rows: int, built_on: int | None, measured: HealthMeasurement | None
) -> str | None:
    if built_on == 0:
        return "it came with the empty table, and an index that was built on no row finds little or is slow"
    if index.tuning is None or not index.is_calibration_current:
        return _uncalibrated_reason(index)
    if measured is not None and measured.recall is not None and measured.recall + (measured.margin or 0) < RECALL:
        return f"at the setting that searches use, it finds less than the {RECALL:g} that it should"
    if index.method == "ivfflat" and rows >= GROWTH_TO_REBUILD * index.tuning.rows:
        return f"there are {rows / index.tuning.rows:.0f} times the rows that it was built on, which costs speed"
    return None


def _uncalibrated_reason(index: VectorIndex) -> str:
    if index.method == "ivfflat" and index.was_rewritten_with_table:
        return "it was made anew with its table, as TRUNCATE does, perhaps on no row, so that each search compares all"
    how = "was built anew by other means since it was measured" if index.tuning else "was never measured"
    return f"it {how}, so that searches guess which setting it needs"


def _no_action_message(measured: HealthMeasurement | None) -> str:
    if measured is not None and measured.setting is None:
        return "Nothing to do, unless searches are too slow: then try an index of another --method."
    if measured is None:
        return "Not known: it was not measured."
    if measured.margin is None or measured.margin > MAX_MARGIN:
        return "Not known: the time was too short to measure it well; allow more with --seconds."
    return "Nothing to do: it finds what it should."
