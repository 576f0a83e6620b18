"""The partitions of a table that is partitioned by month, and the months that have none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, Self

from syntegra_db.catalog import _queries
from syntegra_db.catalog._introspection import short_lock_timeout
from syntegra_db.search_path import CATALOG_ONLY, FORMATS, read_session, set_statements
from syntegra_db.sql import execute_raw, literal, quote_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy import Connection, RowMapping

    from syntegra_db.catalog._schema import Schema, Table

RANGE_KEY = re.compile(r'RANGE \((?P<column>"(?:[^"]|"")+"|\w+)\)')
MONTH_TYPES = ("timestamp with time zone", "timestamp without time zone", "date")
RANGE_BOUND = re.compile(r"FOR VALUES FROM \((?:'([^']*)'|MINVALUE)\) TO \((?:'([^']*)'|MAXVALUE)\)")
YEARS_END = "'10000-01-01'"
"""A constant of SQL: later moments have no month in Python, and no name with a year of four digits."""
MONTHS_AHEAD = 1
MONTHS_PER_YEAR = 12
FIRST_MOMENT = datetime.min.replace(tzinfo=UTC)
"""The first moment that Python can represent."""
LAST_MOMENT = datetime.max.replace(tzinfo=UTC)
"""The last moment that Python can represent."""
CREATE_COMMAND = "syntegra-db partitions create"
"""The command that creates the partitions of the next months, for messages."""


class Month(NamedTuple):
    """A calendar month in UTC."""

    year: int
    number: int

    @classmethod
    def containing(cls, moment: datetime) -> Self:
        """Return the month of `moment`."""
        utc = moment.astimezone(UTC)
        return cls(utc.year, utc.month)

    def later(self, months: int) -> Month:
        """Return the month that is `months` after this one."""
        years, number = divmod(self.number - 1 + months, MONTHS_PER_YEAR)
        return Month(self.year + years, number + 1)

    @property
    def start(self) -> datetime:
        """The first moment of the month."""
        return datetime(self.year, self.number, 1, tzinfo=UTC)

    def partition_name(self, table: str) -> str:
        """Return the name of the partition of `table` for this month, such as `kpi_summary_2026_11`."""
        return f"{table}_{self.year:04}_{self.number:02}"

    def __str__(self) -> str:
        return f"{self.year:04}-{self.number:02}"


def month_name_expression(table: str, month: str) -> str:
    """Return the SQL expression for `Month.partition_name`, of `month`, an expression for a moment of it in UTC.

    A revision, also as a file for psql, computes the months when it runs, without Python.
    """
    return f"{literal(f'{table}_')} || to_char({month}, 'YYYY_MM')"


@dataclass(frozen=True)
class Partition:
    """One partition; `lower` and `upper` are None if it has no such limit, or is the default partition.

    A limit beyond the years of Python is the last moment of a `datetime` if it is later, or the first one.

    `qualified` is its name for a statement. `kind` is as in `Table`; a foreign table cannot be backed up.
    `is_detaching` means that an interrupted DETACH CONCURRENTLY hides its rows.
    """

    name: str
    qualified: str
    kind: str
    in_schema: bool
    is_default: bool
    is_detaching: bool
    estimated_rows: int
    lower: datetime | None = None
    upper: datetime | None = None


@dataclass(frozen=True)
class MonthPartitions:
    """The partitions of one table, and the months from the current one on that no partition covers."""

    table: str
    partitions: tuple[Partition, ...]
    missing_months: tuple[Month, ...]

    @property
    def default(self) -> Partition | None:
        """The default partition, which has the rows of months without a partition."""
        return next((part for part in self.partitions if part.is_default), None)


def month_column(table: Table) -> str | None:
    """Return the column by whose month the rows of `table` are divided, or None if they are not."""
    match = RANGE_KEY.fullmatch(table.partition_key or "")
    names = (name for name in table.columns if match is not None and quote_name(name) == match["column"])
    column = next(names, None)
    return column if column is not None and table.columns[column].type in MONTH_TYPES else None


def tables_by_month(schema: Schema) -> dict[str, str]:
    """Return the tables of `schema` that are partitioned by month, each with its column."""
    columns = {name: month_column(table) for name, table in schema.tables.items()}
    return {name: column for name, column in columns.items() if column is not None}


def read_month_partitions(
    connection: Connection, tables: Collection[str], months_ahead: int = MONTHS_AHEAD
) -> list[MonthPartitions]:
    """Return the partitions of those of `tables` that are installed as partitioned tables.

    The months that are examined are the current one, by the server's clock, and `months_ahead` after it. The connection
    must not be in AUTOCOMMIT.

    Raises:
        LockTimeout: see `short_lock_timeout`.
    """
    if not tables:
        return []
    parameters = {"schema": read_session(connection).schema, "tables": list(tables)}
    with short_lock_timeout(connection):
        settings = {**FORMATS, "TimeZone": "UTC", "search_path": CATALOG_ONLY}
        execute_raw(connection, set_statements(settings, is_local=True))
        rows = connection.execute(_queries.PARTITIONS, parameters).mappings().all()
        current = Month.containing(connection.scalars(_queries.NOW).one())
        installed = connection.scalars(_queries.PARTITIONED_TABLES, parameters).all()
    partitions: dict[str, list[Partition]] = {name: [] for name in installed}
    for row in rows:
        partitions[row["table_name"]].append(_partition(row))
    months = [current.later(number) for number in range(months_ahead + 1)]
    return [
        MonthPartitions(name, tuple(parts), tuple(missing_months(parts, months))) for name, parts in partitions.items()
    ]


def _partition(row: RowMapping) -> Partition:
    limits = RANGE_BOUND.fullmatch(row["bound"])
    lower, upper = limits.groups() if limits else (None, None)
    return Partition(
        name=row["name"],
        qualified=row["qualified"],
        kind=row["kind"],
        in_schema=row["in_schema"],
        is_default=row["bound"] == "DEFAULT",
        is_detaching=row["is_detaching"],
        estimated_rows=row["estimated_rows"],
        lower=None if lower is None else _moment(lower),
        upper=None if upper is None else _moment(upper),
    )


def _moment(limit: str) -> datetime:
    """Return a limit of a partition, or the first or last moment of a `datetime` if it is beyond those."""
    try:
        moment = datetime.fromisoformat(limit)
    except ValueError:
        return FIRST_MOMENT if limit.endswith("BC") or limit == "-infinity" else LAST_MOMENT
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def missing_months(partitions: Sequence[Partition], months: Sequence[Month]) -> Iterator[Month]:
    """Yield those of `months` that `partitions` do not cover completely; the default partition covers none."""
    ranges = sorted(
        (part.lower or FIRST_MOMENT, part.upper or LAST_MOMENT) for part in partitions if not part.is_default
    )
    for month in months:
        reached, end = month.start, month.later(1).start
        for lower, upper in ranges:
            if lower <= reached < upper:
                reached = upper
        if reached < end:
            yield month
