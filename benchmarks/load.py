"""How fast rows get into text_summary, with all its indexes, by copy_rows and by other ways, on an embedded server.

    python benchmarks/load.py [--rows 20000] [--rounds 5] [--memory-rows 10000 100000 1000000]

Rows have a text, a sentiment, keywords and an embedding of 384 numbers, which is a NumPy array; all is in memory before
the clock starts, and committed before it stops. Medians of interleaved rounds, each into the empty table, beside

- binary COPY by hand: psycopg's own loop over the same dictionaries, on a connection that pgvector is registered on;
- Core and the ORM: `session.execute(insert(table), rows)` on an engine of `syntegra_db.database`, the same with
  pgvector's own SQLAlchemy type on a plain engine, and `session.add_all`.

Then the peak memory of processes that copy rows of a generator, which only Linux tells.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
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

from syntegra_db import embedded, migrations
from syntegra_db.bulk import copy_rows
from syntegra_db.connections import conninfo
from syntegra_db.database import create_engine
from syntegra_db.models import EMBEDDING_DIMENSIONS, TextSummary
from syntegra_db.settings import parse_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

BY_HAND = "binary COPY by hand"
COLUMNS = {
    "client_id": "int8",
    "text_field": "text",
    "sentiment": "varchar",
    "sentiment_score": "float8",
    "keywords": "jsonb",
    "embedding": "vector",
}
# As pgvector's documentation declares one; the check of embeddings is the models' own.
PGVECTORS_OWN = sqlalchemy.table(
    "text_summary",
    *(sqlalchemy.column(name) for name in COLUMNS if name not in {"keywords", "embedding"}),
    sqlalchemy.column("keywords", JSONB),
    sqlalchemy.column("embedding", VECTOR(EMBEDDING_DIMENSIONS)),
)
EMBEDDINGS_OF_GENERATOR = 1000


def make_rows(number: int) -> list[dict[str, Any]]:
    """Return the rows that every way loads."""
    embeddings = np.random.default_rng(0).standard_normal((number, EMBEDDING_DIMENSIONS)).astype(np.float32)
    return [row(n, embeddings[n]) for n in range(number)]


def row(number: int, embedding: Any) -> dict[str, Any]:
    """Return a row of the columns above."""
    return {
        "client_id": number % 50,
        "text_field": f"El servicio fue bueno y el precio justo, dice el cliente número {number}.",
        "sentiment": ("positive", "neutral", "negative")[number % 3],
        "sentiment_score": number % 100 / 100,
        "keywords": ["servicio", "precio", f"k{number % 1000}"],
        "embedding": embedding,
    }


def by_hand(connection: psycopg.Connection, rows: list[dict[str, Any]]) -> None:
    """Copy as psycopg's documentation does."""
    copy = sql.SQL("COPY text_summary ({}) FROM STDIN (FORMAT binary)").format(
        sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    )
    with connection.cursor() as cursor:
        with cursor.copy(copy) as copying:
            copying.set_types(list(COLUMNS.values()))
            for given in rows:
                copying.write_row(tuple(given.values()))
        connection.commit()


def in_session(engine: Engine, work: Callable[[Session], object]) -> Callable[[], None]:
    """Return what does `work` in a session on `engine` and commits."""

    def load() -> None:
        with Session(engine) as session:
            work(session)
            session.commit()

    return load


def ways(
    rows: list[dict[str, Any]], engine: Engine, plain: Engine, connection: psycopg.Connection
) -> dict[str, Callable[[], None]]:
    """Return the ways to load the rows, by name."""
    tuples = [tuple(given.values()) for given in rows]
    columns: dict[str, Any] = {name: [given[name] for given in rows] for name in COLUMNS}
    columns = {name: values if name == "keywords" else np.array(values) for name, values in columns.items()}
    core, own_type = insert(cast("sqlalchemy.Table", TextSummary.__table__)), insert(PGVECTORS_OWN)
    return {
        BY_HAND: lambda: by_hand(connection, rows),
        "copy_rows, dictionaries": in_session(engine, lambda session: copy_rows(session, TextSummary, rows)),
        "copy_rows, tuples": in_session(
            engine, lambda session: copy_rows(session, TextSummary, tuples, columns=list(COLUMNS))
        ),
        "copy_rows, NumPy columns": in_session(engine, lambda session: copy_rows(session, TextSummary, columns)),
        "Core insert": in_session(engine, lambda session: session.execute(core, rows)),
        "Core insert, pgvector's own type": in_session(plain, lambda session: session.execute(own_type, rows)),
        "session.add_all": in_session(
            engine, lambda session: session.add_all([TextSummary(**given) for given in rows])
        ),
    }


