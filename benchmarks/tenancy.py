"""Compare lookups, searches and transactions under the policies with the same ones without them, for the same login.

    python -m benchmarks.tenancy [--rows 200000] [--rounds 7] [--calls 100]

A temporary embedded server with 1 GB of shared_buffers has `--rows` KPIs and as many texts with an embedding. One
client has half of them, one has 900, and 200 have the others. `syntegra-db tenancy enable` made the policies. Row-level
security is disabled and enabled in turn: the login, its connections, the tables and their pages are the same. Each work
runs `--calls` times in one transaction, in which the client is set; the first work is a transaction by itself. The
numbers are medians of the medians of each turn, and medians of the differences and ratios of each pair of turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
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
from sqlalchemy import bindparam, func, select, text
from sqlalchemy.orm import Session

from benchmarks.recall import NEAREST
from benchmarks.search import server
from syntegra_db import embedded, migrations
from syntegra_db.bulk import copy_rows
from syntegra_db.client_setting import SETTING
from syntegra_db.connections import conninfo, unpooled_engine
from syntegra_db.database import create_engine
from syntegra_db.models import EMBEDDING_DIMENSIONS, KpiSummary, TextSummary
from syntegra_db.tenancy import enable
from syntegra_db.vectors import search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

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
    "SET maintenance_work_mem = '512MB'",
    "CREATE INDEX idx_text_summary_embedding ON text_summary USING ivfflat (embedding vector_cosine_ops) {options}",
    "VACUUM ANALYZE",
)
PERIOD = {"period_start": datetime(2026, 1, 1, tzinfo=UTC), "period_end": datetime(2026, 2, 1, tzinfo=UTC)}
SET_CLIENT = select(func.set_config(SETTING, bindparam("client"), True))


def owners(rows: int) -> list[int]:
    """Return the client of each row, mixed."""
    others = rows - rows // 2 - SMALL_ROWS
    clients = [LARGE] * (rows // 2) + [SMALL] * SMALL_ROWS + [FIRST_OTHER + number % OTHERS for number in range(others)]
    return [int(client) for client in np.random.default_rng(SEED).permutation(clients)]


def texts(clients: list[int]) -> Iterator[dict[str, Any]]:
    """Yield a text of each client with an embedding near one of the topics."""
    random = np.random.default_rng(SEED)
    topics = random.standard_normal((TOPICS, EMBEDDING_DIMENSIONS)).astype(np.float32)
    for number, client in enumerate(clients):
        noise = random.standard_normal(EMBEDDING_DIMENSIONS).astype(np.float32)
        embedding = topics[number % TOPICS] + NOISE * noise
        yield {"client_id": client, "text_field": f"El servicio fue bueno, dice {number}.", "embedding": embedding}


def kpis(clients: list[int]) -> Iterator[dict[str, Any]]:
    """Yield a KPI of each client."""
    for number, client in enumerate(clients):
        yield {"client_id": client, "kpi_name": f"kpi {number}", "kpi_value": number, **PERIOD}


@dataclass
class Work:
    """What is measured; `run` gets a session whose client is `client`."""

    name: str
    client: int
    run: Callable[[Session], object]
    seconds: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    ratios: list[float] = field(default_factory=list)
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


def measure(work: Work, engine: Engine, calls: int, *, policies: bool) -> None:
    """Run `work` a number of times, after calls that fill the caches."""
    seconds: list[float] = []
    with Session(engine) as session:
        for number in range(-WARM_UP, calls):
            started = time.perf_counter()
            if policies and (work.is_transaction or number == -WARM_UP):
                set_client(session, work.client)
                started = started if work.is_transaction else time.perf_counter()
            work.run(session)
            if work.is_transaction:
                session.commit()
            if number >= 0:
                seconds.append(time.perf_counter() - started)
            session.expunge_all()
    work.seconds[policies].append(statistics.median(seconds))


def set_client(session: Session, client: int) -> None:
    """Set the client until the transaction ends."""
    session.execute(SET_CLIENT, {"client": str(client)})


def show(all_works: list[Work], rows: int) -> None:
    """Print the medians and ratios."""
    table = Table(f"{rows:,} rows", "Without policies, ms", "With, ms", "More, ms", "Ratio")
    for work in all_works:
        without, with_policies = (work.seconds[policies] for policies in (False, True))
        pairs = list(zip(without, with_policies, strict=True))
        more = statistics.median(b - a for a, b in pairs)
        ratio = statistics.median(b / a for a, b in pairs)
        medians = (statistics.median(values) for values in (without, with_policies))
        table.add_row(work.name, *(f"{1000 * value:.3f}" for value in (*medians, more)), f"{ratio:.2f}")
    Console(width=110).print(table)


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
            connection.execute(statement.format(options=f"WITH (lists = {max(10, rows // 1000)})"))
        enable(engine)
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
            engines = {policies: create_engine(login, pool_size=1, max_overflow=0) for policies in (False, True)}
            with psycopg.connect(conninfo(url), autocommit=True) as administrator:
                for turn in range(rounds):
                    for policies in (False, True) if turn % 2 else (True, False):
                        for table in ("kpi_summary", "text_summary"):
                            command = "ENABLE" if policies else "DISABLE"
                            administrator.execute(f"ALTER TABLE {table} {command} ROW LEVEL SECURITY")
                        for work in all_works:
                            measure(work, engines[policies], calls, policies=policies)
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
