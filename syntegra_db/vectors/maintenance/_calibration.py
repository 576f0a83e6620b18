"""How much of the truth the vector index finds at which setting, and how fast."""

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

from syntegra_db.errors import RebuildFailed
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors._index import MAX_EF_SEARCH, RECALL_DEPTHS, Calibration, CalibrationPoint
from syntegra_db.vectors._statements import index_statement
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
# Of the time: for exact searches, for the truly nearest rows, then for the ladder of settings; the rest is for the one
# that is asked for.
SHARE_FOR_EXACT = 0.05
SHARE_FOR_TRUTH = 0.35
SHARE_FOR_LADDER = 0.2
QUERIES_OF_A_RUNG = 100
FEWEST_OF_A_RUNG = 25
# Of the time that is left for the ladder, or for the steps around the asked recall.
SHARE_FOR_A_RUNG = 0.5
SHARE_FOR_A_STEP = 0.5
SEARCHES_TO_TIME = 30
FEWEST_SEARCHES = 5
SWEEP_FACTOR = 1.4
# Beyond, comparing all rows is as fast.
MOST_PROBES_OF_LISTS = 0.5
LEAST_EF_SEARCH = 10
RECALL_AT_THE_TOP = 0.99
MAX_SLOWDOWN = 2
# On so few rows, what surrounds a scan takes longer than the scan.
NEVER_SLOW_MILLISECONDS = 20
# Standard errors that are taken off a recall. At .95, a thousandth more takes 3 % more time.
RECALL_SAFETY_STDERRS = 0.5
# Two settings as close as that need not be told apart.
SETTING_TOLERANCE = 1.04
# The first of them is not in servers before 17.
DISABLE_TIMEOUTS = text(
    """
    SELECT set_config(name, '0', true) FROM pg_settings
    WHERE name IN ('transaction_timeout', 'idle_in_transaction_session_timeout')
    """
)


@dataclass(frozen=True)
class SettingResult:
    """Mean recall at each of `RECALL_DEPTHS`, its standard error, and mean milliseconds of one search setting."""

    setting: int
    recall: tuple[float, ...]
    error: tuple[float, ...]
    milliseconds: float
    queries: int

    def conservative(self) -> CalibrationPoint:
        """Return the recall less half its standard error, as which it is kept."""
        recall = tuple(
            max(mean - RECALL_SAFETY_STDERRS * error, 0) for mean, error in zip(self.recall, self.error, strict=True)
        )
        return CalibrationPoint(self.setting, tuple(round(one, 4) for one in recall), round(self.milliseconds, 3))


@contextmanager
def read_only_snapshot(engine: Engine, seconds: float = 0) -> Iterator[Connection]:
    """Open a transaction that sees one moment of the table.

    No statement in it takes longer than `seconds`; with 0, each takes as long as it does.
    """
    frozen = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with frozen.connect() as connection:
        connection.execute(DISABLE_TIMEOUTS)
        connection.execute(
            text("SELECT set_config('statement_timeout', :limit, true)"), {"limit": f"{ceil(1000 * seconds)}ms"}
        )
        yield connection


def calibrate(connection: Connection, index: VectorIndex, *, rows: int, recall: float, seconds: float) -> Calibration:
    """Return the settings of `index` with what they give, those for `recall` closest together.

    A ladder of settings, each 1.4 times the one before, up to half of the lists, an `ef_search` of 1000 or a recall of
    .99, is measured with a part of the sample, and those around the asked recall with all of it. What is kept is the
    recall less half its standard error, so that luck counts for less.

    Args:
        connection: one of `read_only_snapshot`.
        index: the one that stands.
        rows: how many embeddings it was built on.
        recall: share of the true nearest rows for which the setting is to be found.
        seconds: about so long it may take; a few searches more where 50 queries do not fit in.

    Raises:
        RebuildFailed: the server does not search through the index.
    """
    began = time.monotonic()
    queries = sample_queries(connection, QUERIES, rows)
    require_index_used(connection, index, queries[0], baseline_setting(index))
    exact = time_exact_search(connection, queries, began + SHARE_FOR_EXACT * seconds)
    allowed = seconds * SHARE_FOR_TRUTH
    truth = compute_ground_truth(
        connection, index, queries, baseline_setting(index), fewest=MIN_QUERIES, seconds=allowed
    )
    tuner = _Calibrator(connection, index, truth, exact, {})
    tuner.sweep(recall, began + seconds * (SHARE_FOR_TRUTH + SHARE_FOR_LADDER))
    if recall < 1:
        tuner.refine(recall, began + seconds)
    return Calibration(
        rows=rows,
        filenode=index.filenode,
        table_filenode=index.table_filenode,
        recall=recall,
        exact_milliseconds=round(exact, 3),
        measured=enforce_monotonic(tuner.found.values()),
    )


def baseline_setting(index: VectorIndex) -> int:
    """Return a setting that finds .95 of the truth or more on real sentences.

    Before pgvector 0.8, an hnsw index finds no more rows than its `ef_search`, and 100 are wanted.
    """
    return max(1, min(round(4 * sqrt(index.lists)), ceil(index.lists / 2))) if index.method == "ivfflat" else 200


def evaluate_setting(
    connection: Connection, index: VectorIndex, truth: GroundTruth, setting: int, deadline: float = inf
) -> SettingResult:
    """Return what `setting` gives on `truth`, or on the part of it that is searched before `deadline`."""
    shares: list[tuple[float, ...]] = []
    times = []
    with force_index_scan(connection, index, setting):
        for number, (query, true) in enumerate(zip(truth.queries, truth.distances, strict=True)):
            if number >= FEWEST_SEARCHES and time.monotonic() > deadline:
                break
            if number < SEARCHES_TO_TIME:
                times.append(time_index_search(connection, index, query))
            found = index_distances(connection, index, query)
            shares.append(tuple(_recall(found, true, depth) for depth in RECALL_DEPTHS))
    columns = list(zip(*shares, strict=True))
    return SettingResult(
        setting=setting,
        recall=tuple(fmean(column) for column in columns),
        error=tuple(stdev(column) / sqrt(len(column)) if len(column) > 1 else 0.0 for column in columns),
        milliseconds=median(times),
        queries=len(shares),
    )


