"""Compare a migration with plain Alembic on the same revisions, on an embedded server.

    python benchmarks/migrate.py [--rounds 9]

Measures the duration of whole processes (medians of interleaved rounds), the slowest insert of a writer while another
transaction locks a row of data_sources for 8 s, and the duration of `verify` within a process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from syntegra_db import embedded, migrations
from syntegra_db.catalog import verify
from syntegra_db.connections import conninfo, unpooled_engine
from syntegra_db.settings import parse_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL

ROOT = Path(__file__).parents[1]
ALEMBIC = str(Path(sys.executable).with_name("alembic"))
CONFIGURATIONS = {"syntegra_db": ROOT / "alembic.ini", "plain Alembic": ROOT / "benchmarks/plain_alembic/alembic.ini"}
BLOCKER_SECONDS = 8
SOURCE = "INSERT INTO data_sources (client_id, name, type) VALUES (1, 'till', 'simple_csv')"


def alembic(name: str, url: URL, *arguments: str) -> float:
    """Run `alembic` with the configuration `name`, and return the duration of the process in seconds."""
    command = [ALEMBIC, "-c", str(CONFIGURATIONS[name]), *arguments]
    environment = {**os.environ, "DATABASE_URL": url.render_as_string(hide_password=False)}
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)  # noqa: S603  a command of this repository
    return time.perf_counter() - started


@contextmanager
def database(server: URL) -> Iterator[URL]:
    """Yield the URL of an empty database with the extension vector."""
    with psycopg.connect(conninfo(server), autocommit=True) as administrator:
        administrator.execute("CREATE DATABASE benchmark")
        url = server.set(database="benchmark")
        with psycopg.connect(conninfo(url), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        yield url
        administrator.execute(sql.SQL("DROP DATABASE benchmark WITH (FORCE)"))


def worst_insert(name: str, url: URL) -> float:
    """Return the duration of a writer's slowest insert, in seconds, while 003 waits for a long transaction."""
    alembic(name, url, "upgrade", "002")
    with psycopg.connect(conninfo(url)) as blocker:
        blocker.execute(SOURCE)
        blocker.commit()
        blocker.execute("UPDATE data_sources SET status = 'processing'")
        waits: list[float] = []
        done = threading.Event()
        writer = threading.Thread(target=write, args=(url, waits, done))
        writer.start()
        timer = threading.Timer(BLOCKER_SECONDS, blocker.rollback)
        timer.start()
        alembic(name, url, "upgrade", "head")
        timer.join()
        done.set()
        writer.join()
    return max(waits)


def write(url: URL, waits: list[float], done: threading.Event) -> None:
    """Insert every 10 ms until `done` is set, and append the seconds of each insert to `waits`."""
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        while not done.wait(0.01):
            started = time.perf_counter()
            connection.execute(SOURCE)
            waits.append(time.perf_counter() - started)


def seconds_to_verify(url: URL) -> float:
    """Return the duration of one `verify` on an open connection, in seconds."""
    with unpooled_engine(url).connect() as connection:
        started = time.perf_counter()
        if verify(connection).findings:
            raise RuntimeError("The migrated database has drift.")
        return time.perf_counter() - started


def measure(server: URL, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds by measurement and configuration."""
    seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(rounds):
        for name in CONFIGURATIONS:
            with database(server) as url:
                seconds["upgrade head, from empty"][name].append(alembic(name, url, "upgrade", "head"))
                seconds["upgrade head, nothing to do"][name].append(alembic(name, url, "upgrade", "head"))
    for name in CONFIGURATIONS:
        with database(server) as url:
            seconds[f"worst insert behind an {BLOCKER_SECONDS} s transaction"][name].append(worst_insert(name, url))
    with database(server) as url:
        migrations.upgrade(url=url)
        seconds["verify, in a process"]["syntegra_db"] = [seconds_to_verify(url) for _ in range(rounds)]
    return seconds


def show(seconds: dict[str, dict[str, list[float]]]) -> None:
    """Print medians and their ratio."""
    table = Table("Seconds (median)", *CONFIGURATIONS, "Ratio")
    for measurement, by_name in seconds.items():
        medians = {name: statistics.median(values) for name, values in by_name.items()}
        package, plain = medians["syntegra_db"], medians.get("plain Alembic")
        table.add_row(
            measurement, f"{package:.3f}", f"{plain:.3f}" if plain else "", f"{package / plain:.2f}" if plain else ""
        )
    Console().print(table)


def main(rounds: int) -> None:
    """Measure on a temporary embedded server."""
    with tempfile.TemporaryDirectory(prefix="syntegra-db-") as folder:
        data = Path(folder) / "data"
        try:
            show(measure(parse_url(embedded.start_server(data)), rounds))
        finally:
            embedded.stop_server(data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of the processes and of verify")
    main(parser.parse_args().rounds)
