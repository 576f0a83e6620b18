"""The rows that the models insert: what is known of their columns, and which expressions fail or hold for each.

Only `Expression.is_safe` expressions are run, and only such or total ones are planned, because the planner runs the
constant parts of an expression.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from syntegra_db.sql import execute_raw, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, Row

    from syntegra_db.catalog._expressions import Expression

# SQLSTATE classes of an error that a value or an expression causes: data exception, integrity constraint violation,
# syntax error or access rule violation, program limit exceeded, feature not supported.
EXPRESSION_ERRORS = ("22", "23", "42", "54", "0A")
# An object that another session drops.
CONCURRENT_DDL_ERRORS = ("42704", "42P01")
LIMITED_TEXT = re.compile(r"(?P<type>character|character varying|bit|bit varying)\((?P<length>\d+)\)")
DOMAIN_VALUE = "value"


@dataclass(frozen=True)
class InsertedColumn:
    """A column of an installed table; `expression` is its default or what it is generated from.

    `type` is the base type of a domain, `domain_checks` and `is_required_by_domain` are the constraints of the domain.
    """

    name: str
    number: int
    type: str
    is_declared: bool
    is_required: bool
    is_required_by_domain: bool
    identity: str
    generated: str
    cycles: bool
    has_collation: bool
    expression: Expression | None
    domain_checks: tuple[Expression, ...]

    @property
    def is_generated(self) -> bool:
        """Whether the server computes its value from other columns of an inserted row."""
        return bool(self.generated) and not self.is_declared


class InsertedRows:
    """Rows with an unknown value in each declared column, and the default in each other column."""

    def __init__(self, connection: Connection, columns: Iterable[InsertedColumn]) -> None:
        """Read nothing yet; the search_path of the transaction must be `CATALOG_ONLY`."""
        self._connection = connection
        self._columns = {column.number: column for column in columns}
        self._constants: dict[int, str | None] = {}

    def column(self, name: str) -> InsertedColumn:
        """Return a column by name."""
        return next(column for column in self._columns.values() if column.name == name)

    def accepts(self, check: Expression) -> bool:
        """Return whether `check` is true or NULL for each row, and fails for none."""
        return not self.can_fail(check) and self._is_false(f"NOT coalesce(({check.text}), true)", check.attributes)

    def excludes(self, condition: Expression) -> bool:
        """Return whether `condition`, which fails for no row, is true for no row."""
        return self._is_false(f"coalesce(({condition.text}), false)", condition.attributes)

    def has_null(self, column: str) -> bool:
        """Return whether a column is NULL in each row."""
        number = self.column(column).number
        if self._generated_can_fail(number):
            return False
        return self._is_false(f"{quote(column)} IS DISTINCT FROM NULL", {number})

    def is_null(self, text: str, expression: Expression) -> bool:
        """Return whether `text`, a part of `expression` that fails for no row, is NULL in each row."""
        return self._is_false(f"({text}) IS DISTINCT FROM NULL", expression.attributes)

    def can_fail(self, expression: Expression) -> bool:
        """Return whether an expression over the columns can fail for a row, or could have effects."""
        if not expression.attributes <= self._columns.keys():
            return True
        if expression.is_total:
            return any(self._generated_can_fail(number) for number in expression.attributes)
        is_known = all(self._constant(number) is not None for number in expression.attributes)
        return not (is_known and expression.is_safe and self._runs(expression.text, expression.attributes))

    def default_can_fail(self, column: InsertedColumn) -> bool:
        """Return whether the default of a column can fail, or could have effects."""
        default = column.expression
        if default is None:
            return False
        if any(function is None or function.volatility == "v" for function in default.called):
            return not default.is_total_default
        if not default.is_safe and not default.is_total_default:
            return True
        # An assignment rejects a longer text, and an explicit cast cuts it.
        limit = LIMITED_TEXT.fullmatch(column.type)
        if limit is None:
            return not self._runs(f"CAST(({default.text}) AS {column.type})", ())
        comparison = "<>" if limit["type"] == "bit" else ">"
        length = f"length(rtrim(({default.text})::text, ' '))"
        return not self._runs(f"CASE WHEN {length} {comparison} {limit['length']} THEN 1 / 0 END", ())

    def default_is_null(self, column: InsertedColumn) -> bool:
        """Return whether the default of a column can be NULL."""
        constant = self._constant(column.number)
        if constant is not None:
            return not self._is_false(f"{quote(column.name)} IS NOT DISTINCT FROM NULL", {column.number})
        return column.expression is not None and not column.expression.is_never_null

    def domain_accepts(self, column: InsertedColumn) -> bool:
        """Return whether the type of a column accepts its default."""
        if column.is_required_by_domain and self.default_is_null(column):
            return False
        value = self._constant(column.number) or f"unknown.{DOMAIN_VALUE}"
        is_constant = self._constant(column.number) is not None
        for check in column.domain_checks:
            rows = "" if is_constant else _unknown({DOMAIN_VALUE: column.type})
            source = f"(SELECT {value} AS {DOMAIN_VALUE}{rows})"
            query = f"SELECT {check.text} FROM {source} AS inserted"  # noqa: S608  only run if it is safe
            can_fail = not check.is_total and not (is_constant and check.is_safe and self._try(query))
            if can_fail or not self._plans_nothing(f"NOT coalesce(({check.text}), true)", source):
                return False
        return True

    def _generated_can_fail(self, number: int) -> bool:
        column = self._columns[number]
        return column.is_generated and (column.expression is None or self.can_fail(column.expression))

    def _constant(self, number: int) -> str | None:
        """Return SQL of the value of a column if each row has the same one, else None."""
        if number not in self._constants:
            self._constants[number] = self._read_constant(self._columns[number])
        return self._constants[number]

    def _read_constant(self, column: InsertedColumn) -> str | None:
        if column.is_declared or column.identity or column.generated:
            return None
        if column.expression is None:
            return f"CAST(NULL AS {column.type})"
        # Another collation can find other values equal.
        if column.has_collation or not column.expression.is_constant or self.default_can_fail(column):
            return None
        return f"CAST(({column.expression.text}) AS {column.type})"

    def _source(self, numbers: Iterable[int]) -> str:
        """Return a subquery of one row with the columns of these numbers and those that they are generated from."""
        generated = {
            number: column.expression
            for number in numbers
            if (column := self._columns[number]).is_generated and column.expression is not None
        }
        used = set(numbers).union(*(expression.attributes for expression in generated.values())) - generated.keys()
        unknown = {self._columns[number] for number in used if self._constant(number) is None}
        values = [
            f"{self._constant(number) or f'unknown.{quote(self._columns[number].name)}'} "
            f"AS {quote(self._columns[number].name)}"
            for number in sorted(used)
        ]
        rows = _unknown({column.name: column.type for column in sorted(unknown, key=lambda column: column.number)})
        source = f"(SELECT {', '.join(values)}{rows})"
        if not generated:
            return source
        expressions = [
            f"CAST(({expression.text}) AS {self._columns[number].type}) AS {quote(self._columns[number].name)}"
            for number, expression in sorted(generated.items())
        ]
        parts = ", ".join(["*"] * bool(used) + expressions)
        return f"(SELECT {parts} FROM {source} AS base)"  # noqa: S608  names, and expressions that cannot fail

    def _is_false(self, condition: str, numbers: Iterable[int]) -> bool:
        return self._plans_nothing(condition, self._source(numbers))

    def _plans_nothing(self, condition: str, source: str) -> bool:
        """Return whether the planner finds that no row meets `condition`, whatever the unknown values are."""
        plan = self._try(f"EXPLAIN (FORMAT JSON) SELECT FROM {source} AS inserted WHERE {condition}")
        return plan is not None and plan[0][0][0]["Plan"].get("One-Time Filter") == "false"

    def _runs(self, text: str, numbers: Iterable[int]) -> bool:
        query = f"SELECT ({text}) FROM {self._source(numbers)} AS inserted"  # noqa: S608  safe, as the callers checked
        return self._try(query) is not None

    def _try(self, query: str) -> Sequence[Row[Any]] | None:
        """Return the rows of a query, or None if the server rejects it."""
        savepoint = self._connection.begin_nested()
        try:
            return execute_raw(self._connection, query).all()
        except DBAPIError as error:
            state = getattr(error.orig, "sqlstate", None) or ""
            if not state.startswith(EXPRESSION_ERRORS) or state in CONCURRENT_DDL_ERRORS:
                raise
            return None
        finally:
            savepoint.rollback()


def _unknown(types: dict[str, str]) -> str:
    """Return a FROM clause of the relation `unknown`, of whose columns the planner knows nothing."""
    columns = ", ".join(f"{quote(name)} {kind}" for name, kind in types.items())
    return f" FROM jsonb_to_recordset('[]') AS unknown({columns})" if columns else ""
