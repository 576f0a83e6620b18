"""Measure each kind of schema change on a table in use, compared with plain Alembic, on an embedded server.

    python benchmarks/evolution.py [--rows 1000000] [--kinds index CHECK]

A writer inserts a row every 10 ms, and another transaction, which has written a row, stays open for 8 s. The benchmark
reports the slowest insert and the duration of the whole process. Plain Alembic runs the operations that its
documentation has for the change, each revision in one transaction. The last line compares the backfill of
`op.backfill` with one UPDATE of all rows, without the writer and the other transaction.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
# Replace this directory with the tests' directory, which contains `support`.
sys.path[0] = str(ROOT / "tests")

from support.checkouts import Checkout  # noqa: E402  needs the path above
from support.evolutions import EVOLUTIONS, INSERT_KPI, Evolution  # noqa: E402  needs the path above
from support.processes import blocking, writing  # noqa: E402  needs the path above
from support.revisions import AFTER_HEAD  # noqa: E402  needs the path above
from support.servers import EmbeddedServer  # noqa: E402  needs the path above
from syntegra_db import embedded, migrations  # noqa: E402  needs the path above

if TYPE_CHECKING:
    from support.servers import Database

TEMPLATE = "benchmark_template"
BLOCKER_SECONDS = 8
LOAD: LiteralString = """
    INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end)
    SELECT n % 100, 'kpi_' || n % 50, n / 3.0, now() - n * interval '1 minute', now()
    FROM generate_series(1, {rows}) AS n
"""
BACKFILL = "NOT NULL column with values from others"
UPDATE: LiteralString = "UPDATE kpi_summary SET label = upper(kpi_name) WHERE label = ''"
UNDO = "raise NotImplementedError"
# What an author writes without the operations of this package.
PLAIN = {
    BACKFILL: """
        op.add_column("kpi_summary", sa.Column("label", sa.Text()))
        op.execute("UPDATE kpi_summary SET label = upper(kpi_name)")
        op.alter_column("kpi_summary", "label", nullable=False)
        """,
    "index": 'op.create_index("idx_kpi_summary_value", "kpi_summary", ["kpi_value"])',
    "unique constraint": 'op.create_unique_constraint("uq_kpi_summary_client", "kpi_summary", ["client_id", "id"])',
    "CHECK": """op.create_check_constraint("ck_kpi_summary_name", "kpi_summary", "kpi_name LIKE 'kpi%'")""",
    "foreign key": """
        op.add_column("kpi_summary", sa.Column("text_id", sa.BigInteger()))
        op.create_index("idx_kpi_summary_text_id", "kpi_summary", ["text_id"])
        op.create_foreign_key("fk_kpi_summary_text", "kpi_summary", "text_summary", ["text_id"], ["id"])
        """,
    "renamed column, expanded": 'op.alter_column("kpi_summary", "kpi_name", new_column_name="name")',
    "ENUM label": """op.execute("ALTER TYPE anomaly_severity ADD VALUE 'urgent' AFTER 'high'")""",
}


class Result:
    """The slowest insert and the duration, in seconds; None if the change failed."""

    def __init__(self, worst: float, duration: float, *, is_done: bool) -> None:
        self.worst, self.duration, self.is_done = worst, duration, is_done

    def __str__(self) -> str:
        return f"{1000 * self.worst:,.0f} ms / {self.duration:,.1f} s" + ("" if self.is_done else ", failed")


def measure(checkout: Checkout, database: Database, *command: str) -> Result:
    """Run `command` next to a writer and a long transaction."""
    with writing(database, INSERT_KPI) as seconds, blocking(database, BLOCKER_SECONDS, INSERT_KPI):
        time.sleep(0.5)
        started = time.perf_counter()
        result = checkout.run(*command, database=database)
        duration = time.perf_counter() - started
    return Result(max(seconds), duration, is_done=result.returncode == 0)


def measure_kind(folder: Path, server: EmbeddedServer, kind: str) -> tuple[Result, Result]:
    """Return the results of this package and of plain Alembic."""
    checkout = Checkout(folder / "package")
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS[kind])
    checkout.write_manifests(server)
    with server.database(TEMPLATE) as database:
        package = measure(checkout, database, "syntegra-db", "upgrade")
    plain_checkout = Checkout(folder / "plain")
    plain = Evolution(PLAIN.get(kind, EVOLUTIONS[kind].upgrade), UNDO)
    plain_checkout.add_revision(AFTER_HEAD, *plain)
    shutil.copytree(ROOT / "benchmarks/plain_alembic", plain_checkout.folder / "benchmarks/plain_alembic")
    configuration = str(plain_checkout.folder / "benchmarks/plain_alembic/alembic.ini")
    with server.database(TEMPLATE) as database:
        return package, measure(plain_checkout, database, "alembic", "-c", configuration, "upgrade", "head")


def compare_backfill(folder: Path, server: EmbeddedServer) -> tuple[float, float]:
    """Return the seconds of `op.backfill`, its process and other steps included, and of one UPDATE."""
    checkout = Checkout(folder / "backfill")
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS[BACKFILL])
    checkout.write_manifests(server)
    with server.database(TEMPLATE) as database:
        started = time.perf_counter()
        checkout.succeed("syntegra-db", "upgrade", database=database)
        batches = time.perf_counter() - started
    with server.database(TEMPLATE) as database:
        database.execute("ALTER TABLE kpi_summary ADD label text DEFAULT ''")
        started = time.perf_counter()
        database.execute(UPDATE)
        return batches, time.perf_counter() - started


def main(rows: int, kinds: list[str]) -> None:
    """Measure on a temporary embedded server."""
    table = Table("Worst insert / duration", "syntegra_db", "plain Alembic")
    with tempfile.TemporaryDirectory(prefix="syntegra-db-") as folder:
        data = Path(folder) / "data"
        try:
            server = EmbeddedServer(data, embedded.DEFAULT_VERSION)
            with server.database(name=TEMPLATE) as template:
                migrations.upgrade(url=template.url)
                template.execute(sql.SQL(LOAD).format(rows=sql.Literal(rows)))
                template.execute("VACUUM ANALYZE kpi_summary")
                for number, kind in enumerate(kinds):
                    place = Path(folder) / str(number)
                    place.mkdir()
                    table.add_row(kind, *map(str, measure_kind(place, server, kind)))
                batches, update = compare_backfill(Path(folder), server)
        finally:
            embedded.stop_server(data)
    Console().print(table)
    Console().print(f"Backfill {batches:.1f} s, one UPDATE {update:.1f} s: {update / batches:.2f} of its speed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of kpi_summary")
    parser.add_argument("--kinds", nargs="*", choices=EVOLUTIONS, default=list(EVOLUTIONS), help="kinds of change")
    arguments = parser.parse_args()
    main(arguments.rows, arguments.kinds)
