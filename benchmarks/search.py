"""What each vector index finds, and how fast, beside comparing all rows: recall at ten against queries per second.

    python benchmarks/corpus.py --output FOLDER
    python -m benchmarks.search --corpus FOLDER [--rows 200000] [--plot recall.png]

The first command needs the environment that its docstring describes. The rows lie around real embeddings and the
queries are real ones that were held out (population.py). On an embedded server with 1 GB of shared_buffers, which is
gone afterwards, the index is first the one that the migration made on the empty table, then each of those that
`syntegra-db vectors rebuild` builds. For each: a full sweep of its setting by psycopg alone;
`syntegra_db.vectors.search` at a recall of .95, in rounds that alternate with one that compares all rows; what it adds
to its statement; and clients of known sizes, beside the planner left alone.
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

from benchmarks.population import KNOWN_CLIENTS, Corpus, clients, fill, held_out, read_corpus, spread
from benchmarks.recall import NEAREST, SETTINGS, BareSearch, Exam, Point
from benchmarks.report import Result, draw, show
from syntegra_db import embedded, migrations
from syntegra_db.connections import conninfo
from syntegra_db.database import create_engine, session_factory
from syntegra_db.settings import parse_url
from syntegra_db.vectors import nearest, search
from syntegra_db.vectors._statements import index_statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.orm import Session

SYNTEGRA_DB = str(Path(sys.executable).with_name("syntegra-db"))
RECALL = 0.95
FRESH = "as the migration made it"
REBUILDS = {
    "ivfflat": ("--method", "ivfflat", "--full"),
    "ivfflat, half": ("--method", "ivfflat", "--half"),
    "hnsw": ("--method", "hnsw", "--full"),
    "hnsw, half": ("--method", "hnsw", "--half"),
}
LADDERS = {
    "ivfflat": (1, 2, 4, 7, 12, 20, 32, 45, 64, 90, 134, 200, 300),
    "hnsw": (10, 14, 20, 28, 40, 57, 80, 113, 160, 226, 320, 452, 640, 1000),
}
SWEPT_QUERIES = 100
ROUND_QUERIES = 20
# Postmaster settings of the server that everything is measured on.
SERVER_SETTINGS = ("shared_buffers = '1GB'", "max_wal_size = '4GB'")


class Bench:
    """A filled database, its queries, and what is true of them."""

    def __init__(self, url: URL, corpus: Corpus, rows: int, rounds: int, *, fresh: bool) -> None:
        self.url = url
        self.rounds = rounds
        self.engine: Engine = create_engine(url)
        rest, queries = held_out(corpus)
        fill(url, rest, rows, index_first=fresh)
        vectors = spread(rest.embeddings, rows)
        self.exam = Exam.among(vectors, queries.embeddings)
        owners = clients(rows)
        self.of_client = {
            client: Exam.among(vectors[owners == client], queries.embeddings[:50], np.flatnonzero(owners == client) + 1)
            for client in KNOWN_CLIENTS
            if client in owners
        }

    def index(self, name: str, seconds: float) -> Result:
        """Measure the index that stands."""
        method, half, size = self._index_that_stands()
        bare = BareSearch(self.url, method, half=half)
        points = bare.sweep(self.exam.part(SWEPT_QUERIES), LADDERS[method])
        best = bare.least(self.exam, RECALL, points) if name != FRESH else None
        exact, searched, setting = self._rounds(method)
        found = bare.at(self.exam, setting) if setting else None
        added = self._added(bare, setting, half=half) if setting else None
        of_clients = {
            client: (self._of_client(exam, client), self._left_alone(exam, client))
            for client, exam in self.of_client.items()
        }
        return Result(name, seconds, size, points, best, found, exact, searched, added, of_clients)

    def _index_that_stands(self) -> tuple[str, bool, str]:
        statement = """
            SELECT amname, indexdef LIKE '%halfvec%', pg_size_pretty(pg_relation_size(pg_class.oid))
            FROM pg_class JOIN pg_am ON pg_am.oid = relam JOIN pg_indexes ON indexname = relname
            WHERE relname = 'idx_text_summary_embedding'"""
        with self.engine.connect() as connection:
            method, half, size = connection.exec_driver_sql(statement.replace("%", "%%")).one()
            return method, half, size

    def _rounds(self, method: str) -> tuple[float, Point, int]:
        """Return how many exact searches a second, what `search` gave, and which setting it used, if any."""
        exact: list[float] = []
        searched: list[Point] = []
        with session_factory(self.engine)() as session:
            for start in range(0, self.rounds * ROUND_QUERIES, ROUND_QUERIES):
                part = slice(start, start + ROUND_QUERIES)
                exam = Exam(self.exam.queries[part], self.exam.truth[part])
                exact.append(exam.take(partial(ids, session, recall=1)).per_second)
                searched.append(exam.take(partial(ids, session)))
            # The setting is the transaction's, so that one of its own shows the one that this search made.
            session.commit()
            ids(session, self.exam.queries[0])
            setting = session.scalar(text(f"SHOW {SETTINGS[method]}"))
            used = session.scalar(text("SHOW plan_cache_mode")) == "force_custom_plan"
            whole = self.exam.part(len(self.exam.queries) if used else SWEPT_QUERIES).take(partial(ids, session))
        speed = statistics.median(point.per_second for point in searched)
        return statistics.median(exact), Point(0, whole.recall, speed), int(str(setting)) if used else 0

    def _added(self, bare: BareSearch, setting: int, *, half: bool) -> float:
        """Return the milliseconds that `search` takes beyond its own statement by psycopg, medians of turns."""
        statement = str(index_statement((), is_half=half).compile(self.engine))
        bare.connection.execute(f"SET {SETTINGS[bare.method]} = {setting}")
        ours: list[float] = []
        theirs: list[float] = []
        with session_factory(self.engine)() as session:

            def search_once(query: Any) -> float:
                began = time.perf_counter()
                ids(session, query)
                return time.perf_counter() - began

            def bare_once(query: Any) -> float:
                began = time.perf_counter()
                cursor = bare.connection.cursor(binary=True)
                cursor.execute(statement, {"query": query, "limit": NEAREST}).fetchall()
                return time.perf_counter() - began

            for number, query in enumerate(self.exam.queries[:SWEPT_QUERIES]):
                # Whoever comes second finds the pages of this query in the processor's cache.
                if number % 2:
                    theirs.append(bare_once(query))
                    ours.append(search_once(query))
                else:
                    ours.append(search_once(query))
                    theirs.append(bare_once(query))
                # As a service does: what is in the session already would be made for nothing.
                session.expunge_all()
        return 1000 * (statistics.median(ours) - statistics.median(theirs))

    def _of_client(self, exam: Exam, client: int) -> Point:
        with session_factory(self.engine)() as session:
            return exam.take(partial(ids, session, client_id=client))

    def _left_alone(self, exam: Exam, client: int) -> Point:
        with session_factory(self.engine)() as session:
            return exam.take(lambda query: [row.id for row, _ in session.execute(nearest(query, client_id=client))])


def ids(session: Session, query: Any, **arguments: Any) -> Sequence[int]:
    """Return the ids that `search` finds: `NEAREST` of them, or the measurement is void."""
    found = [match.row.id for match in search(session, query, **arguments)]
    if len(found) != NEAREST:
        raise RuntimeError(f"{len(found)} rows came back instead of {NEAREST}")
    return found


def rebuild(url: URL, *options: str) -> float:
    """Run `syntegra-db vectors rebuild` and return its seconds."""
    environment = {**os.environ, "DATABASE_URL": url.render_as_string(hide_password=False)}
    began = time.perf_counter()
    subprocess.run([SYNTEGRA_DB, "vectors", "rebuild", *options], env=environment, check=True)  # noqa: S603  our own
    return time.perf_counter() - began


def main(corpus: Path, rows: int, rounds: int, plot: Path | None, kinds: Sequence[str], *, fresh: bool) -> None:  # noqa: PLR0913  an option each
    """Measure on an embedded server that is gone afterwards, print the tables and draw the plot."""
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
    parser.add_argument("--corpus", type=Path, required=True, help="the folder that corpus.py wrote to")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the search beside the exact one")
    parser.add_argument("--plot", type=Path, help="where the PNG goes")
    parser.add_argument("--kinds", nargs="*", choices=REBUILDS, default=list(REBUILDS), help="indexes to build")
    parser.add_argument("--no-fresh", action="store_true", help="leave out the index as the migration made it")
    given = parser.parse_args()
    main(given.corpus, given.rows, given.rounds, given.plot, given.kinds, fresh=not given.no_fresh)
