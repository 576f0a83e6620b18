"""Check the rows as they will be after backfills and conversions. Reads tables, changes nothing."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from syntegra_db.adoption._backfills import rolled_back
from syntegra_db.adoption._each_row import VALUE_ERRORS, evaluate_each_row
from syntegra_db.adoption._model import AcceptedLoss, OpenQuestion
from syntegra_db.adoption._suggestions import suggest_value
from syntegra_db.catalog.ddl import FOREIGN_KEY
from syntegra_db.errors import DecisionRequired
from syntegra_db.sql import execute_query, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from syntegra_db.adoption._inspection import Inspection
    from syntegra_db.catalog import Table
    from syntegra_db.catalog.conversions import Loss

SHOWN_IDS = 10
NAMES = re.compile(r"\w+")
REFERENCE = re.compile(r"FOREIGN KEY \((?P<columns>[^)]+)\) REFERENCES (?P<target>\w+)\((?P<target_columns>[^)]+)\)")
SET, ACCEPT_LOSS = "--set", "--accept-loss"
FIX_ROWS = "Correct these rows, which adopt does not change, and run it again"


@dataclass(frozen=True)
class Violations:
    """The number of rows that violate a condition, and their first ids."""

    count: int = 0
    ids: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class PlannedRows:
    """The rows of the managed tables with every backfill and conversion applied.

    `expressions` are the supplied values by (table, column); `unconvertible_columns` are known after the first check.
    """

    connection: Connection
    inspection: Inspection
    expressions: Mapping[tuple[str, str], str]
    unconvertible_columns: set[tuple[str, str]] = field(default_factory=set)

    def count(self, table: str, condition: str = "true") -> int:
        """Return the number of installed rows that meet `condition`."""
        statement = f"SELECT count(*) FROM {quote(table)} WHERE {condition}"  # noqa: S608  declared names
        rows: int = execute_query(self.connection, statement).scalar_one()
        return rows

    def missing_values(self, table: str, column: str) -> Violations:
        """Return the rows without a value in a column."""
        return self._violations(table, f"{self._value(table, column)} IS NULL")

    def unconvertible(self, table: str, column: str, convertible: str) -> Violations:
        """Return the rows whose value the new type of a column cannot store, and remember the column if any."""
        violations = self._evaluate(table, column, f"NOT ({convertible})", failed=True)
        if violations.count:
            self.unconvertible_columns.add((table, column))
        return violations

    def changed(self, table: str, column: str, loss: Loss) -> Violations:
        """Return the rows whose value is convertible, but to another value."""
        return self._evaluate(table, column, loss.condition, failed=False)

    def duplicate_ids(self, table: str) -> Violations:
        """Return the ids that several rows share."""
        duplicates = f"SELECT id FROM {quote(table)} GROUP BY id HAVING count(*) > 1"  # noqa: S608  declared names
        return self._violations(table, f"id IN ({duplicates})")

    def check_violations(self, table: str, check: str) -> Violations:
        """Return the rows that violate the definition of a CHECK; none if one of its columns is unconvertible."""
        columns = [name for name in self.inspection.declared.tables[table].columns if name in NAMES.findall(check)]
        if any((table, name) in self.unconvertible_columns for name in columns):
            return Violations()
        return self._violations(table, f"NOT ({check.removeprefix('CHECK ')})", self._converted_rows(table, columns))

    def dangling_references(
        self, table: str, columns: Sequence[str], target: str, target_columns: Sequence[str]
    ) -> Violations:
        """Return the rows whose foreign key refers to no row of `target`."""
        used = {(table, name) for name in columns} | {(target, name) for name in target_columns}
        if used & self.unconvertible_columns:
            return Violations()
        condition = " AND ".join(f"source.{quote(name)} IS NOT NULL" for name in columns)
        if target in self.inspection.installed.tables:
            pairs = zip(columns, target_columns, strict=True)
            matches = " AND ".join(f"target.{quote(other)} = source.{quote(name)}" for name, other in pairs)
            rows = self._converted_rows(target, target_columns)
            condition += f" AND NOT EXISTS (SELECT FROM {rows} AS target WHERE {matches})"
        return self._violations(table, condition, self._converted_rows(table, columns))

    def _evaluate(self, table: str, column: str, condition: str, *, failed: bool) -> Violations:
        """Return the rows that meet a condition on a value; `failed` is its result if the server rejects the value."""
        condition = condition.replace("{}", self._value(table, column))
        try:
            with rolled_back(self.connection):
                return self._violations(table, condition)
        except DBAPIError as error:
            if not (getattr(error.orig, "sqlstate", None) or "").startswith(VALUE_ERRORS):
                raise
        count, ids = evaluate_each_row(self.connection, table, condition, SHOWN_IDS, failed=failed)
        return Violations(count, tuple(ids))

    def _violations(self, table: str, condition: str, rows: str | None = None) -> Violations:
        source = quote(table) if rows is None else f"{rows} AS source"
        found = execute_query(
            self.connection,
            f"WITH violations AS (SELECT id FROM {source} WHERE {condition}) "  # noqa: S608  declared names
            f"SELECT (SELECT count(*) FROM violations), ARRAY(SELECT id FROM violations ORDER BY id LIMIT {SHOWN_IDS})",
        )
        count, ids = tuple(found.one())
        return Violations(count, tuple(ids))

    def _value(self, table: str, column: str) -> str:
        """Return SQL of the value of a column after the backfill and before the conversion."""
        expression = self.expressions.get((table, column))
        if column not in self.inspection.installed.tables[table].columns:
            return expression or self.inspection.declared.tables[table].columns[column].default or "NULL"
        return f"coalesce({quote(column)}, {expression})" if expression else quote(column)

    def _converted_rows(self, table: str, columns: Sequence[str]) -> str:
        """Return a subquery of the id and the converted values of `columns`."""
        values = [f"{self._converted(table, name)} AS {quote(name)}" for name in columns if name != "id"]
        return f"(SELECT {', '.join(['id', *values])} FROM {quote(table)})"  # noqa: S608  declared names

    def _converted(self, table: str, column: str) -> str:
        value, conversion = self._value(table, column), self.inspection.conversions.get((table, column))
        if conversion is not None and conversion.using is not None:
            return conversion.using.replace("{}", value)
        return f"({value})::{self.inspection.declared.tables[table].columns[column].type}"


def check_rows(rows: PlannedRows) -> Iterator[OpenQuestion]:
    """Yield what a person must decide about rows: types first, because the other checks need convertible values."""
    for (table, column), conversion in rows.inspection.conversions.items():
        if conversion is None:
            continue
        label = f"column {table}.{column}"
        if conversion.convertible is not None:
            violations = rows.unconvertible(table, column, conversion.convertible)
            yield from _question(label, f"has {conversion.unconvertible_label}", violations)
        if conversion.loss is not None and f"{table}.{column}" not in rows.inspection.supplied.accepted_losses:
            option = (ACCEPT_LOSS, f"{table}.{column}")
            advice = f"{shlex.join(option)} {conversion.loss.effect}; or correct these rows"
            violations = rows.changed(table, column, conversion.loss)
            yield from _question(label, f"has {conversion.loss.label}", violations, advice, option)
    for table, declared, installed in rows.inspection.tables():
        yield from _check_required(rows, table, declared, installed)
    for table, declared, installed in rows.inspection.tables():
        yield from _check_constraints(rows, table, declared, installed)


def accepted_losses(rows: PlannedRows) -> Iterator[AcceptedLoss]:
    """Yield the accepted losses of columns that have values to lose.

    Raises:
        DecisionRequired: one is for an unknown column.
    """
    inspection = rows.inspection
    for name in inspection.supplied.accepted_losses:
        table, column = name.split(".")
        if not any(table == known and column in declared.columns for known, declared, _ in inspection.tables()):
            raise DecisionRequired(f"{ACCEPT_LOSS} {name}: there is no such column of revision {inspection.revision}.")
        conversion = inspection.conversions.get((table, column))
        if conversion is not None and conversion.loss is not None:
            count = rows.changed(table, column, conversion.loss).count
            if count:
                yield AcceptedLoss(table, column, f"{conversion.loss.label}: it {conversion.loss.effect}", count)


def _check_required(rows: PlannedRows, table: str, declared: Table, installed: Table) -> Iterator[OpenQuestion]:
    for name, column in declared.columns.items():
        existing = installed.columns.get(name)
        is_supplied = (table, name) in rows.expressions
        if column.nullability == "NULL" or (existing is not None and existing.nullability == column.nullability):
            continue
        if existing is None and column.default is not None and not is_supplied:
            continue
        if is_supplied:
            reason = "is required, but the supplied value is NULL"
        else:
            reason = "is required but missing" if existing is None else "is required but NULL"
        violations = rows.missing_values(table, name)
        advice = f"{SET} {table}.{name}=VALUE, or an SQL expression"
        option: tuple[str, ...] = ()
        if violations.count and not is_supplied and (value := suggest_value(rows, table, name)) is not None:
            option = (SET, f"{table}.{name}={value}")
            advice = f"{shlex.join(option)}, or another value or SQL expression"
        yield from _question(f"column {table}.{name}", reason, violations, advice, option)


def _check_constraints(rows: PlannedRows, table: str, declared: Table, installed: Table) -> Iterator[OpenQuestion]:
    for name, definition in declared.constraints.items():
        if definition in installed.constraints.values():
            continue
        reason, violations = f"is violated: {definition}", Violations()
        reference = REFERENCE.match(definition)
        if definition.startswith("PRIMARY KEY"):
            reason, violations = "is violated: rows share an id", rows.duplicate_ids(table)
        elif definition.startswith("CHECK"):
            violations = rows.check_violations(table, definition)
        elif definition.startswith(FOREIGN_KEY) and reference is not None:
            columns, targets = (reference[part].split(", ") for part in ("columns", "target_columns"))
            violations = rows.dangling_references(table, columns, reference["target"], targets)
        yield from _question(f"constraint {name} on {table}", reason, violations)


def _question(
    label: str, reason: str, violations: Violations, advice: str = FIX_ROWS, option: tuple[str, ...] = ()
) -> Iterator[OpenQuestion]:
    if violations.count:
        yield OpenQuestion(label, reason, advice, violations.count, violations.ids, option)