def require_index_used(connection: Connection, index: VectorIndex, query: SampleQuery, setting: int) -> None:
    """Return if the server searches through `index`, at `setting`, when it is left no other way.

    Raises:
        RebuildFailed: another index serves the same search.
    """
    explain = text(f"EXPLAIN {index_statement((), is_half=index.is_half)}")
    with force_index_scan(connection, index, setting):
        plan = connection.scalars(explain, {"query": query.vector.to_text(), "limit": RECALL_DEPTHS[0]}).all()
    if not any(f" {VECTOR_INDEX} " in line for line in plan):
        used = re.search(r" using (\S+) on ", "\n".join(plan))
        raise RebuildFailed(
            f"{VECTOR_INDEX} stands, but was not measured: the server searches through another index on the embeddings "
            f"of text_summary, {used[1] if used else 'of an unknown name'}. Drop that one and run this again."
        )


@dataclass(frozen=True)
class _Calibrator:
    connection: Connection
    index: VectorIndex
    truth: GroundTruth
    exact_milliseconds: float
    found: dict[int, SettingResult]

    def sweep(self, recall: float, deadline: float) -> None:
        """Measure the rungs of the ladder with a part of the sample; late, no further than to the asked recall.

        It ends where the index takes twice as long as comparing all rows: nobody wants it there.
        """
        milliseconds = 0.0
        for setting in _sweep_settings(self.index):
            allowed = SHARE_FOR_A_RUNG * (deadline - time.monotonic())
            one = self._measure(setting, QUERIES_OF_A_RUNG, allowed, SWEEP_FACTOR * milliseconds)
            milliseconds = one.milliseconds
            enough = recall if time.monotonic() > deadline else RECALL_AT_THE_TOP
            if one.recall[0] >= enough or self._is_slow(milliseconds):
                return

    def refine(self, recall: float, deadline: float) -> None:
        """Measure settings around the asked recall with all of the sample, until two that differ in it are close."""
        rungs = _sweep_settings(self.index)
        climbed = sorted(self.found)
        at = next((at for at, rung in enumerate(climbed) if self.found[rung].recall[0] >= recall), len(climbed) - 1)
        while not self._reaches_recall(rungs[at], recall, deadline):
            at += 1
            if at == len(rungs) or self._is_slow(self.found[rungs[at - 1]].milliseconds):
                return
        top, bottom = rungs[at], rungs[max(at - 1, 0)]
        while top - bottom > 1 and top > bottom * SETTING_TOLERANCE and time.monotonic() < deadline:
            middle = self._interpolate_setting(bottom, top, recall)
            if self._reaches_recall(middle, recall, deadline):
                top = middle
            else:
                bottom = middle

    def _interpolate_setting(self, bottom: int, top: int, recall: float) -> int:
        """Return the setting where `recall` lies on a line over the logarithm of those at `bottom` and `top`."""
        low, high = (self.found[setting].conservative().recall[0] for setting in (bottom, top))
        share = (recall - low) / (high - low) if high > low else 0.5
        middle: int = round(bottom * (top / bottom) ** min(max(share, 0.1), 0.9))
        return min(max(middle, bottom + 1), top - 1)

    def _is_slow(self, milliseconds: float) -> bool:
        return milliseconds > max(MAX_SLOWDOWN * self.exact_milliseconds, NEVER_SLOW_MILLISECONDS)

    def _reaches_recall(self, setting: int, recall: float, deadline: float) -> bool:
        milliseconds = max(one.milliseconds for one in self.found.values() if one.setting <= setting)
        allowed = SHARE_FOR_A_STEP * (deadline - time.monotonic())
        return self._measure(setting, QUERIES, allowed, milliseconds).conservative().recall[0] >= recall

    def _measure(self, setting: int, most: int, seconds: float, milliseconds: float) -> SettingResult:
        """Return what `setting` gives on as many queries as `seconds` allow, each of about so many milliseconds."""
        fitting = int(1000 * seconds / milliseconds) if milliseconds else most
        part = self.truth.head(min(most, max(fitting, FEWEST_OF_A_RUNG)))
        self.found[setting] = evaluate_setting(self.connection, self.index, part, setting)
        return self.found[setting]


def enforce_monotonic(found: Iterable[SettingResult]) -> tuple[CalibrationPoint, ...]:
    """Return the measurements by setting; a greater one finds at least what a smaller one was seen to find."""
    kept: list[CalibrationPoint] = []
    for one in sorted(found, key=attrgetter("setting")):
        careful = one.conservative()
        kept.append(replace(careful, recall=tuple(map(max, careful.recall, kept[-1].recall))) if kept else careful)
    return tuple(kept)


def _sweep_settings(index: VectorIndex) -> list[int]:
    if index.method == "hnsw":
        least, most = LEAST_EF_SEARCH, MAX_EF_SEARCH
    else:
        least, most = 1, max(1, int(index.lists * MOST_PROBES_OF_LISTS))
    steps = ceil(log(most / least, SWEEP_FACTOR))
    return list(dict.fromkeys([*(round(least * SWEEP_FACTOR**step) for step in range(steps)), most]))


def _recall(found: list[float], true: list[float], depth: int) -> float:
    nearest = true[:depth]
    return sum(far <= nearest[-1] for far in found[:depth]) / len(nearest) if nearest else 1.0
