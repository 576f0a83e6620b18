"""Sample queries made of stored rows, and the exact nearest neighbours of each."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from math import hypot, inf
from statistics import median
from typing import TYPE_CHECKING, Any

from pgvector import Vector
from sqlalchemy import Double, func, select, text
from sqlalchemy.sql.functions import Function

from syntegra_db.errors import RebuildFailed
from syntegra_db.search_path import extension_schema, table_name
from syntegra_db.sql import qualify, qualify_operator, quote
from syntegra_db.vectors._index import RECALL_DEPTHS
from syntegra_db.vectors._index_state import configure_scan
from syntegra_db.vectors._statements import (
    MAX_COSINE_DISTANCE,
    cosine_distance,
    exact_statement,
    index_statement,
    query_parameter,
    row_id_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, Connection, Select

    from syntegra_db.models.embeddings import EmbeddingColumn
    from syntegra_db.vectors._index import VectorIndex

RECALL_DEPTH, FILTERED_RECALL_DEPTH = RECALL_DEPTHS
# The weight of each of the two other rows in a query; see `sample_queries`.
MIX_WEIGHT = 0.4
# Rows are drawn from this many times as many rows, so few of them come from one page.
OVERSAMPLING = 20
MAX_EXACT_SEARCHES = 6
# One scan of the table serves several queries. For each of them, 100 rows at most as far as its bound are known. That
# takes 25 % of the time of an exact search per query (200,000 rows).
MAX_QUERIES_PER_SCAN = 25
MIN_QUERIES_PER_SCAN = 5
# The queries are not a CTE, which would prevent parallel workers.
EXACT_DISTANCES = """
    SELECT number, array_agg(distance ORDER BY distance)
    FROM (
      SELECT number, distance, row_number() OVER (PARTITION BY number ORDER BY distance) AS rank
      FROM (
        SELECT number, bound, {column} {operator} query AS distance
        FROM {table}
        JOIN unnest(CAST(:excluded_ids AS bigint[]), CAST(:vectors AS {vector}[]), CAST(:bounds AS float8[]))
          WITH ORDINALITY AS queries (excluded_id, query, bound, number) ON id <> excluded_id
      ) AS candidates
      WHERE distance <= bound
    ) AS ranked
    WHERE rank <= :depth
    GROUP BY number
