"""Databases whose tables were created outside migrations, and their rows in a form that an adoption must not change."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from support.servers import Database

DIRECTORY = Path(__file__).parents[1] / "adoption" / "databases"
TABLES = (
    "data_sources",
    "processed_data",
    "kpi_summary",
    "text_summary",
    "trend_signals",
    "clusters",
    "anomaly_log",
)
Rows = dict[tuple[str, str], dict[Any, Any]]


def create_legacy_database(database: Database, name: str) -> None:
    """Create the tables and rows of `tests/adoption/databases/NAME.sql`."""
    execute(database, (DIRECTORY / f"{name}.sql").read_text(encoding="utf-8"))


def execute(database: Database, *statements: str) -> None:
    with database.connect() as connection:
        for statement in statements:
            connection.execute(statement.encode())


def read_rows(database: Database, zone: ZoneInfo | None = None) -> Rows:
    """Return the values by table, column and id, normalized across types; naive timestamps are in `zone`."""
    found: Rows = {}
    with database.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        installed = connection.execute("SELECT relname FROM pg_class WHERE relkind = 'r'").fetchall()
        for table in (name for (name,) in installed if name in TABLES):
            cursor = connection.execute(f"SELECT * FROM {table}".encode())
            names = [column.name for column in cursor.description or ()]
            for row in cursor.fetchall():
                values = dict(zip(names, row, strict=True))
                for name, value in values.items():
                    found.setdefault((table, name), {})[values["id"]] = _normalize(value, zone)
    return found


def _normalize(value: Any, zone: ZoneInfo | None) -> Any:
    if isinstance(value, float | Decimal | int):
        return Decimal(str(value)).normalize()
    if isinstance(value, datetime):
        # PostgreSQL reads an ambiguous time, when clocks go back, as standard time.
        return (value if value.tzinfo else value.replace(tzinfo=zone, fold=1)).astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=zone).astimezone(UTC)
    if isinstance(value, list | dict):
        return _normalize_text(json.dumps(value))
    if isinstance(value, str):
        return _normalize_text(value.rstrip())
    return value


def _normalize_text(value: str) -> str:
    """Return text that contains JSON, or a vector, as normalized JSON."""
    try:
        return json.dumps(json.loads(value, parse_int=float), sort_keys=True)
    except ValueError:
        return value
