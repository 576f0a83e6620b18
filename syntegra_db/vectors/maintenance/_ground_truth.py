"""Queries to measure a vector index with, made of stored rows, and the rows that are truly nearest to them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from math import hypot, inf
from statistics import median
from typing import TYPE_CHECKING

from pgvector import Vector
from sqlalchemy import func, select, text

from syntegra_db.errors import RebuildFailed
from syntegra_db.models import TextSummary
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors._index import RECALL_DEPTHS
from syntegra_db.vectors._index_state import configure_scan
from syntegra_db.vectors._statements import (
    MAX_COSINE_DISTANCE,
    cosine_distance,
    exact_statement,
    index_statement,
    query_parameter,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from syntegra_db.vectors._index import VectorIndex

RECALL_DEPTH, FILTERED_RECALL_DEPTH = RECALL_DEPTHS
# Of each of the two other rows that go into a query; see `draw`.
MIX_WEIGHT = 0.4
# Rows are drawn out of so many times more, so that few of them come from one page.
OVERSAMPLING = 20
EXACT_SEARCHES = 5
# A scan that reads each row once compares it with several queries, for each of which 100 rows are known to be nearer
# than its bound. It takes a quarter of the time that a search of all rows for each query does (200,000 rows).
QUERIES_OF_A_SCAN = 25
LEAST_QUERIES_OF_A_SCAN = 5
# The queries are no CTE, which would keep parallel workers out.
EXACT_DISTANCES = text("""
    SELECT number, array_agg(distance ORDER BY distance)
    FROM (
      SELECT number, distance, row_number() OVER (PARTITION BY number ORDER BY distance) AS rank
      FROM (
        SELECT number, bound, embedding <=> vector AS distance
        FROM text_summary
        JOIN unnest(CAST(:own AS bigint[]), CAST(:vectors AS vector[]), CAST(:bounds AS float8[]))
          WITH ORDINALITY AS queries (own, vector, bound, number) ON id <> own
      ) AS compared
      WHERE distance <= bound
    ) AS ranked
    WHERE rank <= :depth
    GROUP BY number
