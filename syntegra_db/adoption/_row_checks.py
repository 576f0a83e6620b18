"""The rows as they will be, asked what is wrong with them. Reads tables, changes nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from syntegra_db.adoption._model import SHOWN_IDS, OpenQuestion
from syntegra_db.catalog.ddl import FOREIGN_KEY
from syntegra_db.errors import DecisionRequired
from syntegra_db.sql import execute_raw, literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from syntegra_db.adoption._conversions import Conversion
    from syntegra_db.adoption._inspection import Inspection
    from syntegra_db.catalog import Column, Schema

PLAIN_VALUE = re.compile(r"[\w .:+-]+")
NAMES = re.compile(r"\w+")


@dataclass(frozen=True)
class Violations:
    """How many rows there are, and the first few ids."""

    count: int
    ids: tuple[int | str, ...]


@dataclass(frozen=True)
class PlannedRows:
    """The rows of our tables with every answer filled in and every type converted."""

    connection: Connection
    expected: Schema
    found: Schema
    conversions: Mapping[tuple[str, str], Conversion | None]
    expressions: Mapping[tuple[str, str], str]
    version: int
    unconvertible_columns: set[tuple[str, str]] = field(default_factory=set)

    def count(self, table: str) -> int:
        """Return the number of rows."""
        counted: int = execute_raw(self.connection, f"SELECT count(*) FROM {quote(table)}").scalar_one()  # noqa: S608  names of our own
        return counted

    def count_filled(self, table: str, column: str) -> int:
        """Return how many rows an answer gives a value to."""
        if column not in self.found.tables[table].columns:
            return self.count(table)
        return self._offenders(table, f"{quote(column)} IS NULL").count

    def missing_values(self, table: str, column: str) -> Violations:
        """Return the rows that are to have no value in a column."""
        return self._offenders(table, f"{self._value(table, column)} IS NULL")

    def unconvertible(self, table: str, column: str, fits: str) -> Violations:
        """Return the rows whose value the new type of a column cannot hold, and remember the column as one of those."""
        offenders = self._offenders(table, f"NOT ({fits.replace('{}', self._value(table, column))})")
        if offenders.count:
            self.unconvertible_columns.add((table, column))
        return offenders

    def duplicate_ids(self, table: str) -> Violations:
        """Return the ids that more than one row has."""
        return self._offenders(
            table,
            f"id IN (SELECT id FROM {quote(table)} GROUP BY id HAVING count(*) > 1)",  # noqa: S608  names of our own
        )

    def check_violations(self, table: str, check: str) -> Violations:
        """Return the rows that break a CHECK, given as its definition; none where a column does not convert anyway."""
        named = [name for name in self.expected.tables[table].columns if name in NAMES.findall(check)]
        if any((table, name) in self.unconvertible_columns for name in named):
            return Violations(0, ())
        rows = self._converted_rows(table, named)
        return self._offenders(table, f"NOT ({check.removeprefix('CHECK ')})", rows)

    def dangling_references(
        self, table: str, columns: Sequence[str], target: str, target_columns: Sequence[str]
    ) -> Violations:
        """Return the rows whose foreign key points at no row of `target`."""
        used = {(table, name) for name in columns} | {(target, name) for name in target_columns}
        if used & self.unconvertible_columns:
            return Violations(0, ())
        condition = " AND ".join(f"here.{quote(name)} IS NOT NULL" for name in columns)
        if target in self.found.tables:
            pairs = zip(columns, target_columns, strict=True)
            same = " AND ".join(f"there.{quote(other)} = here.{quote(name)}" for name, other in pairs)
            rows = self._converted_rows(target, target_columns)
            condition += f" AND NOT EXISTS (SELECT FROM {rows} AS there WHERE {same})"
        return self._offenders(table, condition, self._converted_rows(table, columns))

    def _offenders(self, table: str, condition: str, rows: str | None = None) -> Violations:
        source = quote(table) if rows is None else f"{rows} AS here"
        found = execute_raw(
            self.connection,
            f"WITH offenders AS (SELECT id FROM {source} WHERE {condition}) "  # noqa: S608  names of our own
            f"SELECT (SELECT count(*) FROM offenders), ARRAY(SELECT id FROM offenders ORDER BY id LIMIT {SHOWN_IDS})",
        )
        count, ids = tuple(found.one())
        return Violations(count, tuple(ids))

    def _value(self, table: str, column: str) -> str:
        """Return what a row holds, or is to be given, in a column before it is converted."""
        expression = self.expressions.get((table, column))
        there = self.found.tables[table].columns.get(column)
        if there is None:
            return expression or self.expected.tables[table].columns[column].default or "NULL"
        return f"coalesce({quote(column)}, {expression})" if expression else quote(column)

    def _converted_rows(self, table: str, columns: Sequence[str]) -> str:
        """Return a subquery of the id and the converted values of `columns`."""
        values = [f"{self._converted(table, name)} AS {quote(name)}" for name in columns if name != "id"]
        return f"(SELECT {', '.join(['id', *values])} FROM {quote(table)})"  # noqa: S608  names of our own

    def _converted(self, table: str, name: str) -> str:
        column, value = self.expected.tables[table].columns[name], self._value(table, name)
        conversion = self.conversions.get((table, name))
        if conversion is not None and conversion.using is not None:
            return conversion.using.replace("{}", value)
        return f"({value})::{column.type}"


def parse_fill_value(connection: Connection, table: str, there: Mapping[str, Column], kind: str, value: str) -> str:
    """Return an answer as SQL: a constant where it is a plain value of the type `kind`, else an expression.

    Raises:
        DecisionNeeded: it is neither.
    """
    constant = literal(value)
    plain = PLAIN_VALUE.fullmatch(value) and "::" not in value and value not in there and value.upper() != "NULL"
    if plain and _sql_error(connection, f"SELECT CAST({constant} AS {kind})") is None:
        return constant
    complaint = _sql_error(connection, f"SELECT CAST(({value}) AS {kind}) FROM {quote(table)} LIMIT 0")  # noqa: S608  the operator's own
    if complaint is not None:
        raise DecisionRequired(
            f"--set {table}.…={value}: neither a value of type {kind} nor an SQL expression ({complaint}). "
            "Nothing was changed."
        )
    return f"({value})"


def _sql_error(connection: Connection, statement: str) -> str | None:
    savepoint = connection.begin_nested()
    try:
        execute_raw(connection, statement)
    except DBAPIError as error:
        savepoint.rollback()
        return str(error.orig).splitlines()[0]
    savepoint.rollback()
    return None


REFERENCE = re.compile(r"FOREIGN KEY \((?P<columns>[^)]+)\) REFERENCES (?P<target>\w+)\((?P<target_columns>[^)]+)\)")
INPUT_IS_VALID_SINCE = 160000
FIX_ROWS = "Correct the rows yourself, since adopt changes no value that is there, and run it again"


def check_rows(situation: Inspection, rows: PlannedRows) -> Iterator[OpenQuestion]:
    """Yield what a person has to decide about rows: types first, since the other checks need values that convert."""
    tables = [name for name in situation.expected.tables if name in situation.found.tables]
    for (table, column), each in rows.conversions.items():
        if each is not None and each.convertible is not None and _can_ask(rows, each.convertible):
            offenders = rows.unconvertible(table, column, each.convertible)
            yield from _decision(f"column {table}.{column}", f"has {each.unconvertible_label}", FIX_ROWS, offenders)
    for table in tables:
        yield from _required(situation, rows, table)
    for table in tables:
        yield from _constraints(situation, rows, table)


def _can_ask(rows: PlannedRows, fits: str) -> bool:
    return rows.version >= INPUT_IS_VALID_SINCE or "pg_input_is_valid" not in fits


def _required(situation: Inspection, rows: PlannedRows, table: str) -> Iterator[OpenQuestion]:
    for name, wanted in situation.expected.tables[table].columns.items():
        there = situation.found.tables[table].columns.get(name)
        if wanted.nullability == "NULL" or (there is not None and there.nullability == wanted.nullability):
            continue
        if there is None and wanted.default is not None and (table, name) not in rows.expressions:
            continue
        reason = "is required and missing" if there is None else "is required, and rows have no value in it"
        if (table, name) in rows.expressions:
            reason = "is required, and the answer gives rows no value"
        yield from _decision(
            f"column {table}.{name}",
            reason,
            f"--set {table}.{name}=VALUE, or an SQL expression",
            rows.missing_values(table, name),
        )


def _constraints(situation: Inspection, rows: PlannedRows, table: str) -> Iterator[OpenQuestion]:
    expected, found = situation.expected.tables[table], situation.found.tables[table]
    for name, definition in expected.constraints.items():
        if definition in found.constraints.values():
            continue
        named = f"constraint {name} on {table}"
        reference = REFERENCE.match(definition)
        if definition.startswith("PRIMARY KEY"):
            yield from _decision(named, "does not hold: rows share an id", FIX_ROWS, rows.duplicate_ids(table))
        elif definition.startswith("CHECK"):
            yield from _decision(
                named, f"does not hold: {definition}", FIX_ROWS, rows.check_violations(table, definition)
            )
        elif definition.startswith(FOREIGN_KEY) and reference is not None:
            columns, targets = (reference[part].split(", ") for part in ("columns", "target_columns"))
            offenders = rows.dangling_references(table, columns, reference["target"], targets)
            yield from _decision(named, f"does not hold: {definition}", FIX_ROWS, offenders)


def _decision(named: str, reason: str, advice: str, offenders: Violations) -> Iterator[OpenQuestion]:
    if offenders.count:
        yield OpenQuestion(named, reason, advice, offenders.count, offenders.ids)
