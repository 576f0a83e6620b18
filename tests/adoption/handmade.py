"""Databases as somebody made them by hand, and what of them must stay the same."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from support.servers import Database

FOLDER = Path(__file__).with_name("databases")
OURS = (
    "data_sources",
    "processed_data",
    "kpi_summary",
    "text_summary",
    "trend_signals",
    "clusters",
    "anomaly_log",
)
Rows = dict[tuple[str, str], dict[Any, Any]]


def make(database: Database, name: str) -> None:
    """Run `databases/NAME.sql`."""
    run(database, (FOLDER / f"{name}.sql").read_text(encoding="utf-8"))


def run(database: Database, *statements: str) -> None:
    with database.connect() as connection:
        for statement in statements:
            connection.execute(statement.encode())


def read_rows(database: Database, zone: ZoneInfo | None = None) -> Rows:
    """The values of every column of our tables by id, told alike whatever their type; naive moments are in `zone`."""
    found: Rows = {}
    with database.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        there = connection.execute("SELECT relname FROM pg_class WHERE relkind = 'r'").fetchall()
        for table in (name for (name,) in there if name in OURS):
            cursor = connection.execute(f"SELECT * FROM {table}".encode())
            names = [column.name for column in cursor.description or ()]
            for row in cursor.fetchall():
                values = dict(zip(names, row, strict=True))
                for name, value in values.items():
                    found.setdefault((table, name), {})[values["id"]] = _told(value, zone)
    return found


def _told(value: Any, zone: ZoneInfo | None) -> Any:
    if isinstance(value, float | Decimal | int):
        return Decimal(str(value)).normalize()
    if isinstance(value, datetime):
        # Of the hour that autumn repeats, PostgreSQL takes the second.
        return (value if value.tzinfo else value.replace(tzinfo=zone, fold=1)).astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=zone).astimezone(UTC)
    if isinstance(value, list | dict):
        return _told_text(json.dumps(value))
    if isinstance(value, str):
        return _told_text(value.rstrip())
    return value


def _told_text(value: str) -> str:
    """Text that holds JSON, or a vector, is told like JSON."""
    try:
        return json.dumps(json.loads(value, parse_int=float), sort_keys=True)
    except ValueError:
        return value
