"""Compare lookups, searches and transactions under the policies with the same ones without them, for the same login.

    python -m benchmarks.tenancy [--rows 200000] [--rounds 7] [--calls 100]

A temporary embedded server with 1 GB of shared_buffers has `--rows` KPIs and as many texts with an embedding. One
client has half of them, one has 900, and 200 have the others. `syntegra-db tenancy enable` made the policies. Row-level
security is disabled and enabled in turn: the login, the tables and their pages are the same. Each work
runs `--calls` times in one transaction, in which the client is set; the first work is a transaction by itself. The
numbers are medians of the medians of each turn, and medians of the differences and ratios of each pair of turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from benchmarks.recall import NEAREST
from benchmarks.search import server
from syntegra_db import embedded, migrations, tenancy
from syntegra_db.bulk import copy_rows
from syntegra_db.client_setting import SETTING
from syntegra_db.connections import conninfo, unpooled_engine
from syntegra_db.database import create_engine, session_factory
from syntegra_db.models import EMBEDDING_DIMENSIONS, KpiSummary, TextSummary
from syntegra_db.vectors import search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

# A plain session, and one whose transactions set the client and whose statements get the condition on it.
WITHOUT, POLICIES, CLIENT = MODES = ("no policies", "policies", "ClientSession")
SEED = 20_260_101
LARGE, SMALL, SMALL_ROWS = 7, 20, 900
OTHERS, FIRST_OTHER = 200, 1000
TOPICS = 2_000
NOISE = 0.4
WARM_UP = 10
PASSWORD = "password"  # noqa: S105  of a server that lives as long as the benchmark
LOGIN = (
    f"CREATE ROLE benchmark_service LOGIN PASSWORD '{PASSWORD}'",
    "GRANT syntegra_service TO benchmark_service",
)
INDEX = (
    "SET maintenance_work_mem = '1GB'",
    "CREATE INDEX idx_text_summary_embedding ON text_summary USING hnsw (embedding vector_cosine_ops) WITH (m = 8)",
    "VACUUM ANALYZE",
)
PERIOD = {"period_start": datetime(2026, 1, 1, tzinfo=UTC), "period_end": datetime(2026, 2, 1, tzinfo=UTC)}


def owners(rows: int) -> list[int]:
    """Return the client of each row, mixed."""
    others = rows - rows // 2 - SMALL_ROWS
    clients = [LARGE] * (rows // 2) + [SMALL] * SMALL_ROWS + [FIRST_OTHER + number % OTHERS for number in range(others)]
    return [int(client) for client in np.random.default_rng(SEED).permutation(clients)]


def texts(clients: list[int]) -> Iterator[dict[str, Any]]:
    """Yield a text of each client with an embedding near one of the topics."""
    random = np.random.default_rng(SEED)
    topics = random.standard_normal((TOPICS, EMBEDDING_DIMENSIONS)).astype(np.float32)
    for number, owner in enumerate(clients):
        noise = random.standard_normal(EMBEDDING_DIMENSIONS).astype(np.float32)
        embedding = topics[number % TOPICS] + NOISE * noise
        yield {"client_id": owner, "text_field": f"El servicio fue bueno, dice {number}.", "embedding": embedding}


def kpis(clients: list[int]) -> Iterator[dict[str, Any]]:
    """Yield a KPI of each client."""
    for number, owner in enumerate(clients):
        yield {"client_id": owner, "kpi_name": f"kpi {number}", "kpi_value": number, **PERIOD}


@dataclass
class Work:
    """What is measured; `run` gets a session whose client is `client`."""

    name: str
    client: int
    run: Callable[[Session], object]
    seconds: dict[str, list[float]] = field(default_factory=lambda: {mode: [] for mode in MODES})
    is_transaction: bool = False


def works(seed: int, ids: dict[int, list[int]]) -> list[Work]:
    """Return the works; `ids` are those of KPIs of a client."""
    numbers = cycle(ids[LARGE])
    random = np.random.default_rng(seed)
    queries = cycle(random.standard_normal((200, EMBEDDING_DIMENSIONS)).astype(np.float32))

    def look_up(session: Session, **filters: Any) -> object:
        return session.scalar(select(KpiSummary.kpi_value).filter_by(id=next(numbers), **filters))

    def average(session: Session) -> object:
        return session.scalar(select(func.avg(KpiSummary.kpi_value)).where(KpiSummary.client_id == FIRST_OTHER))

    return [
        Work("transaction with one lookup", LARGE, partial(look_up, client_id=LARGE), is_transaction=True),
        Work("lookup, WHERE client_id", LARGE, partial(look_up, client_id=LARGE)),
        Work("lookup, no WHERE", LARGE, look_up),
        Work("session.get", LARGE, lambda session: session.get(KpiSummary, next(numbers))),
        Work("average of a client's KPIs", FIRST_OTHER, average),
        Work("search, client_id of 900 rows", SMALL, lambda session: find(session, next(queries), client_id=SMALL)),
        Work("search, client_id of half", LARGE, lambda session: find(session, next(queries), client_id=LARGE)),
        Work("search, no filter, half", LARGE, lambda session: find(session, next(queries))),
    ]


def find(session: Session, query: Any, **filters: Any) -> None:
    """Search; raise unless ten texts are found."""
    if len(search(session, query, **filters)) != NEAREST:
        raise RuntimeError("A search did not find ten texts.")
    session.expunge_all()


@contextmanager
def plain_block(session: Session, client_id: int) -> Iterator[None]:
    """Set the client with a statement."""
    session.execute(select(func.set_config(SETTING, str(client_id), True)))
    yield


def measure(work: Work, engine: Engine, calls: int, mode: str) -> None:
    """Run `work` a number of times, after calls that fill the caches."""
    seconds: list[float] = []
    factory: Callable[[Engine], Callable[[], Session]] = tenancy.session_factory if mode == CLIENT else session_factory

    def block() -> AbstractContextManager[None]:
        if mode == WITHOUT:
            return nullcontext()
        return (plain_block if mode == POLICIES else tenancy.client)(session, work.client)

    with factory(engine)() as session, nullcontext() if work.is_transaction else block():
        for _ in range(WARM_UP + calls):
            started = time.perf_counter()
            with block() if work.is_transaction else nullcontext():
                work.run(session)
                if work.is_transaction:
                    session.commit()
            seconds.append(time.perf_counter() - started)
            session.expunge_all()
    work.seconds[mode].append(statistics.median(seconds[WARM_UP:]))


def show(all_works: list[Work], rows: int) -> None:
    """Print the medians, and differences and ratios to those without policies."""
    names = (f"{mode}, {unit}" for mode in (POLICIES, CLIENT) for unit in ("ms", "more ms", "ratio"))
    table = Table(f"{rows:,} rows", f"{WITHOUT}, ms", *names)
    for work in all_works:
        base = work.seconds[WITHOUT]
        cells = [f"{1000 * statistics.median(base):.3f}"]
        for mode in (POLICIES, CLIENT):
            pairs = list(zip(base, work.seconds[mode], strict=True))
            cells += [
                f"{1000 * statistics.median(work.seconds[mode]):.3f}",
                f"{1000 * statistics.median(b - a for a, b in pairs):.3f}",
                f"{statistics.median(b / a for a, b in pairs):.2f}",
            ]
        table.add_row(work.name, *cells)
    Console(width=140).print(table)


def load(url: URL, rows: int) -> dict[int, list[int]]:
    """Load both tables, enable the policies, and return ids of KPIs by client."""
    clients = owners(rows)
    engine = unpooled_engine(url)
    with Session(engine) as session:
        session.execute(text("DROP INDEX idx_text_summary_embedding"))
        copy_rows(session, KpiSummary, kpis(clients))
        copy_rows(session, TextSummary, texts(clients))
        session.commit()
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        for statement in INDEX:
            connection.execute(statement)
        tenancy.enable(engine)
        for statement in LOGIN:
            connection.execute(statement)
        found = connection.execute("SELECT id FROM kpi_summary WHERE client_id = %s", [LARGE]).fetchall()
    ids = [row[0] for row in found]
    return {LARGE: list(np.random.default_rng(SEED).permutation(ids)[:5_000].tolist())}


def main(rows: int, rounds: int, calls: int) -> None:
    """Measure on a temporary embedded server."""
    with tempfile.TemporaryDirectory(prefix="syntegra-db-") as folder:
        data = Path(folder) / "data"
        try:
            url = server(data)
            migrations.upgrade(url=url)
            all_works = works(SEED, load(url, rows))
            login = url.set(username="benchmark_service", password=PASSWORD)
            # Each engine knows the tables in one state only.
            engines = {mode: create_engine(login, pool_size=1, max_overflow=0) for mode in MODES}
            with psycopg.connect(conninfo(url), autocommit=True) as administrator:
                for turn in range(rounds):
                    for mode in MODES if turn % 2 else reversed(MODES):
                        for table in ("kpi_summary", "text_summary"):
                            command = "DISABLE" if mode == WITHOUT else "ENABLE"
                            administrator.execute(f"ALTER TABLE {table} {command} ROW LEVEL SECURITY")
                        for work in all_works:
                            measure(work, engines[mode], calls, mode)
            for engine in engines.values():
                engine.dispose()
        finally:
            embedded.stop_server(data)
    show(all_works, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="rows of each table")
    parser.add_argument("--rounds", type=int, default=7, help="turns without and with policies")
    parser.add_argument("--calls", type=int, default=100, help="calls per turn")
    arguments = parser.parse_args()
    main(arguments.rows, arguments.rounds, arguments.calls)
