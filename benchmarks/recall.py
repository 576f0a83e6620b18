"""Recall and speed of a search, measured with held-out queries against the exact nearest neighbours."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import psycopg
from pgvector.psycopg import register_vector

from syntegra_db.connections import conninfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from sqlalchemy.engine import URL

    Vectors: TypeAlias = npt.NDArray[np.float32]
    Found: TypeAlias = Sequence[int]

NEAREST = 10
FULL = "embedding <=> %(query)s"
HALF = "embedding::halfvec(384) <=> %(query)s::halfvec(384)"
# Settings whose relative difference is smaller are treated as equal.
SETTING_TOLERANCE = 0.02
SETTINGS = {"ivfflat": "ivfflat.probes", "hnsw": "hnsw.ef_search"}


@dataclass(frozen=True)
class Point:
    """The result of one search setting (0 = none): recall at ten, 0 to 1, and queries per second of one client."""

    setting: int
    recall: float
    per_second: float


@dataclass(frozen=True)
class QuerySet:
    """Queries, shape (n, 384), and their ground truth: the ids of the ten exact nearest rows, shape (n, 10)."""

    vectors: Vectors
    ground_truth: npt.NDArray[np.int64]

    @classmethod
    def with_ground_truth(cls, rows: Vectors, queries: Vectors, ids: npt.NDArray[np.int64] | None = None) -> QuerySet:
        """Return `queries` with their ground truth among `rows`, whose ids count from 1 unless supplied."""
        positions = np.empty((len(queries), NEAREST), dtype=np.int64)
        for number, query in enumerate(queries):
            similarity = rows @ query
            candidates = np.argpartition(-similarity, NEAREST)[:NEAREST]
            positions[number] = candidates[np.argsort(-similarity[candidates])]
        return cls(queries, positions + 1 if ids is None else ids[positions])

    def head(self, count: int) -> QuerySet:
        """Return the first `count` queries."""
        return QuerySet(self.vectors[:count], self.ground_truth[:count])

    def evaluate(self, find: Callable[[Any], Found], setting: int = 0) -> Point:
        """Measure recall and speed of `find` over all queries, after a warm-up with the first five."""
        for query in self.vectors[:5]:
            find(query)
        started = time.perf_counter()
        results = [find(query) for query in self.vectors]
        seconds = time.perf_counter() - started
        recalls = [
            len({*found} & {*exact}) / NEAREST for found, exact in zip(results, self.ground_truth.tolist(), strict=True)
        ]
        return Point(setting, statistics.fmean(recalls), len(self.vectors) / seconds)


class BareSearch:
    """A search with psycopg only: returns ids in binary format, with an explicit setting."""

    def __init__(self, url: URL, method: str, *, half: bool) -> None:
        self.connection = psycopg.connect(conninfo(url), autocommit=True)
        register_vector(self.connection)
        self.method = method
        order = HALF if half else FULL
        rows = "SELECT id FROM text_summary WHERE embedding IS NOT NULL"
        self.statement = f"{rows} ORDER BY {order} LIMIT {NEAREST}"

    def __call__(self, query: Any) -> Found:
        """Return the ids of the nearest rows."""
        cursor = self.connection.cursor(binary=True)
        return [row[0] for row in cursor.execute(self.statement, {"query": query})]

    def at(self, queries: QuerySet, setting: int) -> Point:
        """Evaluate `queries` with this value of probes or ef_search."""
        self.connection.execute(f"SET {SETTINGS[self.method]} = {setting}")
        return queries.evaluate(self, setting)

    def sweep(self, queries: QuerySet, settings: Sequence[int], max_recall: float = 0.995) -> list[Point]:
        """Evaluate `queries` with each of `settings`, ascending, until the recall is at least `max_recall`."""
        points = []
        for setting in settings:
            points.append(self.at(queries, setting))
            if points[-1].recall >= max_recall:
                break
        return points

    def smallest_sufficient(self, queries: QuerySet, recall: float, points: Sequence[Point]) -> Point | None:
        """Return the smallest setting that reaches `recall`, by bisection around the first of `points` that does."""
        settings = [0, *(point.setting for point in points)]
        reached = next((number for number, point in enumerate(points, 1) if point.recall >= recall), None)
        if reached is None:
            return None
        low, high = settings[max(reached - 2, 0)], settings[min(reached + 1, len(points))]
        best = self.at(queries, high)
        while high - low > max(1, low * SETTING_TOLERANCE):
            middle = self.at(queries, (high + low) // 2)
            if middle.recall >= recall:
                best, high = middle, middle.setting
            else:
                low = middle.setting
        return best if best.recall >= recall else None
