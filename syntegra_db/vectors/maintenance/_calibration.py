"""Calibrate a vector index: recall and latency for each search setting."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil, inf, log, sqrt
from operator import attrgetter
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING

from sqlalchemy import text

from syntegra_db.connections import connect
from syntegra_db.errors import RebuildFailed
from syntegra_db.search_path import schema_of
from syntegra_db.sql import quote
from syntegra_db.vectors._index import MAX_EF_SEARCH, RECALL_DEPTHS, Calibration, CalibrationPoint
from syntegra_db.vectors._statements import explain, index_statement
from syntegra_db.vectors.maintenance._ground_truth import (
    compute_ground_truth,
    force_index_scan,
    index_distances,
    sample_queries,
    time_exact_search,
    time_index_search,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection, Engine

    from syntegra_db.vectors._index import VectorIndex
    from syntegra_db.vectors.maintenance._ground_truth import GroundTruth, SampleQuery

CALIBRATION_SECONDS = 120
QUERIES = 1000
MIN_QUERIES = 50
# Shares of the time for exact searches (part of the next), the ground truth and the sweep. The rest is for settings
# around the requested recall.
EXACT_TIME_SHARE = 0.05
GROUND_TRUTH_TIME_SHARE = 0.35
SWEEP_TIME_SHARE = 0.2
# One setting may use this share of the time that is left for its phase.
STEP_TIME_SHARE = 0.5
SWEEP_QUERIES = 100
MIN_SWEEP_QUERIES = 25
MAX_TIMED_SEARCHES = 30
MIN_SEARCHES = 5
SWEEP_FACTOR = 1.4
# With more than this share of the lists, an index scan is no faster than an exact scan.
MAX_PROBES_RATIO = 0.5
MIN_EF_SEARCH = 10
MAX_SWEEP_RECALL = 0.99
MAX_SLOWDOWN = 2
# On few rows, the overhead of a search takes longer than its scan.
ALWAYS_FAST_MILLISECONDS = 20
# Standard errors subtracted from a recall. At 0.95, a recall that is 0.001 higher takes 3 % more time.
RECALL_SAFETY_STDERRS = 0.5
# Settings closer than this factor are not distinguished.
SETTING_TOLERANCE = 1.04
# Servers before 17 do not have transaction_timeout.
DISABLE_TIMEOUTS = text(
    """
    SELECT set_config(name, '0', true) FROM pg_settings
    WHERE name IN ('transaction_timeout', 'idle_in_transaction_session_timeout')
    """
)


@dataclass(frozen=True)
class SettingResult:
    """Mean recall at each of `RECALL_DEPTHS`, its standard error, and median milliseconds of one search setting."""

    setting: int
    recall: tuple[float, ...]
    error: tuple[float, ...]
    milliseconds: float
    queries: int

    def conservative(self) -> CalibrationPoint:
        """Return the point to store: the recall minus half its standard error."""
        recall = tuple(
            max(mean - RECALL_SAFETY_STDERRS * error, 0) for mean, error in zip(self.recall, self.error, strict=True)
        )
        return CalibrationPoint(self.setting, tuple(round(share, 4) for share in recall), round(self.milliseconds, 3))


@contextmanager
def read_only_snapshot(engine: Engine, seconds: float = 0) -> Iterator[Connection]:
    """Open a read-only transaction with one snapshot and a statement timeout of `seconds` (0: no limit)."""
    with connect(engine.execution_options(postgresql_readonly=True), "REPEATABLE READ") as connection:
        connection.execute(DISABLE_TIMEOUTS)
        connection.execute(
            text("SELECT set_config('statement_timeout', :limit, true)"), {"limit": f"{ceil(1000 * seconds)}ms"}
        )
        yield connection


def calibrate(connection: Connection, index: VectorIndex, *, rows: int, recall: float, seconds: float) -> Calibration:
    """Return the recall and latency of the search settings of `index`, most precisely around `recall`.

    The sweep measures increasing settings, each 1.4 times the previous one, with a part of the sample. It stops at 50 %
    of the lists, an `ef_search` of 1000 or a recall of 0.99. The settings around the requested recall are then measured
    with the whole sample. Stored recalls are conservative: half a standard error is subtracted.

    Args:
        connection: a connection from `read_only_snapshot`.
        index: the current index.
        rows: the number of embeddings that it was built on.
        recall: the requested recall: the share of the exact nearest neighbours that the index must return, 0 to 1.
        seconds: approximate duration; longer if 50 queries take longer.

    Raises:
        RebuildFailed: the planner does not use the index, or no embedding is left.
    """
    started = time.monotonic()
    queries = sample_queries(connection, index.embedding, QUERIES, rows)
    if not queries:
        raise RebuildFailed(
            "All embeddings were deleted during the rebuild. The new index is in use, but it is not calibrated. Load "
            "embeddings and run this again."
        )
    baseline = baseline_setting(index)
    require_index_used(connection, index, queries[0], baseline)
    exact = time_exact_search(connection, index.embedding, queries, started + EXACT_TIME_SHARE * seconds)
    truth = compute_ground_truth(
        connection, index, queries, baseline, min_queries=MIN_QUERIES, seconds=GROUND_TRUTH_TIME_SHARE * seconds
    )
    calibrator = _Calibrator(connection, index, truth, exact, {})
    calibrator.sweep(recall, started + seconds * (GROUND_TRUTH_TIME_SHARE + SWEEP_TIME_SHARE))
    if recall < 1:
        calibrator.refine(recall, started + seconds)
    return Calibration(
        rows=rows,
        filenode=index.filenode,
        table_filenode=index.table_filenode,
        recall=recall,
        exact_milliseconds=round(exact, 3),
        points=enforce_monotonic(calibrator.results.values()),
    )


def baseline_setting(index: VectorIndex) -> int:
    """Return a setting with a recall of 0.95 or more on real sentences.

    Before pgvector 0.8, an hnsw index finds at most `ef_search` rows, and the ground truth needs 100.
    """
    return max(1, min(round(4 * sqrt(index.lists)), ceil(index.lists / 2))) if index.method == "ivfflat" else 200


def evaluate_setting(
    connection: Connection, index: VectorIndex, truth: GroundTruth, setting: int, deadline: float = inf
) -> SettingResult:
    """Return recall and latency of `setting` on `truth`, or on the queries that run before `deadline`."""
    recalls: list[tuple[float, ...]] = []
    times = []
    with force_index_scan(connection, index, setting):
        for number, (query, exact) in enumerate(zip(truth.queries, truth.distances, strict=True)):
            if number >= MIN_SEARCHES and time.monotonic() > deadline:
                break
            if number < MAX_TIMED_SEARCHES:
                times.append(time_index_search(connection, index, query))
            approximate = index_distances(connection, index, query)
            recalls.append(tuple(_recall(approximate, exact, depth) for depth in RECALL_DEPTHS))
    columns = list(zip(*recalls, strict=True))
    return SettingResult(
        setting=setting,
        recall=tuple(fmean(column) for column in columns),
        error=tuple(stdev(column) / sqrt(len(column)) if len(column) > 1 else 0.0 for column in columns),
        milliseconds=median(times),
        queries=len(recalls),
    )


def require_index_used(connection: Connection, index: VectorIndex, query: SampleQuery, setting: int) -> None:
    """Raise `RebuildFailed` unless the planner uses `index` once other plans are disabled."""
    statement = index_statement(index.embedding, (), index.extension_schema, is_half=index.is_half)
    with force_index_scan(connection, index, setting):
        plan = connection.scalars(
            explain(statement, schema_of(connection)), {"query": query.vector.to_text(), "limit": RECALL_DEPTHS[0]}
        ).all()
    if not any(f" {quote(index.name)} " in line for line in plan):
        used = re.search(r" using (\S+) on ", "\n".join(plan))
        raise RebuildFailed(
            f"{index.name} was not measured, because the planner uses another index on the embeddings of "
            f"{index.embedding.table}: {used[1] if used else 'unknown'}. Drop that index and run this again."
        )


@dataclass(frozen=True)
class _Calibrator:
    connection: Connection
    index: VectorIndex
    truth: GroundTruth
    exact_milliseconds: float
    results: dict[int, SettingResult]

    def sweep(self, recall: float, deadline: float) -> None:
        """Measure increasing settings with a part of the sample; after `deadline`, only up to the requested recall.

        It ends when an index scan takes twice as long as an exact search.
        """
        milliseconds = 0.0
        for setting in _sweep_settings(self.index):
            seconds = STEP_TIME_SHARE * (deadline - time.monotonic())
            result = self._measure(setting, SWEEP_QUERIES, seconds, SWEEP_FACTOR * milliseconds)
            milliseconds = result.milliseconds
            sufficient = recall if time.monotonic() > deadline else MAX_SWEEP_RECALL
            if result.recall[0] >= sufficient or self._is_slow(milliseconds):
                return

    def refine(self, recall: float, deadline: float) -> None:
        """Measure settings around the requested recall with the whole sample, and interpolate between the nearest."""
        settings = _sweep_settings(self.index)
        swept = sorted(self.results)
        sufficient = (number for number, setting in enumerate(swept) if self.results[setting].recall[0] >= recall)
        # The swept settings are the first ones of `settings`.
        position = next(sufficient, len(swept) - 1)
        while not self._reaches_recall(settings[position], recall, deadline):
            position += 1
            if position == len(settings) or self._is_slow(self.results[settings[position - 1]].milliseconds):
                return
        top, bottom = settings[position], settings[max(position - 1, 0)]
        while top - bottom > 1 and top > bottom * SETTING_TOLERANCE and time.monotonic() < deadline:
            middle = self._interpolate_setting(bottom, top, recall)
            if self._reaches_recall(middle, recall, deadline):
                top = middle
            else:
                bottom = middle

    def _interpolate_setting(self, bottom: int, top: int, recall: float) -> int:
        """Return the setting for `recall`, interpolated over the logarithm of the settings `bottom` and `top`."""
        low, high = (self.results[setting].conservative().recall[0] for setting in (bottom, top))
        share = (recall - low) / (high - low) if high > low else 0.5
        middle: int = round(bottom * (top / bottom) ** min(max(share, 0.1), 0.9))
        return min(max(middle, bottom + 1), top - 1)

    def _is_slow(self, milliseconds: float) -> bool:
        return milliseconds > max(MAX_SLOWDOWN * self.exact_milliseconds, ALWAYS_FAST_MILLISECONDS)

    def _reaches_recall(self, setting: int, recall: float, deadline: float) -> bool:
        milliseconds = max(result.milliseconds for result in self.results.values() if result.setting <= setting)
        seconds = STEP_TIME_SHARE * (deadline - time.monotonic())
        return self._measure(setting, QUERIES, seconds, milliseconds).conservative().recall[0] >= recall

    def _measure(self, setting: int, max_queries: int, seconds: float, milliseconds: float) -> SettingResult:
        """Return the result of `setting` on as many queries as fit into `seconds`, at `milliseconds` per query."""
        affordable = int(1000 * seconds / milliseconds) if milliseconds else max_queries
        sample = self.truth.head(min(max_queries, max(affordable, MIN_SWEEP_QUERIES)))
        self.results[setting] = evaluate_setting(self.connection, self.index, sample, setting)
        return self.results[setting]


def enforce_monotonic(results: Iterable[SettingResult]) -> tuple[CalibrationPoint, ...]:
    """Return the points in order of the setting, with the recall of each at least that of the previous one."""
    points: list[CalibrationPoint] = []
    for result in sorted(results, key=attrgetter("setting")):
        point = result.conservative()
        points.append(replace(point, recall=tuple(map(max, point.recall, points[-1].recall))) if points else point)
    return tuple(points)


def _sweep_settings(index: VectorIndex) -> list[int]:
    if index.method == "hnsw":
        lowest, highest = MIN_EF_SEARCH, MAX_EF_SEARCH
    else:
        lowest, highest = 1, max(1, int(index.lists * MAX_PROBES_RATIO))
    steps = ceil(log(highest / lowest, SWEEP_FACTOR))
    return list(dict.fromkeys([*(round(lowest * SWEEP_FACTOR**step) for step in range(steps)), highest]))


def _recall(approximate: list[float], exact: list[float], depth: int) -> float:
    nearest = exact[:depth]
    return sum(distance <= nearest[-1] for distance in approximate[:depth]) / len(nearest) if nearest else 1.0