def measure(url: URL, number: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round by the way that rows were loaded."""
    engine, plain = create_engine(url), sqlalchemy.create_engine(url)
    with psycopg.connect(conninfo(url)) as connection, psycopg.connect(conninfo(url), autocommit=True) as administrator:
        register_vector(connection)
        connection.commit()
        loads = ways(make_rows(number), engine, plain, connection)
        names = list(loads)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        # Each comes first in turn. The first round is not counted: in it statements are compiled and files made.
        for turn in range(rounds + 1):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                administrator.execute("TRUNCATE text_summary")
                administrator.execute("CHECKPOINT")
                began = time.perf_counter()
                loads[name]()
                if turn:
                    seconds[name].append(time.perf_counter() - began)
                if administrator.execute("SELECT count(*) FROM text_summary").fetchone() != (number,):
                    raise RuntimeError(f"{name} did not load {number} rows.")
    engine.dispose()
    plain.dispose()
    return seconds


def show_speed(seconds: dict[str, list[float]], number: int) -> None:
    """Print rows a second, and the ratio to binary COPY by hand in the same rounds."""
    table = Table(f"{number:,} rows into text_summary", "Rows/s (median)", "Of COPY by hand")
    for name, values in seconds.items():
        ratio = statistics.median(hand / mine for hand, mine in zip(seconds[BY_HAND], values, strict=True))
        table.add_row(name, f"{number / statistics.median(values):,.0f}", f"{ratio:.2f}")
    Console().print(table)


def generate(number: int) -> Iterator[dict[str, Any]]:
    """Yield rows one at a time."""
    embeddings = np.random.default_rng(0).standard_normal((EMBEDDINGS_OF_GENERATOR, EMBEDDING_DIMENSIONS))
    embeddings = embeddings.astype(np.float32)
    for n in range(number):
        yield row(n, embeddings[n % EMBEDDINGS_OF_GENERATOR])


def peak(url: URL, number: int) -> None:
    """Copy rows of a generator, and print the most memory that this process has had, in MiB."""
    with Session(create_engine(url)) as session:
        copy_rows(session, TextSummary, generate(number))
    # In what getrusage gives, a process has what its parent had when it was started.
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    print(f"{int(kilobytes) / 1024:.1f}")


def show_memory(url: URL, numbers: list[int]) -> None:
    """Print the peak memory of a process for each number of rows."""
    table = Table("Rows of a generator", "Peak memory of the process")
    for number in numbers:
        command = [sys.executable, __file__, "--peak", str(number), url.render_as_string(hide_password=False)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  this file
        table.add_row(f"{number:,}", f"{done.stdout.strip()} MiB")
    Console().print(table)


def main(number: int, rounds: int, memory_rows: list[int]) -> None:
    """Measure on an embedded server that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="syntegra-db-") as folder:
        data = Path(folder) / "data"
        try:
            url = parse_url(embedded.start_server(data))
            with psycopg.connect(conninfo(url), autocommit=True) as administrator:
                administrator.execute("CREATE EXTENSION vector")
            migrations.upgrade(url=url)
            show_speed(measure(url, number, rounds), number)
            show_memory(url, memory_rows)
        finally:
            embedded.stop_server(data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="rows of each load")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each way")
    parser.add_argument("--memory-rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--peak", nargs=2, metavar=("ROWS", "URL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        peak(parse_url(arguments.peak[1]), int(arguments.peak[0]))
    else:
        main(arguments.rows, arguments.rounds, arguments.memory_rows)
