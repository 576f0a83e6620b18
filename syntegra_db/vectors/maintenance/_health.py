"""Inspect the vector index, measure its searches, and recommend whether to rebuild it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from psycopg.errors import QueryCanceled
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from syntegra_db.catalog import require_all_rows
from syntegra_db.connections import connect
from syntegra_db.errors import RebuildFailed
from syntegra_db.migrations import require_head
from syntegra_db.pgvector_support import DEFAULT_RECALL
from syntegra_db.search_path import table_name
from syntegra_db.vectors._index import SETTING_NAMES, read_primary_index, was_built_on_data
from syntegra_db.vectors._index_state import estimate_rows
from syntegra_db.vectors._statements import Filters, rebuild_command
from syntegra_db.vectors._strategy import EXACT_SCAN_MAX_ROWS, choose_setting
from syntegra_db.vectors.maintenance._build import index_validity
from syntegra_db.vectors.maintenance._calibration import evaluate_setting, read_only_snapshot, require_index_used
from syntegra_db.vectors.maintenance._embeddings import find_embedding
from syntegra_db.vectors.maintenance._ground_truth import compute_ground_truth, sample_queries, time_exact_search
from syntegra_db.vectors.maintenance._preconditions import is_rebuilding

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from syntegra_db.models.embeddings import EmbeddingColumn, Method
    from syntegra_db.vectors._index import Calibration, VectorIndex

QUERIES = 200
MIN_QUERIES = 5
EXACT_TIME_SHARE = 0.2
GROUND_TRUTH_TIME_SHARE = 0.6
# 95 % of a normal distribution is within this many standard errors.
CONFIDENCE_STDERRS = 1.96
# With a wider margin of the recall, there is no recommendation.
MAX_MARGIN = 0.03
# With 10 times the rows that it was built on, an ivfflat index has 90 % of its speed, with 100 times 57 %.
REBUILD_GROWTH = 10
INDEX_DEFINITION = text("""
    SELECT amname AS method,
           coalesce((SELECT json_object_agg(option_name, option_value::int) FROM pg_options_to_table(reloptions)),
                    '{}') AS options,
           pg_get_indexdef(pg_class.oid) LIKE '%halfvec%' AS is_half, indisvalid AS is_valid,
           pg_relation_size(pg_class.oid) AS bytes
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
    WHERE pg_class.oid = to_regclass(:index)
