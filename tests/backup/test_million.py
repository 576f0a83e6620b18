"""A million rows, dropped by a rollback and restored from its backup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.revisions import HEAD
from support.sample_rows import load_rows, row_digests
from syntegra_db import migrations
from syntegra_db.backup import ExistingRows, restore, rollback
from syntegra_db.catalog import verify

if TYPE_CHECKING:
    import psycopg

    from support.servers import Database

pytestmark = pytest.mark.long

ROWS = 1_000_000
NEIGHBOURS = 10
QUERIES = 50
TOLERANCE = 0.02
INDEX = "idx_text_summary_embedding"
NEAREST = "SELECT id FROM text_summary ORDER BY embedding <=> %s LIMIT %s"


@pytest.mark.slow
def test_rollback_and_restore_keep_rows_sequences_and_recall(database: Database) -> None:
    load_rows(database, ROWS)
    before = row_digests(database)
    assert sum(row[0] for row in before.values()) == ROWS
    assert before["text_summary"][0] == ROWS // 10
    result = rollback("002", database.engine)
    restore(result.backup.path, database.engine, ExistingRows.KEEP)
    assert row_digests(database) == before
    with database.engine.connect() as connection:
        assert migrations.current_revision(connection) == HEAD
        assert verify(connection).findings == []
    with database.connect() as connection:
        # A generic plan may stop using the index.
        connection.prepare_threshold = None
        queries = [
            row[0]
            for row in connection.execute(
                "SELECT embedding FROM text_summary ORDER BY hashint8(id) LIMIT %s", (QUERIES,)
            )
        ]
        exact = search(connection, queries, "Seq Scan")
        restored = recall(search(connection, queries, INDEX), exact)
        connection.execute("SET maintenance_work_mem = '256MB'; REINDEX INDEX idx_text_summary_embedding")
        fresh = recall(search(connection, queries, INDEX), exact)
    assert fresh > 0.5
    assert abs(restored - fresh) <= TOLERANCE


def search(connection: psycopg.Connection[Any], queries: list[str], plan: str) -> list[set[int]]:
    """The nearest neighbours of each query, by a plan that shows `plan`."""
    by_index = "on" if plan == INDEX else "off"
    connection.execute(
        f"SET ivfflat.probes = 5; SET enable_indexscan = {by_index}; SET max_parallel_workers_per_gather = 0"
    )
    explained = connection.execute("EXPLAIN (FORMAT JSON) " + NEAREST, (queries[0], NEIGHBOURS)).fetchone()
    assert plan in str(explained)
    return [{row[0] for row in connection.execute(NEAREST, (query, NEIGHBOURS))} for query in queries]


def recall(found: list[set[int]], exact: list[set[int]]) -> float:
    return sum(len(one & other) for one, other in zip(found, exact, strict=True)) / (QUERIES * NEIGHBOURS)
