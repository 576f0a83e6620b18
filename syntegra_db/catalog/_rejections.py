"""Find what an application added to a table and what can make an insert of the models fail.

The models give a value for each column that they declare, and none for the others, which get their default. The server
decides: it simplifies an expression over such a row, if the expression calls nothing that another role created. What it
cannot decide counts as a rejection.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from syntegra_db.catalog import _rejection_queries as queries
from syntegra_db.catalog._expected_objects import APPLICATION_COLUMN, DECLARED_VERSION_TABLE
from syntegra_db.catalog._expressions import Expression, read_functions, without_domain
from syntegra_db.catalog._inserted_rows import InsertedColumn, InsertedRows
from syntegra_db.catalog._manifest import managed_tables, written_manifests
from syntegra_db.catalog._schema import Rejection, Rejections
from syntegra_db.revisions import VERSION_TABLE
from syntegra_db.search_path import CATALOG_ONLY
from syntegra_db.sql import execute_raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy import Connection, RowMapping

    from syntegra_db.catalog._expressions import Function
    from syntegra_db.catalog._schema import Table

    Rows = Mapping[str, list[RowMapping]]

# Each row has another value.
UNIQUE_COLUMN = "id"
TREES = ("tree", "condition_tree", "domain_trees")
STORED, VIRTUAL = "s", "v"


def find_rejections(
    connection: Connection, tables: Mapping[str, Table], oids: Mapping[str, int]
) -> dict[str, tuple[Rejections, ...]]:
    """Return what can reject an insert into each of the installed `tables`, by name, as `oids` are.

    It sets the search_path of the transaction.
    """
    execute_raw(connection, f"SET LOCAL search_path TO {CATALOG_ONLY}")
    parameters = {"tables": list(oids.values())}
    rows = {
        "columns": connection.execute(queries.COLUMNS, parameters).mappings().all(),
        "constraints": connection.execute(queries.CONSTRAINTS, parameters).mappings().all(),
        "indexes": connection.execute(queries.INDEXES, parameters).mappings().all(),
    }
    functions = read_functions(connection, (tree for parts in rows.values() for row in parts for tree in _trees(row)))
    found = {}
    for name, table in tables.items():
        own = {kind: [row for row in parts if row["table_oid"] == oids[name]] for kind, parts in rows.items()}
        found[name] = tuple(
            Rejections(tuple(declared.columns), tuple(judgement.rejections()))
            for declared in _declarations(name)
            for judgement in [_Judgement(connection, declared, table, own, functions)]
        )
    return found


def _trees(row: RowMapping) -> Iterator[str]:
    for name in TREES:
        value: str | list[str] = row.get(name) or []
        yield from [value] if isinstance(value, str) else value


def _declarations(name: str) -> Iterator[Table]:
    """Yield the declared tables of that name, one for all revisions that declare the same columns.

    It has the constraints and indexes that all of them declare.
    """
    tables = [manifest.tables[name] for manifest in written_manifests().values() if name in manifest.tables]
    for columns in dict.fromkeys(tuple(table.columns) for table in tables):
        same = [table for table in tables if tuple(table.columns) == columns]
        yield replace(
            same[0],
            constraints=_common(table.constraints for table in same),
            indexes=_common(table.indexes for table in same),
        )
    if name == VERSION_TABLE:
        yield DECLARED_VERSION_TABLE


def _common(definitions: Iterable[Mapping[str, str]]) -> dict[str, str]:
    first, *others = definitions
    return {name: text for name, text in first.items() if all(text in other.values() for other in others)}


class _Judgement:
    """What an installed table has that a declared one has not, and whether it can reject a row."""

    def __init__(
        self,
        connection: Connection,
        declared: Table,
        installed: Table,
        rows: Rows,
        functions: Mapping[int, Function],
    ) -> None:
        self._declared, self._installed, self._rows, self._functions = declared, installed, rows, functions
        self._columns = [self._column(row) for row in rows["columns"]]
        self._inserted = InsertedRows(connection, self._columns)

    def rejections(self) -> Iterator[Rejection]:
        """Yield the columns, constraints and indexes that can reject a row, with the actions that prevent it."""
        for column in self._columns:
            if not column.is_declared and (actions := self._actions(column)):
                yield Rejection("columns", column.name, actions)
        for row in self._rows["constraints"]:
            definition = self._installed.constraints[row["name"]]
            if definition not in self._declared.constraints.values() and not self._accepts_constraint(row):
                yield Rejection("constraints", definition)
        for row in self._rows["indexes"]:
            kind = "constraints" if row["is_constraint"] else "indexes"
            definition = getattr(self._installed, kind)[row["name"]]
            is_declared = definition in getattr(self._declared, kind).values()
            # A table has one primary key.
            if not is_declared and (row["is_primary"] or not self._accepts_index(row)):
                yield Rejection(kind, definition)

    def _column(self, row: RowMapping) -> InsertedColumn:
        texts = zip(row["domain_texts"], row["domain_trees"], strict=True)
        checks = tuple(Expression(text, tree, self._functions) for text, tree in texts)
        tree = row["tree"] and without_domain(row["tree"], is_explicit=all(check.is_safe for check in checks))
        return InsertedColumn(
            name=row["name"],
            number=row["number"],
            type=row["base_type"],
            is_declared=row["name"] in self._declared.columns,
            is_required=row["is_required"],
            is_required_by_domain=row["domain_is_required"],
            identity=row["identity"],
            generated=row["generated"],
            cycles=bool(row["cycles"]),
            has_collation=row["has_collation"],
            expression=self._expression(row["expression"], tree),
            domain_checks=checks,
        )

    def _expression(self, text: Any, tree: Any) -> Expression | None:
        return None if tree is None else Expression(text or "", tree, self._functions)

    def _actions(self, column: InsertedColumn) -> tuple[str, ...]:
        """Return what prevents that a column rejects a row; nothing if it rejects none."""
        drop_not_null = ("DROP NOT NULL",) if column.is_required else ()
        if column.identity:
            return ()
        if column.generated and column.expression is not None:
            if column.generated == VIRTUAL and not column.is_required:
                return ()
            if self._inserted.can_fail(column.expression):
                return ("DROP EXPRESSION", *drop_not_null) if column.generated == STORED else drop_not_null
            return drop_not_null if self._generates_null(column.expression) else ()
        if self._inserted.default_can_fail(column):
            return ("DROP DEFAULT", *drop_not_null)
        actions = drop_not_null if self._inserted.default_is_null(column) else ()
        return actions if self._inserted.domain_accepts(column) else (f"TYPE {column.type}", *actions)

    def _generates_null(self, expression: Expression) -> bool:
        sources = (column for column in self._columns if column.number in expression.attributes)
        return not expression.is_never_null or not all(
            column.is_required and column.is_declared and column.name in self._declared.columns for column in sources
        )

    def _accepts_constraint(self, row: RowMapping) -> bool:
        if row["type"] == "c":
            check = self._expression(row["expression"], row["tree"])
            return check is not None and self._inserted.accepts(check)
        filled = [column for column in row["columns"] if not self._inserted.has_null(column)]
        if not filled or (len(filled) < len(row["columns"]) and not row["matches_full"]):
            return True
        return row["columns"] == [APPLICATION_COLUMN] and row["target"] not in managed_tables()

    def _accepts_index(self, row: RowMapping) -> bool:
        condition = self._expression(row["condition"], row["condition_tree"])
        if condition is not None:
            if self._inserted.can_fail(condition):
                return False
            if self._inserted.excludes(condition):
                return True
        expressions = self._expression("", row["tree"])
        if expressions is not None and not self._evaluates(expressions, row):
            return False
        if not row["is_unique"] and not row["is_exclusion"]:
            return True
        if any(map(self._is_unique, row["equal_columns" if row["is_exclusion"] else "columns"])):
            return True
        return not row["nulls_are_equal"] and any(
            self._inserted.has_null(column) if column else expressions and self._inserted.is_null(key, expressions)
            for key, column in zip(row["keys"], row["columns"], strict=True)
        )

    def _evaluates(self, expressions: Expression, row: RowMapping) -> bool:
        """Return whether the expressions of an index, whose trees are in one, fail for no row."""
        keys = (key for key, column in zip(row["keys"], row["columns"], strict=True) if column is None)
        return not any(self._inserted.can_fail(Expression(key, expressions.tree, self._functions)) for key in keys)

    def _is_unique(self, name: str | None) -> bool:
        """Return whether each inserted row has another value in a column."""
        if name is None:
            return False
        column = self._inserted.column(name)
        if column.is_declared:
            return name == UNIQUE_COLUMN
        is_sequence = column.identity == "a" and not column.cycles
        is_generated = column.expression is not None and not column.generated and column.expression.is_unique
        return is_sequence or is_generated
