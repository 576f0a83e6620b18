"""The rows as they will be, asked what is wrong with them. Reads tables, changes nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from syntegra_db.adoption.parts import SHOWN_IDS
from syntegra_db.catalog import _ddl as sql
from syntegra_db.errors import DecisionRequired

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sqlalchemy import Connection, CursorResult

    from syntegra_db.adoption.conversions import Conversion
    from syntegra_db.catalog._schema import Column, Schema

PLAIN_VALUE = re.compile(r"[\w .:+-]+")
NAMES = re.compile(r"\w+")


def execute(connection: Connection, statement: str) -> CursorResult[Any]:
    """Run one statement as it stands: neither a colon nor a percent sign in it means anything to the driver."""
    return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


@dataclass(frozen=True)
class Offenders:
    """How many rows there are, and the first few ids."""

    count: int
    ids: tuple[int | str, ...]


@dataclass(frozen=True)
class Rows:
    """The rows of our tables with every answer filled in and every type converted."""

    connection: Connection
    expected: Schema
    found: Schema
    conversions: Mapping[tuple[str, str], Conversion | None]
    expressions: Mapping[tuple[str, str], str]
    version: int
    misfits: set[tuple[str, str]] = field(default_factory=set)

    def count(self, table: str) -> int:
        """Return the number of rows."""
        counted: int = execute(self.connection, f"SELECT count(*) FROM {sql.quote(table)}").scalar_one()  # noqa: S608  names of our own
        return counted

    def count_filled(self, table: str, column: str) -> int:
        """Return how many rows an answer gives a value to."""
        if column not in self.found.tables[table].columns:
            return self.count(table)
        return self._offenders(table, f"{sql.quote(column)} IS NULL").count

    def empty(self, table: str, column: str) -> Offenders:
        """Return the rows that are to have no value in a column."""
        return self._offenders(table, f"{self._value(table, column)} IS NULL")

    def misfitting(self, table: str, column: str, fits: str) -> Offenders:
        """Return the rows whose value the new type of a column cannot hold, and remember the column as one of those."""
        offenders = self._offenders(table, f"NOT ({fits.replace('{}', self._value(table, column))})")
        if offenders.count:
            self.misfits.add((table, column))
        return offenders

    def repeated(self, table: str) -> Offenders:
        """Return the ids that more than one row has."""
        return self._offenders(
            table,
            f"id IN (SELECT id FROM {sql.quote(table)} GROUP BY id HAVING count(*) > 1)",  # noqa: S608  names of our own
        )

    def breaking(self, table: str, check: str) -> Offenders:
        """Return the rows that break a CHECK, given as its definition; none where a column does not convert anyway."""
        named = [name for name in self.expected.tables[table].columns if name in NAMES.findall(check)]
        if any((table, name) in self.misfits for name in named):
            return Offenders(0, ())
        rows = self._future(table, named)
        return self._offenders(table, f"NOT ({check.removeprefix('CHECK ')})", rows)

    def astray(self, table: str, columns: Sequence[str], target: str, target_columns: Sequence[str]) -> Offenders:
        """Return the rows whose foreign key points at no row of `target`."""
        used = {(table, name) for name in columns} | {(target, name) for name in target_columns}
        if used & self.misfits:
            return Offenders(0, ())
        condition = " AND ".join(f"here.{sql.quote(name)} IS NOT NULL" for name in columns)
        if target in self.found.tables:
            pairs = zip(columns, target_columns, strict=True)
            same = " AND ".join(f"there.{sql.quote(other)} = here.{sql.quote(name)}" for name, other in pairs)
            rows = self._future(target, target_columns)
            condition += f" AND NOT EXISTS (SELECT FROM {rows} AS there WHERE {same})"
        return self._offenders(table, condition, self._future(table, columns))

    def _offenders(self, table: str, condition: str, rows: str | None = None) -> Offenders:
        source = sql.quote(table) if rows is None else f"{rows} AS here"
        found = execute(
            self.connection,
            f"WITH offenders AS (SELECT id FROM {source} WHERE {condition}) "  # noqa: S608  names of our own
            f"SELECT (SELECT count(*) FROM offenders), ARRAY(SELECT id FROM offenders ORDER BY id LIMIT {SHOWN_IDS})",
        )
        count, ids = tuple(found.one())
        return Offenders(count, tuple(ids))

    def _value(self, table: str, column: str) -> str:
        """Return what a row holds, or is to be given, in a column before it is converted."""
        expression = self.expressions.get((table, column))
        there = self.found.tables[table].columns.get(column)
        if there is None:
            return expression or self.expected.tables[table].columns[column].default or "NULL"
        return f"coalesce({sql.quote(column)}, {expression})" if expression else sql.quote(column)

    def _future(self, table: str, columns: Sequence[str]) -> str:
        """Return a subquery of the id and the converted values of `columns`."""
        values = [f"{self._converted(table, name)} AS {sql.quote(name)}" for name in columns if name != "id"]
        return f"(SELECT {', '.join(['id', *values])} FROM {sql.quote(table)})"  # noqa: S608  names of our own

    def _converted(self, table: str, name: str) -> str:
        column, value = self.expected.tables[table].columns[name], self._value(table, name)
        conversion = self.conversions.get((table, name))
        if conversion is not None and conversion.using is not None:
            return conversion.using.replace("{}", value)
        return f"({value})::{column.type}"


def expression_of(connection: Connection, table: str, there: Mapping[str, Column], kind: str, value: str) -> str:
    """Return an answer as SQL: a constant where it is a plain value of the type `kind`, else an expression.

    Raises:
        DecisionNeeded: it is neither.
    """
    constant = sql.literal(value)
    plain = PLAIN_VALUE.fullmatch(value) and "::" not in value and value not in there and value.upper() != "NULL"
    if plain and _complaint(connection, f"SELECT CAST({constant} AS {kind})") is None:
        return constant
    complaint = _complaint(connection, f"SELECT CAST(({value}) AS {kind}) FROM {sql.quote(table)} LIMIT 0")  # noqa: S608  the operator's own
    if complaint is not None:
        raise DecisionRequired(
            f"--set {table}.…={value}: neither a value of type {kind} nor an SQL expression ({complaint}). "
            "Nothing was changed."
        )
    return f"({value})"


def _complaint(connection: Connection, statement: str) -> str | None:
    savepoint = connection.begin_nested()
    try:
        execute(connection, statement)
    except DBAPIError as error:
        savepoint.rollback()
        return str(error.orig).splitlines()[0]
    savepoint.rollback()
    return None
