"""Measure each kind of schema change on a table in use, compared with plain Alembic, on an embedded server.

    python benchmarks/evolution.py [--rows 1000000] [--kinds index CHECK] [--kills 10]

A writer inserts a row every 10 ms, and another transaction, which has written a row, stays open for 8 s. The benchmark
reports the slowest insert and the duration of the whole process. Plain Alembic runs the operations that its
documentation has for the change, each revision in one transaction. The last line compares the backfill of
`op.backfill` with one UPDATE of all rows, without the writer and the other transaction.

A second table shows interruptions, without the writer and the other transaction: how often the change is complete if
the upgrade gets SIGKILL at a random moment and the same command then runs again, each time on another copy of the rows.
There, plain Alembic builds indexes CONCURRENTLY and adds the label of the ENUM in an autocommit block, as its
documentation says. `--kills 0` leaves it out.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString, NamedTuple

from psycopg import sql
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
# Replace this directory with the tests' directory, which contains `support`.
sys.path[0] = str(ROOT / "tests")

from support.checkouts import Checkout  # noqa: E402  needs the path above
from support.evolutions import EVOLUTIONS, INSERT_KPI, INVALID_INDEXES, UNFINISHED, Evolution  # noqa: E402  needs the path above
from support.processes import blocking, kill_at_random, writing  # noqa: E402  needs the path above
from support.revisions import AFTER_HEAD  # noqa: E402  needs the path above
from support.servers import EmbeddedServer  # noqa: E402  needs the path above
from syntegra_db import embedded, migrations  # noqa: E402  needs the path above

if TYPE_CHECKING:
    from support.servers import Database

TEMPLATE = "benchmark_template"
CONTENDERS = ("syntegra_db", "plain Alembic")
NONE = "no operation"
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
    "second embedding": """
        op.add_column("text_summary", sa.Column("embedding_768", pgvector.sqlalchemy.VECTOR(768)))
        op.execute("ALTER TABLE text_summary ALTER COLUMN embedding_768 SET STORAGE PLAIN")
        op.create_index(
            "idx_text_summary_embedding_768",
            "text_summary",
            ["embedding_768"],
            postgresql_using="hnsw",
            postgresql_ops={"embedding_768": "vector_cosine_ops"},
        )
        """,
}
# What an author writes instead so that writes go on during the change, as its documentation says.
PLAIN_ONLINE = {
    "index": """
        with op.get_context().autocommit_block():
            op.create_index("idx_kpi_summary_value", "kpi_summary", ["kpi_value"], postgresql_concurrently=True)
        """,
    "ENUM label": """
        with op.get_context().autocommit_block():
            op.execute("ALTER TYPE anomaly_severity ADD VALUE 'urgent' AFTER 'high'")
        """,
}
# Alembic has no operation for it.
NOT_IN_PLAIN = {"partitions by month"}
SELECT_REVISION: LiteralString = "SELECT version_num FROM alembic_version"


class Result:
    """The slowest insert and the duration, in seconds; None if the change failed."""

    def __init__(self, worst: float, duration: float, *, is_done: bool) -> None:
        self.worst, self.duration, self.is_done = worst, duration, is_done

    def __str__(self) -> str:
        return f"{1000 * self.worst:,.0f} ms / {self.duration:,.1f} s" + ("" if self.is_done else ", failed")


class Upgrade(NamedTuple):
    """A checkout whose newest revision is a kind of change, and the command that upgrades to it."""

    checkout: Checkout
    command: tuple[str, ...]


def package_upgrade(folder: Path, server: EmbeddedServer, kind: str) -> Upgrade:
    """Return the upgrade with this package, in the new `folder`."""
    checkout = Checkout(folder)
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS[kind])
    checkout.write_manifests(server)
    return Upgrade(checkout, ("syntegra-db", "upgrade"))


def plain_upgrade(folder: Path, kind: str, bodies: dict[str, str]) -> Upgrade:
    """Return the upgrade with plain Alembic, in the new `folder`; `bodies` differ from those of this package."""
    checkout = Checkout(folder)
    checkout.add_revision(AFTER_HEAD, *Evolution(bodies.get(kind, EVOLUTIONS[kind].upgrade), UNDO))
    copy = checkout.folder / "benchmarks/plain_alembic"
    shutil.copytree(ROOT / "benchmarks/plain_alembic", copy)
    return Upgrade(checkout, ("alembic", "-c", str(copy / "alembic.ini"), "upgrade", "head"))


def measure(upgrade: Upgrade, server: EmbeddedServer) -> Result:
    """Upgrade a copy of the rows next to a writer and a long transaction."""
    with (
        server.database(TEMPLATE) as database,
        writing(database, INSERT_KPI) as seconds,
        blocking(database, BLOCKER_SECONDS, INSERT_KPI),
    ):
        time.sleep(0.5)
        started = time.perf_counter()
        result = upgrade.checkout.run(*upgrade.command, database=database)
        duration = time.perf_counter() - started
    return Result(max(seconds), duration, is_done=result.returncode == 0)


def count_completed(upgrade: Upgrade, server: EmbeddedServer, kills: int) -> str:
    """Return how many of `kills` upgrades are complete after SIGKILL at a random moment and a second run."""
    with server.database(TEMPLATE) as database:
        started = time.perf_counter()
        upgrade.checkout.succeed(*upgrade.command, database=database)
        duration = time.perf_counter() - started
    completed = 0
    for _ in range(kills):
        with server.database(TEMPLATE) as database:
            with upgrade.checkout.running(*upgrade.command, database=database) as process:
                kill_at_random(process, 0, duration)
            again = upgrade.checkout.run(*upgrade.command, database=database)
            completed += again.returncode == 0 and is_complete(database)
    return str(completed)


def is_complete(database: Database) -> bool:
    """Return whether a database is at the revision, without an invalid index or an unfinished step."""
    return database.query(SELECT_REVISION) == [(AFTER_HEAD,)] and not (
        database.query(INVALID_INDEXES) or database.query(UNFINISHED)
    )


def measure_kind(folder: Path, server: EmbeddedServer, kind: str, kills: int) -> tuple[list[str], list[str]]:
    """Return the results of this package and of plain Alembic: of both measurements, the second one if `kills`."""
    package = package_upgrade(folder / "package", server, kind)
    plain = plain_upgrade(folder / "plain", kind, PLAIN)
    online = plain_upgrade(folder / "online", kind, PLAIN | PLAIN_ONLINE)
    has_plain = kind not in NOT_IN_PLAIN
    speeds = [str(measure(package, server)), str(measure(plain, server)) if has_plain else NONE]
    if not kills:
        return speeds, []
    return speeds, [
        count_completed(package, server, kills),
        count_completed(online, server, kills) if has_plain else NONE,
    ]


def compare_backfill(folder: Path, server: EmbeddedServer) -> tuple[float, float]:
    """Return the seconds of `op.backfill`, its process and other steps included, and of one UPDATE."""
    checkout, command = package_upgrade(folder / "backfill", server, BACKFILL)
    with server.database(TEMPLATE) as database:
        started = time.perf_counter()
        checkout.succeed(*command, database=database)
        batches = time.perf_counter() - started
    with server.database(TEMPLATE) as database:
        database.execute("ALTER TABLE kpi_summary ADD label text DEFAULT ''")
        started = time.perf_counter()
        database.execute(UPDATE)
        return batches, time.perf_counter() - started


def main(rows: int, kinds: list[str], kills: int) -> None:
    """Measure on a temporary embedded server."""
    speeds = Table("Worst insert / duration", *CONTENDERS)
    interruptions = Table(f"Complete after SIGKILL, of {kills}", *CONTENDERS)
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
                    speed, completed = measure_kind(place, server, kind, kills)
                    speeds.add_row(kind, *speed)
                    interruptions.add_row(kind, *completed)
                batches, update = compare_backfill(Path(folder), server)
        finally:
            embedded.stop_server(data)
    Console().print(speeds)
    if kills:
        Console().print(interruptions)
    Console().print(f"Backfill {batches:.1f} s, one UPDATE {update:.1f} s: {update / batches:.2f} of its speed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of kpi_summary")
    parser.add_argument("--kinds", nargs="*", choices=EVOLUTIONS, default=list(EVOLUTIONS), help="kinds of change")
    parser.add_argument("--kills", type=int, default=10, help="interrupted upgrades of each kind")
    arguments = parser.parse_args()
    main(arguments.rows, arguments.kinds, arguments.kills)
