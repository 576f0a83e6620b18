"""Compare the vector indexes with an exact scan: recall at ten and queries per second.

    python benchmarks/corpus.py --output FOLDER
    python -m benchmarks.search --corpus FOLDER [--rows 200000] [--plot recall.png]

The first command needs the environment that its docstring describes. The rows are generated around real embeddings; the
queries are held-out real embeddings (dataset.py). The benchmark starts a temporary embedded server with 1 GB of
shared_buffers. It measures the index that the migration created on the empty table, then each index that
`syntegra-db vectors rebuild` builds. For each index it measures: a sweep of the search setting with psycopg only;
`syntegra_db.vectors.search` at a recall of 0.95, in rounds that alternate with exact scans; the overhead of `search`
compared with its statement; and searches of clients with known sizes, compared with the planner's default plan.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from sqlalchemy import text

from benchmarks.dataset import KNOWN_CLIENTS, Corpus, clients, held_out, load_table, read_corpus, spread
from benchmarks.recall import NEAREST, SETTINGS, BareSearch, Point, QuerySet
from benchmarks.report import Result, draw, show
from syntegra_db import embedded, migrations
from syntegra_db.connections import conninfo
from syntegra_db.database import create_engine, session_factory
from syntegra_db.settings import parse_url
from syntegra_db.vectors import nearest, search
from syntegra_db.vectors._statements import index_statement, text_embedding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.orm import Session

SYNTEGRA_DB = str(Path(sys.executable).with_name("syntegra-db"))
RECALL = 0.95
FRESH = "as created by the migration"
REBUILDS = {
    "ivfflat": ("--method", "ivfflat", "--full"),
    "ivfflat, half": ("--method", "ivfflat", "--half"),
    "hnsw": ("--method", "hnsw", "--full"),
    "hnsw, half": ("--method", "hnsw", "--half"),
}
SWEEP_SETTINGS = {
    "ivfflat": (1, 2, 4, 7, 12, 20, 32, 45, 64, 90, 134, 200, 300),
    "hnsw": (10, 14, 20, 28, 40, 57, 80, 113, 160, 226, 320, 452, 640, 1000),
}
SWEEP_QUERIES = 100
ROUND_QUERIES = 20
# Postmaster settings of the server that everything is measured on.
SERVER_SETTINGS = ("shared_buffers = '1GB'", "max_wal_size = '4GB'")


class Bench:
    """A loaded database, and the queries with their ground truth."""

    def __init__(self, url: URL, corpus: Corpus, rows: int, rounds: int, *, fresh: bool) -> None:
        self.url = url
        self.rounds = rounds
        self.engine: Engine = create_engine(url)
        rest, queries = held_out(corpus)
        load_table(url, rest, rows, index_first=fresh)
        vectors = spread(rest.embeddings, rows)
        self.queries = QuerySet.with_ground_truth(vectors, queries.embeddings)
        owners = clients(rows)
        self.client_queries = {
            client: QuerySet.with_ground_truth(
                vectors[owners == client], queries.embeddings[:50], np.flatnonzero(owners == client) + 1
            )
            for client in KNOWN_CLIENTS
            if client in owners
        }

    def index(self, name: str, seconds: float) -> Result:
        """Measure the installed index."""
        method, half, size = self._installed_index()
        bare = BareSearch(self.url, method, half=half)
        points = bare.sweep(self.queries.head(SWEEP_QUERIES), SWEEP_SETTINGS[method])
        best = bare.smallest_sufficient(self.queries, RECALL, points) if name != FRESH else None
        exact, searched, setting = self._rounds(method)
        found = bare.at(self.queries, setting) if setting else None
        overhead = self._overhead(bare, setting, half=half) if setting else None
        by_client = {
            client: (self._search_client(queries, client), self._default_plan(queries, client))
            for client, queries in self.client_queries.items()
        }
        return Result(name, seconds, size, points, best, found, exact, searched, overhead, by_client)

    def _installed_index(self) -> tuple[str, bool, str]:
        statement = """
            SELECT amname, indexdef LIKE '%halfvec%', pg_size_pretty(pg_relation_size(pg_class.oid))
            FROM pg_class JOIN pg_am ON pg_am.oid = relam JOIN pg_indexes ON indexname = relname
            WHERE relname = 'idx_text_summary_embedding'"""
        with self.engine.connect() as connection:
            method, half, size = connection.exec_driver_sql(statement.replace("%", "%%")).one()
            return method, half, size

    def _rounds(self, method: str) -> tuple[float, Point, int]:
        """Return exact searches per second, the result of `search`, and its setting (0 if it used no index)."""
        exact: list[float] = []
        searched: list[Point] = []
        with session_factory(self.engine)() as session:
            for start in range(0, self.rounds * ROUND_QUERIES, ROUND_QUERIES):
                part = slice(start, start + ROUND_QUERIES)
                queries = QuerySet(self.queries.vectors[part], self.queries.ground_truth[part])
                exact.append(queries.evaluate(partial(ids, session, recall=1)).per_second)
                searched.append(queries.evaluate(partial(ids, session)))
            # The setting is local to the transaction, so a new transaction shows the setting of one search.
            session.commit()
            ids(session, self.queries.vectors[0])
            setting = session.scalar(text(f"SHOW {SETTINGS[method]}"))
            used = session.scalar(text("SHOW plan_cache_mode")) == "force_custom_plan"
            total = self.queries.head(len(self.queries.vectors) if used else SWEEP_QUERIES).evaluate(
                partial(ids, session)
            )
        speed = statistics.median(point.per_second for point in searched)
        return statistics.median(exact), Point(0, total.recall, speed), int(str(setting)) if used else 0

    def _overhead(self, bare: BareSearch, setting: int, *, half: bool) -> float:
        """Return the overhead of `search` compared with its statement in psycopg, in milliseconds (medians)."""
        statement = str(index_statement(text_embedding(), (), is_half=half).compile(self.engine))
        bare.connection.execute(f"SET {SETTINGS[bare.method]} = {setting}")
        search_seconds: list[float] = []
        bare_seconds: list[float] = []
        with session_factory(self.engine)() as session:

            def search_once(query: Any) -> float:
                started = time.perf_counter()
                ids(session, query)
                return time.perf_counter() - started

            def bare_once(query: Any) -> float:
                started = time.perf_counter()
                cursor = bare.connection.cursor(binary=True)
                cursor.execute(statement, {"query": query, "limit": NEAREST}).fetchall()
                return time.perf_counter() - started

            for number, query in enumerate(self.queries.vectors[:SWEEP_QUERIES]):
                # The second search of a query finds its pages in the processor's cache, so the order alternates.
                if number % 2:
                    bare_seconds.append(bare_once(query))
                    search_seconds.append(search_once(query))
                else:
                    search_seconds.append(search_once(query))
                    bare_seconds.append(bare_once(query))
                # Otherwise the session would return the same objects instead of creating them.
                session.expunge_all()
        return 1000 * (statistics.median(search_seconds) - statistics.median(bare_seconds))

    def _search_client(self, queries: QuerySet, client: int) -> Point:
        with session_factory(self.engine)() as session:
            return queries.evaluate(partial(ids, session, client_id=client))

    def _default_plan(self, queries: QuerySet, client: int) -> Point:
        with session_factory(self.engine)() as session:
            return queries.evaluate(
                lambda query: [row.id for row, _ in session.execute(nearest(query, client_id=client))]
            )


def ids(session: Session, query: Any, **arguments: Any) -> Sequence[int]:
    """Return the ids that `search` finds; raise unless there are `NEAREST`."""
    found = [match.row.id for match in search(session, query, **arguments)]
    if len(found) != NEAREST:
        raise RuntimeError(f"search returned {len(found)} rows instead of {NEAREST}")
    return found


def rebuild(url: URL, *options: str) -> float:
    """Run `syntegra-db vectors rebuild` and return its duration in seconds."""
    environment = {**os.environ, "DATABASE_URL": url.render_as_string(hide_password=False)}
    started = time.perf_counter()
    subprocess.run([SYNTEGRA_DB, "vectors", "rebuild", *options], env=environment, check=True)  # noqa: S603  a command of this package
    return time.perf_counter() - started


def main(corpus: Path, rows: int, rounds: int, plot: Path | None, kinds: Sequence[str], *, fresh: bool) -> None:  # noqa: PLR0913  one parameter per option
    """Measure on a temporary embedded server, print the tables and draw the plot."""
    with tempfile.TemporaryDirectory(prefix="syntegra-db-") as folder:
        data = Path(folder) / "data"
        try:
            url = server(data)
            migrations.upgrade(url=url)
            bench = Bench(url, read_corpus(corpus), rows, rounds, fresh=fresh)
            results = [bench.index(FRESH, 0)] if fresh else []
            results += [bench.index(name, rebuild(url, *REBUILDS[name])) for name in kinds]
            bench.engine.dispose()
        finally:
            embedded.stop_server(data)
    show(results, rows)
    if plot is not None:
        draw(results, rows, plot)


def server(data: Path) -> URL:
    """Start an embedded server with `SERVER_SETTINGS` and return its URL."""
    url = parse_url(embedded.start_server(data))
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        for setting in SERVER_SETTINGS:
            connection.execute(f"ALTER SYSTEM SET {setting}")
    embedded.stop_server(data)
    return parse_url(embedded.start_server(data))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="directory written by corpus.py")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of searches and exact scans")
    parser.add_argument("--plot", type=Path, help="path of the PNG file")
    parser.add_argument("--kinds", nargs="*", choices=REBUILDS, default=list(REBUILDS), help="indexes to build")
    parser.add_argument("--no-fresh", action="store_true", help="do not measure the index of the migration")
    arguments = parser.parse_args()
    main(
        arguments.corpus,
        arguments.rows,
        arguments.rounds,
        arguments.plot,
        arguments.kinds,
        fresh=not arguments.no_fresh,
    )
