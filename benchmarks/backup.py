"""Compare backup and restore with plain pg_dump and pg_restore of the same rows, on an embedded server.

    python benchmarks/backup.py [--rows 1000000] [--rounds 3] [--large-row-mb 200]

10 % of the rows are texts with embeddings; with `--large-row-mb`, one more text has that many megabytes. The durations
are of whole processes, medians of interleaved rounds. The benchmark compares

- `syntegra-db backup` with `pg_dump -Fc` (default compression level, 6) and with `pg_dump -Fc -Z1` (the level of the
  backup): data only, the same tables;
- `syntegra-db restore` with `pg_restore --data-only --single-transaction`, each into a database at revision 003 with
  empty tables. Both read the same file from the page cache. pg_restore is followed by REINDEX of the vector index and
  ANALYZE, which an operator needs for usable searches. The time of pg_restore alone is also reported; its index
  has a low recall.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
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
from syntegra_db.backup import create_backup
from syntegra_db.connections import conninfo
from syntegra_db.settings import parse_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import URL

ROOT = Path(__file__).parents[1]
# Replace this directory with the tests' directory, which contains `support`.
sys.path[0] = str(ROOT / "tests")

from support.sample_rows import TABLES, load_rows  # noqa: E402  needs the path above
from support.servers import Database  # noqa: E402  needs the path above

SYNTEGRA_DB = str(Path(sys.executable).with_name("syntegra-db"))
PROGRAMS = embedded.bin_directory()
# Lines of text, which COPY escapes.
LARGE_ROW = "INSERT INTO text_summary (client_id, text_field) SELECT 1, repeat(E'a\\\\b \\n', %s / 5) WHERE %s > 0"
READY_TO_SEARCH = "REINDEX INDEX idx_text_summary_embedding; ANALYZE " + ", ".join(TABLES)
TABLE_ARGUMENTS = [f"--table=public.{name}" for name in TABLES]
COMPARISONS = {
    "syntegra-db backup": ("pg_dump -Fc", "pg_dump -Fc -Z1"),
    "syntegra-db restore": ("pg_restore, REINDEX, ANALYZE", "pg_restore alone"),
}


def timed(command: Sequence[str], url: URL) -> float:
    """Run `command` with DATABASE_URL set to `url`, and return the duration of the process in seconds."""
    environment = {**os.environ, "DATABASE_URL": url.render_as_string(hide_password=False)}
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)  # noqa: S603  a command of this repository
    return time.perf_counter() - started


@contextmanager
def database(server: URL, template: str = "template0") -> Iterator[URL]:
    """Yield the URL of a temporary copy of the database `template`."""
    with psycopg.connect(conninfo(server), autocommit=True) as administrator:
        name = sql.Identifier(f"copy_of_{template}")
        administrator.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(template)))
        try:
            yield server.set(database=f"copy_of_{template}")
        finally:
            administrator.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def dump(url: URL, file: Path, *options: str) -> float:
    """Return the duration of a plain pg_dump of the same tables, in seconds."""
    file.unlink(missing_ok=True)
    target = ["--data-only", f"--file={file}", f"--dbname={conninfo(url)}"]
    return timed([str(PROGRAMS / "pg_dump"), "-Fc", *options, *TABLE_ARGUMENTS, *target], url)


def save(url: URL, file: Path) -> float:
    """Return the duration of `syntegra-db backup`, in seconds."""
    file.unlink(missing_ok=True)
    return timed([SYNTEGRA_DB, "backup", "--output", str(file)], url)


def pg_restore(url: URL, file: Path) -> tuple[float, float]:
    """Return the duration of a plain pg_restore in seconds: alone, and with REINDEX and ANALYZE."""
    command = [str(PROGRAMS / "pg_restore"), "--data-only", "--single-transaction", f"--dbname={conninfo(url)}"]
    alone = timed([*command, str(file)], url)
    return alone, alone + timed([str(PROGRAMS / "psql"), "--dbname", conninfo(url), "-c", READY_TO_SEARCH], url)


def measure(server: URL, folder: Path, rows: int, rounds: int, large_row_bytes: int) -> dict[str, list[float]]:
    """Return the seconds of each round, by command."""
    seconds: dict[str, list[float]] = defaultdict(list)
    with database(server) as full, psycopg.connect(conninfo(server), autocommit=True) as administrator:
        migrations.upgrade(url=full)
        load_rows(Database(full), rows)
        with Database(full).connect() as connection:
            connection.execute(LARGE_ROW, (large_row_bytes, large_row_bytes))
        file = create_backup(Database(full).engine, folder / "same.dump").path
        administrator.execute("CREATE DATABASE migrated")
        migrations.upgrade(url=server.set(database="migrated"))
        dumps = {
            "syntegra-db backup": lambda: save(full, folder / "package.dump"),
            "pg_dump -Fc": lambda: dump(full, folder / "plain.dump"),
            "pg_dump -Fc -Z1": lambda: dump(full, folder / "plain.dump", "-Z1"),
        }
        for number in range(rounds):
            # The order rotates; CHECKPOINT keeps the dirty pages of a restore out of the next measurement.
            for name in (*list(dumps)[number % 3 :], *list(dumps)[: number % 3]):
                administrator.execute("CHECKPOINT")
                seconds[name].append(dumps[name]())
            for use_package in (True, False) if number % 2 else (False, True):
                administrator.execute("CHECKPOINT")
                with database(server, "migrated") as url:
                    if use_package:
                        seconds["syntegra-db restore"].append(timed([SYNTEGRA_DB, "restore", str(file)], url))
                        continue
                    alone, ready = pg_restore(url, file)
                    seconds["pg_restore alone"].append(alone)
                    seconds["pg_restore, REINDEX, ANALYZE"].append(ready)
    return seconds


def show(seconds: dict[str, list[float]]) -> None:
    """Print medians and ratios."""
    table = Table("", "Seconds (median)", "Compared with", "Seconds (median)", "Ratio")
    for package, alternatives in COMPARISONS.items():
        package_seconds = statistics.median(seconds[package])
        for plain in alternatives:
            plain_seconds = statistics.median(seconds[plain])
            ratio = f"{package_seconds / plain_seconds:.2f}"
            table.add_row(package, f"{package_seconds:.1f}", plain, f"{plain_seconds:.1f}", ratio)
    Console().print(table)


def main(rows: int, rounds: int, large_row_bytes: int) -> None:
    """Measure on a temporary embedded server."""
    with tempfile.TemporaryDirectory(prefix="syntegra-db-") as folder:
        data = Path(folder) / "data"
        try:
            server = parse_url(embedded.start_server(data))
            show(measure(server, Path(folder), rows, rounds, large_row_bytes))
        finally:
            embedded.stop_server(data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of all tables")
    parser.add_argument("--rounds", type=int, default=3, help="rounds per command")
    parser.add_argument("--large-row-mb", type=int, default=0, help="megabytes of one more row; 0 for none")
    arguments = parser.parse_args()
    main(arguments.rows, arguments.rounds, arguments.large_row_mb * 1_000_000)
