"""Compare copy_rows with other ways to load text_summary with all its indexes, on an embedded server.

    python benchmarks/load.py [--rows 20000] [--kpis 100000] [--rounds 5] [--memory-rows 10000 100000 1000000]

Rows have a text, a sentiment, keywords and an embedding: a NumPy array of 384 numbers. All rows are in memory before
the measurement, which includes the commit. Medians of interleaved rounds, each into the empty table. The other ways are

- binary COPY with psycopg: a loop over the same dictionaries, on a connection with pgvector's adapters;
- Core and the ORM: `session.execute(insert(table), rows)` on an engine of `syntegra_db.database`, the same with
  pgvector's SQLAlchemy type on a plain engine, and `session.add_all`.

Then it compares copy_rows of KPIs and of such texts without policies with the same under row-level security, for the
login of a batch job: in turn, on the same tables. At last it measures the peak memory of processes that copy rows from
a generator, without and with policies (Linux only).
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import psycopg
import sqlalchemy
from pgvector.psycopg import register_vector
from pgvector.sqlalchemy import VECTOR
from psycopg import sql
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from syntegra_db import embedded, migrations, tenancy
from syntegra_db.bulk import copy_rows
from syntegra_db.connections import conninfo, unpooled_engine
from syntegra_db.database import create_engine
from syntegra_db.models import EMBEDDING_DIMENSIONS, Base, KpiSummary, TextSummary
from syntegra_db.settings import parse_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

PLAIN_COPY = "binary COPY with psycopg"
COLUMNS = {
    "client_id": "int8",
    "text_field": "text",
    "sentiment": "varchar",
    "sentiment_score": "float8",
    "keywords": "jsonb",
    "embedding": "vector",
}
# Declared as in pgvector's documentation, without the validation of the models.
PGVECTOR_TABLE = sqlalchemy.table(
    "text_summary",
    *(sqlalchemy.column(name) for name in COLUMNS if name not in {"keywords", "embedding"}),
    sqlalchemy.column("keywords", JSONB),
    sqlalchemy.column("embedding", VECTOR(EMBEDDING_DIMENSIONS)),
)
GENERATOR_EMBEDDINGS = 1000
# The name and password of a role on a server that lives as long as the benchmark.
LOGIN = "benchmark_batch"


def make_rows(number: int) -> list[dict[str, Any]]:
    """Return the rows to load."""
    embeddings = np.random.default_rng(0).standard_normal((number, EMBEDDING_DIMENSIONS)).astype(np.float32)
    return [row(n, embeddings[n]) for n in range(number)]


def row(number: int, embedding: Any) -> dict[str, Any]:
    """Return a row with the columns of `COLUMNS`."""
    return {
        "client_id": number % 50,
        "text_field": f"El servicio fue bueno y el precio justo, dice el cliente número {number}.",
        "sentiment": ("positive", "neutral", "negative")[number % 3],
        "sentiment_score": number % 100 / 100,
        "keywords": ["servicio", "precio", f"k{number % 1000}"],
        "embedding": embedding,
    }


def plain_copy(connection: psycopg.Connection, rows: list[dict[str, Any]]) -> None:
    """Load `rows` with COPY, as in psycopg's documentation."""
    copy = sql.SQL("COPY text_summary ({}) FROM STDIN (FORMAT binary)").format(
        sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    )
    with connection.cursor() as cursor:
        with cursor.copy(copy) as copying:
            copying.set_types(list(COLUMNS.values()))
            for values in rows:
                copying.write_row(tuple(values.values()))
        connection.commit()


def in_session(engine: Engine, work: Callable[[Session], object]) -> Callable[[], None]:
    """Return a function that runs `work` in a session on `engine` and commits."""

    def load() -> None:
        with Session(engine) as session:
            work(session)
            session.commit()

    return load


def ways(
    rows: list[dict[str, Any]], engine: Engine, plain: Engine, connection: psycopg.Connection
) -> dict[str, Callable[[], None]]:
    """Return a function for each way to load the rows, by name."""
    tuples = [tuple(values.values()) for values in rows]
    columns: dict[str, Any] = {name: [values[name] for values in rows] for name in COLUMNS}
    columns = {name: values if name == "keywords" else np.array(values) for name, values in columns.items()}
    core, own_type = insert(cast("sqlalchemy.Table", TextSummary.__table__)), insert(PGVECTOR_TABLE)
    return {
        PLAIN_COPY: lambda: plain_copy(connection, rows),
        "copy_rows, dictionaries": in_session(engine, lambda session: copy_rows(session, TextSummary, rows)),
        "copy_rows, tuples": in_session(
            engine, lambda session: copy_rows(session, TextSummary, tuples, columns=list(COLUMNS))
        ),
        "copy_rows, NumPy columns": in_session(engine, lambda session: copy_rows(session, TextSummary, columns)),
        "Core insert": in_session(engine, lambda session: session.execute(core, rows)),
        "Core insert, pgvector's type": in_session(plain, lambda session: session.execute(own_type, rows)),
        "session.add_all": in_session(
            engine, lambda session: session.add_all([TextSummary(**values) for values in rows])
        ),
    }