"""
DISABLED_PLAN_NODES = ("enable_seqscan", "enable_sort")


@dataclass(frozen=True)
class SampleQuery:
    """A query vector, and the id of the stored row that it was made of, which is excluded from its results."""

    source_id: int
    vector: Vector


@dataclass(frozen=True)
class GroundTruth:
    """Queries, and for each the distances of its 100 nearest rows in ascending order.

    It holds no ids, because rows with the same text have the same distance.
    """

    queries: Sequence[SampleQuery]
    distances: Sequence[list[float]]

    def head(self, count: int) -> GroundTruth:
        """Return the first `count` queries."""
        return GroundTruth(self.queries[:count], self.distances[:count])


def sample_queries(connection: Connection, embedding: EmbeddingColumn, count: int, rows: int) -> list[SampleQuery]:
    """Return at most `count` random queries; `rows` is the estimated number of rows.

    A query is the direction of a stored embedding plus 0.4 times those of two others, like a text about several topics.
    A stored embedding alone is found too easily: in an hnsw graph its node is linked to its nearest rows, and in an
    ivfflat index its neighbours are in the same list. The measurements are in
    docs/adr/0009.
    """
    percent = min(100, 100 * OVERSAMPLING * count / max(rows, 1))
    drawn: Sequence[tuple[int, list[float]]] = []
    for share in dict.fromkeys((percent, 100)):
        sampled = embedding.model.__table__.tablesample(func.system(share))
        vectors = sampled.c[embedding.name]
        usable = select(sampled.c.id, vectors).where(vectors.is_not(None), vector_norm(connection, vectors) > 0)
        drawn = connection.execute(usable.order_by(func.random()).limit(count)).all()
        if len(drawn) == count:
            break
    units = [_unit(vector) for _, vector in drawn]
    mixed = [
        Vector([one + MIX_WEIGHT * (two + three) for one, two, three in zip(*vectors, strict=True)])
        for vectors in zip(units, units[1:] + units[:1], units[2:] + units[:2], strict=True)
    ]
    return [SampleQuery(source_id, vector) for (source_id, _), vector in zip(drawn, mixed, strict=True)]


def vector_norm(connection: Connection, embedding: ColumnElement[Any]) -> ColumnElement[float]:
    """Return the Euclidean norm of an embedding."""
    schema = extension_schema(connection)
    return Function("vector_norm", embedding, packagenames=(schema,) if schema else None, type_=Double())


def compute_ground_truth(  # noqa: PLR0913  an index scan, and how many queries in how much time
    connection: Connection,
    index: VectorIndex,
    queries: list[SampleQuery],
    setting: int,
    *,
    min_queries: int,
    seconds: float,
) -> GroundTruth:
    """Return the ground truth of as many of `queries` as `seconds` allow, and at least `min_queries`.

    A search of `index` with `setting` finds 100 rows per query, which bound the distances of the exact nearest rows.
    """
    started = time.monotonic()
    distances: list[list[float]] = []
    batch = MIN_QUERIES_PER_SCAN
    while len(distances) < len(queries):
        distances += _exact_distances(connection, index, queries[len(distances) : len(distances) + batch], setting)
        elapsed = time.monotonic() - started
        affordable = int((seconds - elapsed) * len(distances) / elapsed)
        if affordable < MIN_QUERIES_PER_SCAN and len(distances) >= min_queries:
            break
        batch = min(max(affordable, MIN_QUERIES_PER_SCAN), MAX_QUERIES_PER_SCAN)
    return GroundTruth(queries[: len(distances)], distances)


def time_exact_search(
    connection: Connection, embedding: EmbeddingColumn, queries: list[SampleQuery], deadline: float = inf
) -> float:
    """Return the median milliseconds of a few exact searches for the ten nearest rows."""
    times: list[float] = []
    for query in queries[:MAX_EXACT_SEARCHES]:
        if times and time.monotonic() > deadline:
            break
        times.append(_time_search(connection, exact_statement(embedding, (), extension_schema(connection)), query))
    # The first one may have read the table from disk.
    return median(times[1:] or times)


def time_index_search(connection: Connection, index: VectorIndex, query: SampleQuery) -> float:
    """Return the milliseconds of a search for the ten nearest rows; call it inside `force_index_scan`."""
    return _time_search(
        connection, index_statement(index.embedding, (), index.extension_schema, is_half=index.is_half), query
    )


def index_distances(connection: Connection, index: VectorIndex, query: SampleQuery) -> list[float]:
    """Return the distances of the 100 rows that the index finds, in its order; call it inside `force_index_scan`."""
    distance = cosine_distance(index.embedding, query_parameter(index.embedding), index.extension_schema)
    statement = index_statement(index.embedding, (), index.extension_schema, is_half=index.is_half).with_only_columns(
        row_id_of(index.embedding), distance
    )
    rows = connection.execute(statement, {"query": query.vector, "limit": FILTERED_RECALL_DEPTH + 1})
    return [distance for row_id, distance in rows if row_id != query.source_id][:FILTERED_RECALL_DEPTH]


@contextmanager
def force_index_scan(connection: Connection, index: VectorIndex, setting: int) -> Iterator[None]:
    """Force index scans on `index` with `setting` inside the block.

    Raises:
        RebuildFailed: another session replaced the index.
    """
    if configure_scan(connection, [index], {index.method: setting}) != {index.filenode}:
        raise RebuildFailed(
            f"Another session built or dropped {index.name} during the measurement, so the measurement is not valid. "
            "Run this again."
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
        approximate = [index_distances(connection, index, query) for query in queries]
    names = {
        "table": table_name(connection, index.embedding.table),
        "column": quote(index.embedding.name),
        "vector": qualify(index.extension_schema, "vector"),
        "operator": qualify_operator(index.extension_schema, "<=>"),
    }
    escaped = {key: name.replace(":", r"\:") for key, name in names.items()}
    rows = connection.execute(
        text(EXACT_DISTANCES.format(**escaped)),
        {
            "excluded_ids": [query.source_id for query in queries],
            "vectors": [query.vector.to_text() for query in queries],
            # Fewer than 100 rows are no bound.
            "bounds": [
                max(distances) if len(distances) == FILTERED_RECALL_DEPTH else MAX_COSINE_DISTANCE
                for distances in approximate
            ],
            "depth": FILTERED_RECALL_DEPTH,
        },
    )
    by_number = {number: distances for number, distances in rows}  # noqa: C416  mypy does not take rows for pairs
    return [by_number.get(number, []) for number in range(1, len(queries) + 1)]


def _time_search(connection: Connection, statement: Select[Any, float], query: SampleQuery) -> float:
    started = time.perf_counter()
    connection.execute(statement, {"query": query.vector, "limit": RECALL_DEPTH}).all()
    return 1000 * (time.perf_counter() - started)


def _unit(vector: list[float]) -> list[float]:
    length = hypot(*vector)
    return [number / length for number in vector]
