"""What a search finds and how fast: against the true nearest, on queries that never were rows."""

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
# Settings within so much of each other are as good as one.
CLOSE = 0.02
SETTINGS = {"ivfflat": "ivfflat.probes", "hnsw": "hnsw.ef_search"}


@dataclass(frozen=True)
class Point:
    """One way to search: its setting, 0 for none, recall at ten (0 to 1) and queries per second of one client."""

    setting: int
    recall: float
    per_second: float


@dataclass(frozen=True)
class Exam:
    """Queries, shape (n, 384), and the ids of the ten rows that are truly nearest to each, shape (n, 10)."""

    queries: Vectors
    truth: npt.NDArray[np.int64]

    @classmethod
    def among(cls, rows: Vectors, queries: Vectors, ids: npt.NDArray[np.int64] | None = None) -> Exam:
        """Compare each of `queries` with all `rows`, whose ids count from 1 unless they are given."""
        positions = np.empty((len(queries), NEAREST), dtype=np.int64)
        for number, query in enumerate(queries):
            similarity = rows @ query
            candidates = np.argpartition(-similarity, NEAREST)[:NEAREST]
            positions[number] = candidates[np.argsort(-similarity[candidates])]
        return cls(queries, positions + 1 if ids is None else ids[positions])

    def part(self, count: int) -> Exam:
        """Return the first `count` queries."""
        return Exam(self.queries[:count], self.truth[:count])

    def take(self, find: Callable[[Any], Found], setting: int = 0) -> Point:
        """Ask `find` for each query and mark what it found; the first five are asked once before the clock starts."""
        for query in self.queries[:5]:
            find(query)
        began = time.perf_counter()
        answers = [find(query) for query in self.queries]
        seconds = time.perf_counter() - began
        shares = [
            len({*answer} & {*truth}) / NEAREST for answer, truth in zip(answers, self.truth.tolist(), strict=True)
        ]
        return Point(setting, statistics.fmean(shares), len(self.queries) / seconds)


class BareSearch:
    """A search by psycopg alone, for ids, in binary, with a setting of one's own."""

    def __init__(self, url: URL, method: str, *, half: bool) -> None:
        self.connection = psycopg.connect(conninfo(url), autocommit=True)
        register_vector(self.connection)
        self.method = method
        order = HALF if half else FULL
        rows = "SELECT id FROM text_summary WHERE embedding IS NOT NULL"
        self.statement = f"{rows} ORDER BY {order} LIMIT {NEAREST}"

    def __call__(self, query: Any) -> Found:
        """Return the ids that are found."""
        cursor = self.connection.cursor(binary=True)
        return [row[0] for row in cursor.execute(self.statement, {"query": query})]

    def at(self, exam: Exam, setting: int) -> Point:
        """Take `exam` with this probes or ef_search."""
        self.connection.execute(f"SET {SETTINGS[self.method]} = {setting}")
        return exam.take(self, setting)

    def sweep(self, exam: Exam, settings: Sequence[int], enough: float = 0.995) -> list[Point]:
        """Take `exam` with each of `settings`, ascending, until the recall is `enough`."""
        points = []
        for setting in settings:
            points.append(self.at(exam, setting))
            if points[-1].recall >= enough:
                break
        return points

    def least(self, exam: Exam, recall: float, points: Sequence[Point]) -> Point | None:
        """Return the least setting that reaches `recall` on `exam`, looked for around where `points` reach it."""
        settings = [0, *(point.setting for point in points)]
        reached = next((number for number, point in enumerate(points, 1) if point.recall >= recall), None)
        if reached is None:
            return None
        low, high = settings[max(reached - 2, 0)], settings[min(reached + 1, len(points))]
        best = self.at(exam, high)
        while high - low > max(1, low * CLOSE):
            middle = self.at(exam, (high + low) // 2)
            if middle.recall >= recall:
                best, high = middle, middle.setting
            else:
                low = middle.setting
        return best if best.recall >= recall else None