def measure(url: URL, number: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round, by way to load."""
    engine, plain = create_engine(url), sqlalchemy.create_engine(url)
    with psycopg.connect(conninfo(url)) as connection, psycopg.connect(conninfo(url), autocommit=True) as administrator:
        register_vector(connection)
        connection.commit()
        loads = ways(make_rows(number), engine, plain, connection)
        names = list(loads)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        # The order rotates. The first round is a warm-up: statements are compiled and files are created.
        for turn in range(rounds + 1):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                administrator.execute("TRUNCATE text_summary")
                administrator.execute("CHECKPOINT")
                started = time.perf_counter()
                loads[name]()
                if turn:
                    seconds[name].append(time.perf_counter() - started)
                if administrator.execute("SELECT count(*) FROM text_summary").fetchone() != (number,):
                    raise RuntimeError(f"{name} did not load {number} rows.")
    engine.dispose()
    plain.dispose()
    return seconds


def show_speed(seconds: dict[str, list[float]], number: int) -> None:
    """Print rows per second, and the ratio to binary COPY with psycopg in the same rounds."""
    table = Table(f"{number:,} rows into text_summary", "Rows/s (median)", "Ratio to COPY")
    for name, values in seconds.items():
        ratio = statistics.median(copy / other for copy, other in zip(seconds[PLAIN_COPY], values, strict=True))
        table.add_row(name, f"{number / statistics.median(values):,.0f}", f"{ratio:.2f}")
    Console().print(table)


def make_kpis(number: int) -> list[dict[str, Any]]:
    """Return KPIs to load."""
    period = {"period_start": datetime(2026, 1, 1, tzinfo=UTC), "period_end": datetime(2026, 2, 1, tzinfo=UTC)}
    return [{"client_id": n % 50, "kpi_name": f"kpi {n % 1000}", "kpi_value": n / 7, **period} for n in range(number)]


def measure_policies(url: URL, texts: int, kpis: int, rounds: int) -> None:
    """Print the time of copy_rows under row-level security, and its ratio to that without."""
    owner = unpooled_engine(url)
    tenancy.enable(owner)
    engine = create_engine(url.set(username=LOGIN, password=LOGIN))
    table = Table("copy_rows, dictionaries", "Without policies, s", "With, s", "Ratio (median)")
    loads: dict[str, tuple[type[Base], list[dict[str, Any]]]] = {
        f"{kpis:,} KPIs": (KpiSummary, make_kpis(kpis)),
        f"{texts:,} texts": (TextSummary, make_rows(texts)),
    }
    with psycopg.connect(conninfo(url), autocommit=True) as administrator:
        administrator.execute(sql.SQL("CREATE ROLE {0} LOGIN PASSWORD {1}").format(sql.Identifier(LOGIN), LOGIN))
        administrator.execute(sql.SQL("GRANT syntegra_admin TO {}").format(sql.Identifier(LOGIN)))
        for name, (model, rows) in loads.items():
            load = in_session(engine, lambda session, model=model, rows=rows: copy_rows(session, model, rows))  # type: ignore[misc]
            target = sql.Identifier(model.__tablename__)
            seconds: dict[str, list[float]] = {"DISABLE": [], "ENABLE": []}
            for turn in range(rounds + 1):
                for command in seconds if turn % 2 else reversed(seconds):
                    administrator.execute(sql.SQL("TRUNCATE {}").format(target))
                    administrator.execute(
                        sql.SQL("ALTER TABLE {} {} ROW LEVEL SECURITY").format(target, sql.SQL(command))
                    )
                    administrator.execute("CHECKPOINT")
                    started = time.perf_counter()
                    load()
                    if turn:
                        seconds[command].append(time.perf_counter() - started)
            without, under = seconds.values()
            ratio = statistics.median(b / a for a, b in zip(without, under, strict=True))
            administrator.execute(sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(target))
            table.add_row(name, *(f"{statistics.median(values):.3f}" for values in seconds.values()), f"{ratio:.2f}")
    engine.dispose()
    Console().print(table)


def generate(number: int) -> Iterator[dict[str, Any]]:
    """Yield `number` rows."""
    embeddings = np.random.default_rng(0).standard_normal((GENERATOR_EMBEDDINGS, EMBEDDING_DIMENSIONS))
    embeddings = embeddings.astype(np.float32)
    for n in range(number):
        yield row(n, embeddings[n % GENERATOR_EMBEDDINGS])


def peak(url: URL, number: int) -> None:
    """Copy rows from a generator, and print the peak memory of this process in MiB."""
    with Session(create_engine(url)) as session:
        copy_rows(session, TextSummary, generate(number))
    # The value of getrusage includes the memory of the parent process at the start.
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    print(f"{int(kilobytes) / 1024:.1f}")


def show_memory(url: URL, numbers: list[int]) -> None:
    """Print the peak memory of a process for each number of rows."""
    table = Table("Rows from a generator", "Peak memory of the process, without policies", "With policies")
    for number in numbers:
        peaks = []
        for login in (url, url.set(username=LOGIN, password=LOGIN)):
            command = [sys.executable, __file__, "--peak", str(number), login.render_as_string(hide_password=False)]
            result = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  runs this file
            peaks.append(f"{result.stdout.strip()} MiB")
        table.add_row(f"{number:,}", *peaks)
    Console().print(table)


def main(number: int, kpis: int, rounds: int, memory_rows: list[int]) -> None:
    """Measure on a temporary embedded server."""
    with tempfile.TemporaryDirectory(prefix="syntegra-db-") as folder:
        data = Path(folder) / "data"
        try:
            url = parse_url(embedded.start_server(data))
            with psycopg.connect(conninfo(url), autocommit=True) as administrator:
                administrator.execute("CREATE EXTENSION vector")
            migrations.upgrade(url=url)
            show_speed(measure(url, number, rounds), number)
            measure_policies(url, number, kpis, rounds)
            show_memory(url, memory_rows)
        finally:
            embedded.stop_server(data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="rows per load")
    parser.add_argument("--kpis", type=int, default=100_000, help="KPIs per load with and without policies")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per way to load")
    parser.add_argument("--memory-rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--peak", nargs=2, metavar=("ROWS", "URL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        peak(parse_url(arguments.peak[1]), int(arguments.peak[0]))
    else:
        main(arguments.rows, arguments.kpis, arguments.rounds, arguments.memory_rows)