""")
# What the planner may prefer to the index; its choice is the matter of `planning.setting_for`.
DISABLED_PLAN_NODES = ("enable_seqscan", "enable_sort")


@dataclass(frozen=True)
class SampleQuery:
    """A vector to search with, and the id of the stored row that it was made of, which does not count as found."""

    source_id: int
    vector: Vector


@dataclass(frozen=True)
class GroundTruth:
    """Queries, and for each the distances of the 100 nearest rows, in ascending order.

    Not their ids: of rows with the same text one is as near as another.
    """

    queries: Sequence[SampleQuery]
    distances: Sequence[list[float]]

    def head(self, count: int) -> GroundTruth:
        """Return the first `count` queries."""
        return GroundTruth(self.queries[:count], self.distances[:count])


def sample_queries(connection: Connection, count: int, rows: int) -> list[SampleQuery]:
    """Return at most `count` queries, made of as many of the about `rows` rows, at random.

    A query is the direction of a stored embedding plus 0.4 of those of two others, as of a text that speaks of several
    things. A stored embedding itself is found too easily: in an hnsw graph its node is linked with its nearest rows,
    and what is around the same sentence lies in the same list.

    The recall at ten that 500 such queries predicted, less that of 500 real sentences that had been held out, whose
    standard error is .006 at .93 and .001 at .995:

    | rows | index | .93 | .94 | .96 | .97 | .98 | .995 |
    | --- | --- | --- | --- | --- | --- | --- | --- |
    | 200,000 around 52,000 sentences | ivfflat | -.006 | -.001 | | +.002 | | |
    | | hnsw | +.003 (at .89) | | -.008 | | -.001 | |
    | 52,000 sentences | ivfflat | | -.016 | -.006 | | | |
    | | hnsw | | | -.002 (at .95) | | -.001 | -.001 |

    Stored embeddings themselves were up to .03 too high with ivfflat and .09 with hnsw; with noise of the length of the
    tenth distance, .01 and .04; in the middle between a row and a neighbour, .07 and .09.
    """
    percent = min(100, 100 * OVERSAMPLING * count / max(rows, 1))
    drawn: Sequence[tuple[int, list[float]]] = []
    for share in dict.fromkeys((percent, 100)):
        sampled = TextSummary.__table__.tablesample(func.system(share))
        embedding = sampled.c.embedding
        usable = select(sampled.c.id, embedding).where(embedding.is_not(None), func.vector_norm(embedding) > 0)
        drawn = connection.execute(usable.order_by(func.random()).limit(count)).all()
        if len(drawn) == count:
            break
    units = [_unit(vector) for _, vector in drawn]
    mixed = [
        Vector([one + MIX_WEIGHT * (two + three) for one, two, three in zip(*of_three, strict=True)])
        for of_three in zip(units, units[1:] + units[:1], units[2:] + units[:2], strict=True)
    ]
    return [SampleQuery(own, vector) for (own, _), vector in zip(drawn, mixed, strict=True)]


def compute_ground_truth(  # noqa: PLR0913  what it searches, with what, and for how long
    connection: Connection, index: VectorIndex, queries: list[SampleQuery], setting: int, *, fewest: int, seconds: float
) -> GroundTruth:
    """Return as many of `queries` as the time allows, and at least `fewest`, with how far their nearest rows are.

    `index`, at `setting`, finds 100 rows for each, which bound how far the truly nearest ones are.
    """
    began = time.monotonic()
    distances: list[list[float]] = []
    scan = LEAST_QUERIES_OF_A_SCAN
    while len(distances) < len(queries):
        distances += _exact_distances(connection, index, queries[len(distances) : len(distances) + scan], setting)
        took = time.monotonic() - began
        fitting = int((seconds - took) * len(distances) / took)
        if fitting < LEAST_QUERIES_OF_A_SCAN and len(distances) >= fewest:
            break
        scan = min(max(fitting, LEAST_QUERIES_OF_A_SCAN), QUERIES_OF_A_SCAN)
    return GroundTruth(queries[: len(distances)], distances)


def time_exact_search(connection: Connection, queries: list[SampleQuery], deadline: float = inf) -> float:
    """Return the median of a few searches for the ten nearest rows that compare all rows."""
    times: list[float] = []
    for query in queries[: EXACT_SEARCHES + 1]:
        if times and time.monotonic() > deadline:
            break
        began = time.perf_counter()
        connection.execute(exact_statement(()), {"query": query.vector, "limit": RECALL_DEPTH}).all()
        times.append(1000 * (time.perf_counter() - began))
    # The first one may have read the table from disk.
    return median(times[1:] or times)


def time_index_search(connection: Connection, index: VectorIndex, query: SampleQuery) -> float:
    """Return what a search for the ten nearest rows takes, to be called within `force_index_scan`."""
    began = time.perf_counter()
    connection.execute(index_statement((), is_half=index.is_half), {"query": query.vector, "limit": RECALL_DEPTH}).all()
    return 1000 * (time.perf_counter() - began)


def index_distances(connection: Connection, index: VectorIndex, query: SampleQuery) -> list[float]:
    """Return the distances of the 100 rows that the index finds, in its order; within `force_index_scan`."""
    distance = cosine_distance(query_parameter())
    statement = index_statement((), is_half=index.is_half).with_only_columns(TextSummary.id, distance)
    found = connection.execute(statement, {"query": query.vector, "limit": FILTERED_RECALL_DEPTH + 1})
    return [far for row, far in found if row != query.source_id][:FILTERED_RECALL_DEPTH]


@contextmanager
def force_index_scan(connection: Connection, index: VectorIndex, setting: int) -> Iterator[None]:
    """Let searches use `index` with `setting`, whatever the planner thinks of so few rows.

    Raises:
        RebuildFailed: it is not the index that stands there any more.
    """
    if configure_scan(connection, [index], {index.method: setting}) != {index.filenode}:
        raise RebuildFailed(
            f"Somebody else built or dropped {VECTOR_INDEX} while it was measured, so that what was measured means "
            "nothing. Run this again."
        )
    for name in DISABLED_PLAN_NODES:
        connection.execute(text(f"SET LOCAL {name} = off"))
    yield
    for name in DISABLED_PLAN_NODES:
        connection.execute(text(f"SET LOCAL {name} TO DEFAULT"))


def _exact_distances(
    connection: Connection, index: VectorIndex, queries: list[SampleQuery], setting: int
) -> list[list[float]]:
    with force_index_scan(connection, index, setting):
        found = [index_distances(connection, index, query) for query in queries]
    least = connection.execute(
        EXACT_DISTANCES,
        {
            "own": [query.source_id for query in queries],
            "vectors": [query.vector.to_text() for query in queries],
            # Where it finds fewer, they bound nothing.
            "bounds": [
                max(distances) if len(distances) == FILTERED_RECALL_DEPTH else MAX_COSINE_DISTANCE
                for distances in found
            ],
            "depth": FILTERED_RECALL_DEPTH,
        },
    )
    by_number = {number: distances for number, distances in least}  # noqa: C416  rows are no pairs to mypy
    return [by_number.get(number, []) for number in range(1, len(queries) + 1)]


def _unit(vector: list[float]) -> list[float]:
    length = hypot(*vector)
    return [number / length for number in vector]