""")


@dataclass(frozen=True)
class IndexDefinition:
    """The primary index as in the catalog, valid or not; `options` are `lists`, `m` or `ef_construction`."""

    method: str
    options: dict[str, int]
    is_half: bool
    is_valid: bool
    bytes: int


@dataclass(frozen=True)
class HealthMeasurement:
    """Recall and latency of searches for ten rows.

    `setting` is the `ivfflat.probes` or `hnsw.ef_search` that `search` uses for a recall of 0.95; None if `search` is
    exact. `recall` is within ±`margin` with 95 % confidence, from `queries` queries. `recall`, `margin` and
    `milliseconds` are None if there is no setting or the time was too short.
    """

    exact_milliseconds: float
    setting: int | None = None
    recall: float | None = None
    margin: float | None = None
    milliseconds: float | None = None
    queries: int = 0


@dataclass(frozen=True)
class IndexHealth:
    """State, measurement and recommendation for the vector index of one embedding.

    `column` is the embedding as `TABLE.COLUMN`, `index` the declared name of its index.
    `rows` is the estimated number of rows with an embedding. `rows_at_build` is their number when the index was built:
    0 if it was created with the empty table, None if unknown. `rebuild_indexes` are those of an interrupted or running
    rebuild. `calibration` is that of the current index, None if it has none. If `measurement` is None,
    `not_measured_reason` gives the reason. `command` is None if no action is needed.
    """

    column: str
    index: str
    definition: IndexDefinition | None
    rebuild_indexes: list[str]
    rows: int
    rows_at_build: int | None
    calibration: Calibration | None
    measurement: HealthMeasurement | None
    not_measured_reason: str | None
    advice: str
    command: str | None

    @property
    def setting_name(self) -> str:
        """The setting of pgvector that searches with this index change, such as `ivfflat.probes`."""
        return SETTING_NAMES.get(cast("Method", self.definition.method), "setting") if self.definition else "setting"


def check_index_health(engine: Engine, seconds: float = 10, *, embedding: str | None = None) -> IndexHealth:
    """Inspect a vector index and benchmark it for about `seconds`, without changing anything.

    Args:
        engine: connections of a role that reads the table.
        seconds: approximate duration.
        embedding: the column, as `COLUMN` or `TABLE.COLUMN`; may be omitted if only one is declared.

    Raises:
        RebuildFailed: no such embedding is declared, or row-level security can hide rows from the role.
        DatabaseBehind, DatabaseAhead, RevisionError: see `require_head`.
        ConnectionFailed: no connection could be opened; one of its subclasses gives the reason.
    """
    column = find_embedding(embedding)
    with connect(engine) as connection:
        require_head(connection)
        require_all_rows(connection, [column.table], RebuildFailed)
        index = read_primary_index(connection, column)
        row = connection.execute(INDEX_DEFINITION, {"index": table_name(connection, column.index)}).mappings().first()
        definition = IndexDefinition(**row) if row else None
        validity = index_validity(connection, column)
        rows = estimate_rows(connection, column, Filters())
        rows_at_build = _rows_at_build(connection, index)
        rebuilding = is_rebuilding(connection)
    rebuild_indexes = sorted(validity.keys() & {column.new_index, column.old_index})
    competing = [name for name in rebuild_indexes if validity[name]]
    measurement: HealthMeasurement | None = None
    reason: str | None = f"the planner may use {', '.join(competing)} instead"
    if not competing:
        measurement, reason = _try_to_measure(engine, column, index, rows, seconds)
    advice, is_rebuild_due = recommend(
        index,
        definition,
        measurement,
        rows=rows,
        rows_at_build=rows_at_build,
        rebuild_indexes=rebuild_indexes,
        is_rebuilding=rebuilding,
    )
    return IndexHealth(
        column=str(column),
        index=column.index,
        definition=definition,
        rebuild_indexes=rebuild_indexes,
        rows=rows,
        rows_at_build=rows_at_build,
        calibration=None if index is None else index.current_calibration,
        measurement=measurement,
        not_measured_reason=reason,
        advice=advice,
        command=rebuild_command(column) if is_rebuild_due else None,
    )


def _rows_at_build(connection: Connection, index: VectorIndex | None) -> int | None:
    if index is None:
        return None
    if index.calibration is None and was_built_on_data(connection, index.embedding) is False:
        return 0
    return index.rows_at_build


def _try_to_measure(
    engine: Engine, column: EmbeddingColumn, index: VectorIndex | None, rows: int, seconds: float
) -> tuple[HealthMeasurement | None, str | None]:
    """Return the measurement, or None and the reason."""
    try:
        with read_only_snapshot(engine, seconds) as snapshot:
            measurement = _measure(snapshot, column, index, rows, seconds) if rows else None
    except RebuildFailed as error:
        return None, str(error)
    except OperationalError as error:
        if not isinstance(error.orig, QueryCanceled):
            raise
        return None, f"{seconds:g} s were too short; allow more with --seconds"
    return measurement, None if measurement else "no row has an embedding"


def _measure(
    connection: Connection, column: EmbeddingColumn, index: VectorIndex | None, rows: int, seconds: float
) -> HealthMeasurement | None:
    started = time.monotonic()
    queries = sample_queries(connection, column, QUERIES, rows)
    if not queries:
        return None
    exact = time_exact_search(connection, column, queries, started + EXACT_TIME_SHARE * seconds)
    if index is None:
        return HealthMeasurement(exact)
    setting = choose_setting(index, recall=DEFAULT_RECALL, limit=10, rows=rows, all_rows=rows)
    if setting is None:
        return HealthMeasurement(exact)
    require_index_used(connection, index, queries[0], setting)
    deadline = started + seconds
    try:
        truth = compute_ground_truth(
            connection,
            index,
            queries,
            setting,
            min_queries=MIN_QUERIES,
            seconds=GROUND_TRUTH_TIME_SHARE * (deadline - time.monotonic()),
        )
        result = evaluate_setting(connection, index, truth, setting, deadline)
    except OperationalError as error:
        if not isinstance(error.orig, QueryCanceled):
            raise
        return HealthMeasurement(exact, setting)
    margin = CONFIDENCE_STDERRS * result.error[0]
    return HealthMeasurement(exact, setting, result.recall[0], margin, result.milliseconds, result.queries)


def recommend(  # noqa: PLR0913  everything that is known of the index
    index: VectorIndex | None,
    definition: IndexDefinition | None,
    measurement: HealthMeasurement | None,
    *,
    rows: int,
    rows_at_build: int | None,
    rebuild_indexes: list[str],
    is_rebuilding: bool,
) -> tuple[str, bool]:
    """Return a recommendation with its reason, in one sentence, and whether it is to rebuild the index.

    `index` is None if searches cannot use the primary index; the other arguments are as in `IndexHealth`.
    """
    if is_rebuilding:
        return "Wait: a rebuild is running.", False
    if rebuild_indexes:
        return (
            f"Rebuild it: an interrupted rebuild left {', '.join(rebuild_indexes)}, which the next rebuild drops.",
            True,
        )
    if rows <= EXACT_SCAN_MAX_ROWS:
        return f"No action needed: up to {EXACT_SCAN_MAX_ROWS:,} rows, an exact search is as fast.", False
    if index is None:
        return f"Rebuild it: the index {_missing_reason(definition)}, so each search is exact.", True
    reason = _rebuild_reason(index, measurement, rows, rows_at_build)
    if reason is not None:
        return f"Rebuild it: {reason}.", True
    return _no_action_message(measurement), False


def _missing_reason(definition: IndexDefinition | None) -> str:
    if definition is None:
        return "is missing"
    return "does not support cosine distance" if definition.is_valid else "is invalid"


def _rebuild_reason(
    index: VectorIndex, measurement: HealthMeasurement | None, rows: int, rows_at_build: int | None
) -> str | None:
    if rows_at_build == 0:
        return "it was created with the empty table, and an index built on no rows has a low recall or is slow"
    if index.current_calibration is None:
        return _uncalibrated_reason(index)
    if measurement and measurement.recall is not None:
        highest = measurement.recall + (measurement.margin or 0)
        if highest < DEFAULT_RECALL:
            return f"with the setting that searches use, its recall is below {DEFAULT_RECALL:g}"
    growth = rows / index.current_calibration.rows
    if index.method == "ivfflat" and growth >= REBUILD_GROWTH:
        return f"there are {growth:.0f} times the rows that it was built on, which makes searches slower"
    return None


def _uncalibrated_reason(index: VectorIndex) -> str:
    if index.method == "ivfflat" and index.was_rewritten_with_table:
        return "it was rewritten with its table (for example by TRUNCATE), so searches fall back to exact scans"
    state = "was rebuilt by other means after its calibration" if index.calibration else "is not calibrated"
    return f"it {state}, so searches use an estimated setting"


def _no_action_message(measurement: HealthMeasurement | None) -> str:
    if measurement is None:
        return "Unknown: the index was not measured."
    if measurement.setting is None:
        return "No action needed. If searches are too slow, try an index of another --method."
    if measurement.margin is None or measurement.margin > MAX_MARGIN:
        return "Unknown: the time was too short for the measurement; allow more with --seconds."
    return f"No action needed: its recall reaches {DEFAULT_RECALL:g}."
