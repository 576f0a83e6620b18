"""What a backup and a restore cost beside bare pg_dump and pg_restore of the same rows, on an embedded server.

    python benchmarks/backup.py [--rows 1000000] [--rounds 3]

A tenth of the rows are texts with embeddings. Whole processes, medians of interleaved rounds. Compared are

- `syntegra-db backup` with `pg_dump -Fc`, whose compression level 6 is its default, and with `pg_dump -Fc -Z1`, which
  is the level that the backup uses: data only, the same tables;
- `syntegra-db restore` into a database at revision 003 whose tables are empty, with
  `pg_restore --data-only --single-transaction` into another such one. Both read the same file, which is in the page
  cache, and both end with rows that can be searched: after pg_restore, the vector index is built again (REINDEX) and
  the tables are analysed, as its operator must do to get there. The time of pg_restore without that stands beside it;
  it leaves an index that finds little.
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
# The tests' support modules, in place of this directory.
sys.path[0] = str(ROOT / "tests")

from support.sample_rows import TABLES, load_rows  # noqa: E402  the tests' rows
from support.servers import Database  # noqa: E402  likewise

SYNTEGRA_DB = str(Path(sys.executable).with_name("syntegra-db"))
PROGRAMS = embedded.bin_directory()
READY_TO_SEARCH = "REINDEX INDEX idx_text_summary_embedding; ANALYZE " + ", ".join(TABLES)
TABLE_ARGUMENTS = [f"--table=public.{name}" for name in TABLES]
COMPARISONS = {
    "syntegra-db backup": ("pg_dump -Fc", "pg_dump -Fc -Z1"),
    "syntegra-db restore": ("pg_restore, REINDEX, ANALYZE", "pg_restore alone"),
}


def timed(command: Sequence[str], url: URL) -> float:
    """Run `command` with DATABASE_URL set to `url`, and return the seconds that the process took."""
    environment = {**os.environ, "DATABASE_URL": url.render_as_string(hide_password=False)}
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)  # noqa: S603  of this repository
    return time.perf_counter() - began


@contextmanager
def database(server: URL, template: str = "template0") -> Iterator[URL]:
    """The URL of a database that is a copy of `template`, and gone afterwards."""
    with psycopg.connect(conninfo(server), autocommit=True) as administrator:
        name = sql.Identifier(f"copy_of_{template}")
        administrator.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(template)))
        try:
            yield server.set(database=f"copy_of_{template}")
        finally:
            administrator.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def dump(url: URL, file: Path, *options: str) -> float:
    """Return the seconds of a bare pg_dump of the same tables."""
    file.unlink(missing_ok=True)
    target = ["--data-only", f"--file={file}", f"--dbname={conninfo(url)}"]
    return timed([str(PROGRAMS / "pg_dump"), "-Fc", *options, *TABLE_ARGUMENTS, *target], url)


def save(url: URL, file: Path) -> float:
    """Return the seconds of `syntegra-db backup`."""
    file.unlink(missing_ok=True)
    return timed([SYNTEGRA_DB, "backup", "--output", str(file)], url)


def pg_restore(url: URL, file: Path) -> tuple[float, float]:
    """Return the seconds of a bare pg_restore, alone and with what makes the rows ready to be searched."""
    command = [str(PROGRAMS / "pg_restore"), "--data-only", "--single-transaction", f"--dbname={conninfo(url)}"]
    alone = timed([*command, str(file)], url)
    return alone, alone + timed([str(PROGRAMS / "psql"), "--dbname", conninfo(url), "-c", READY_TO_SEARCH], url)


def measure(server: URL, folder: Path, rows: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round by what was measured."""
    seconds: dict[str, list[float]] = defaultdict(list)
    with database(server) as full, psycopg.connect(conninfo(server), autocommit=True) as administrator:
        migrations.upgrade(url=full)
        load_rows(Database(full), rows)
        file = create_backup(full, folder / "same.dump").path
        administrator.execute("CREATE DATABASE migrated")
        migrations.upgrade(url=server.set(database="migrated"))
        dumps = {
            "syntegra-db backup": lambda: save(full, folder / "ours.dump"),
            "pg_dump -Fc": lambda: dump(full, folder / "bare.dump"),
            "pg_dump -Fc -Z1": lambda: dump(full, folder / "bare.dump", "-Z1"),
        }
        for number in range(rounds):
            # Each comes first in turn, and none pays for writing what a restore has left in memory.
            for name in (*list(dumps)[number % 3 :], *list(dumps)[: number % 3]):
                administrator.execute("CHECKPOINT")
                seconds[name].append(dumps[name]())
            for ours in (True, False) if number % 2 else (False, True):
                administrator.execute("CHECKPOINT")
                with database(server, "migrated") as url:
                    if ours:
                        seconds["syntegra-db restore"].append(timed([SYNTEGRA_DB, "restore", str(file)], url))
                        continue
                    alone, ready = pg_restore(url, file)
                    seconds["pg_restore alone"].append(alone)
                    seconds["pg_restore, REINDEX, ANALYZE"].append(ready)
    return seconds


def show(seconds: dict[str, list[float]]) -> None:
    """Print medians and ratios."""
    table = Table("", "Seconds (median)", "beside", "Seconds (median)", "Ratio")
    for ours, others in COMPARISONS.items():
        mine = statistics.median(seconds[ours])
        for other in others:
            theirs = statistics.median(seconds[other])
            table.add_row(ours, f"{mine:.1f}", other, f"{theirs:.1f}", f"{mine / theirs:.2f}")
    Console().print(table)


def main(rows: int, rounds: int) -> None:
    """Measure on an embedded server that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="syntegra-db-") as folder:
        data = Path(folder) / "data"
        try:
            show(measure(parse_url(embedded.start_server(data)), Path(folder), rows, rounds))
        finally:
            embedded.stop_server(data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of all tables")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each process")
    arguments = parser.parse_args()
    main(arguments.rows, arguments.rounds)
