"""Measure what an index beyond the documented ones gives a service's query, on an embedded server.

    python benchmarks/service_indexes.py [--rows 300000] [--calls 50]

Each table has `--rows` rows of one year: a fifth of one client, the others of 300 clients. Each query runs `--calls`
times without and with its index, for the large client and for one of the others; the numbers are medians. Embeddings
are NULL.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

ROOT = Path(__file__).parents[1]
# Replace this directory with the tests' directory, which contains `support`.
sys.path[0] = str(ROOT / "tests")

from support.servers import embedded_server  # noqa: E402  needs the path above
from syntegra_db import migrations  # noqa: E402  needs the path above

if TYPE_CHECKING:
    import psycopg

LARGE, OTHER = 7, 1_042
LOAD: LiteralString = """
    CREATE TEMPORARY TABLE numbers AS
        SELECT number, CASE WHEN number % 5 = 0 THEN 7 ELSE 1001 + number % 300 END AS client,
               now() - number * interval '365 days' / {rows} AS time
        FROM generate_series(1, {rows}) AS number;
    INSERT INTO anomaly_log (client_id, kpi_name, value, expected_value, detected_at)
        SELECT client, 'kpi ' || number % 40, number, 1, time FROM numbers;
    INSERT INTO processed_data (client_id, source_type, data, created_at)
        SELECT client, 'restaurant', jsonb_build_object('file', number || '.csv'), time FROM numbers;
    INSERT INTO text_summary (client_id, text_field, created_at)
        SELECT client, repeat('El servicio fue bueno. ', 5) || number, time FROM numbers;
    INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end, calculated_at)
        SELECT client, 'kpi ' || number % 40, number, time - interval '1 day', time, time FROM numbers
"""


@dataclass(frozen=True)
class ServiceIndex:
    """An index, and the query of a service that it is for; `%(client)s` is a client."""

    table: LiteralString
    key: LiteralString
    purpose: str
    query: LiteralString

    @property
    def name(self) -> str:
        """Its name, as the other indexes are named."""
        columns = "".join(char if char.isalnum() or char == "_" else " " for char in self.key).split()
        return f"idx_{self.table}_{'_'.join(column for column in columns if column != 'USING')}"


INDEXES = (
    ServiceIndex(
        "anomaly_log",
        "(client_id, detected_at)",
        "the newest 50 anomalies of a client",
        "SELECT * FROM anomaly_log WHERE client_id = %(client)s ORDER BY detected_at DESC LIMIT 50",
    ),
    ServiceIndex(
        "processed_data",
        "(client_id, created_at)",
        "the newest 50 records of a client",
        "SELECT * FROM processed_data WHERE client_id = %(client)s ORDER BY created_at DESC LIMIT 50",
    ),
    ServiceIndex(
        "text_summary",
        "(client_id, created_at)",
        "the newest 50 texts of a client",
        "SELECT * FROM text_summary WHERE client_id = %(client)s ORDER BY created_at DESC LIMIT 50",
    ),
    ServiceIndex(
        "kpi_summary",
        "(calculated_at)",
        "the KPIs calculated in the last hour",
        "SELECT * FROM kpi_summary WHERE calculated_at >= now() - interval '1 hour'",
    ),
    ServiceIndex(
        "text_summary",
        "USING hash (text_field)",
        "whether a client's text is stored already",
        "SELECT EXISTS (SELECT FROM text_summary WHERE client_id = %(client)s "
        "AND text_field = repeat('El servicio fue bueno. ', 5) || 'new')",
    ),
)


def milliseconds(connection: psycopg.Connection[Any], index: ServiceIndex, client: int, calls: int) -> float:
    """Return the median duration of the query of `index` for `client`."""
    durations = []
    for _ in range(calls):
        started = time.perf_counter()
        connection.execute(index.query, {"client": client}).fetchall()
        durations.append(time.perf_counter() - started)
    return 1000 * statistics.median(durations)


def measure(connection: psycopg.Connection[Any], calls: int) -> Table:
    """Return the durations of each query without and with its index, and the index's size."""
    table = Table("Index", "For", "Client", "Without, ms", "With, ms", "Size", "Built in")
    for index in INDEXES:
        clients = (LARGE, OTHER) if "%(client)s" in index.query else (LARGE,)
        without = [milliseconds(connection, index, client, calls) for client in clients]
        started = time.perf_counter()
        name = sql.Identifier(index.name)
        key = sql.SQL(index.key if index.key.startswith("USING") else f"USING btree {index.key}")
        connection.execute(
            sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} {}").format(name, sql.Identifier(index.table), key)
        )
        seconds = time.perf_counter() - started
        (size,) = connection.execute("SELECT pg_relation_size(%s::regclass)", [index.name]).fetchone() or (0,)
        for client, before in zip(clients, without, strict=True):
            after = milliseconds(connection, index, client, calls)
            who = "all" if len(clients) == 1 else "20 % of the rows" if client == LARGE else "0.3 %"
            table.add_row(
                f"{index.table} {index.key}",
                index.purpose,
                who,
                f"{before:.2f}",
                f"{after:.2f}",
                decimal(size),
                f"{seconds:.1f} s",
            )
        # The next index of the same table is measured without this one.
        connection.execute(sql.SQL("DROP INDEX {}").format(name))
    return table


def main() -> None:
    """Load the rows, and print what each index gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--calls", type=int, default=50)
    arguments = parser.parse_args()
    with embedded_server(None) as server, server.database() as database, database.connect() as connection:
        migrations.upgrade(url=database.url)
        connection.execute(sql.SQL(LOAD).format(rows=sql.Literal(arguments.rows)))
        connection.execute("VACUUM ANALYZE")
        Console(width=160).print(measure(connection, arguments.calls))


if __name__ == "__main__":
    main()
