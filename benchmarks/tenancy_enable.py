"""Measure the slowest inserts of services during `tenancy enable` and `disable`, on an embedded server.

    python benchmarks/tenancy_enable.py [--rows 200000] [--rounds 5]

Two writers insert a row every 10 ms, into kpi_summary and data_sources, and another transaction, which has written a
row of kpi_summary, stays open for 3 s from the beginning of each command.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
# Replace this directory with the tests' directory, which contains `support`.
sys.path[0] = str(ROOT / "tests")

from support.evolutions import INSERT_KPI  # noqa: E402  needs the path above
from support.processes import blocking, writing  # noqa: E402  needs the path above
from support.sample_rows import load_rows  # noqa: E402  needs the path above
from support.servers import EmbeddedServer  # noqa: E402  needs the path above
from syntegra_db import embedded, migrations  # noqa: E402  needs the path above
from syntegra_db.tenancy import disable, enable  # noqa: E402  needs the path above

if TYPE_CHECKING:
    from support.servers import Database

BLOCKER_SECONDS = 3
INSERT_SOURCE: LiteralString = "INSERT INTO data_sources (client_id, name, type) VALUES (1, 'till', 'simple_csv')"


def measure(database: Database, rounds: int) -> Table:
    """Return the slowest insert and the longest duration of each command, of `rounds`."""
    table = Table("Command", "Slowest insert", "Longest duration")
    slowest, durations = {"enable": 0.0, "disable": 0.0}, {"enable": 0.0, "disable": 0.0}
    for _ in range(rounds):
        for name, change in (("enable", enable), ("disable", disable)):
            with (
                writing(database, INSERT_KPI) as kpis,
                writing(database, INSERT_SOURCE) as sources,
                blocking(database, BLOCKER_SECONDS, INSERT_KPI),
            ):
                started = time.monotonic()
                change(database.engine)
                durations[name] = max(durations[name], time.monotonic() - started)
            slowest[name] = max([slowest[name], *kpis, *sources])
    for name, seconds in slowest.items():
        table.add_row(name, f"{seconds:.2f} s", f"{durations[name]:.1f} s")
    return table


def main() -> None:
    """Load the rows, and print what both commands cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        server = EmbeddedServer(data, embedded.DEFAULT_VERSION)
        try:
            with server.database() as database:
                migrations.upgrade(url=database.url)
                load_rows(database, arguments.rows)
                Console().print(measure(database, arguments.rounds))
        finally:
            embedded.stop_server(data, embedded.DEFAULT_VERSION)


if __name__ == "__main__":
    main()
