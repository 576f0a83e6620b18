"""Count the rows whose values a column of another type would cut or round if it got its declared type."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.sql import execute_query, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection

    from syntegra_db.catalog._findings import Finding
    from syntegra_db.catalog._introspection import LiveCatalog
    from syntegra_db.catalog._schema import Column, Schema

# The types whose text is always a number.
NUMBERS = ("bigint", "integer", "numeric", "real")


def count_lossy_rows(
    connection: Connection, declared: Schema, installed: LiveCatalog, findings: Iterable[Finding]
) -> list[Finding]:
    """Return `findings`; those about types state how many rows do not fit, if the role may read all of the table."""
    conditions = {
        (f"column {table}.{name}", column.type): (table, condition)
        for table, name, column, condition in _conditions(declared, installed)
    }
    counted = []
    for finding in findings:
        table, condition = conditions.get((finding.object, finding.expected), (None, None))
        if table in installed.privileges.hidden:
            uncounted = (
                f"Policies hide rows from this role, so it cannot count those that do not fit {finding.expected}."
            )
            impact = f"{finding.impact} {uncounted}"
            counted.append(replace(finding, impact=impact))
        elif table is not None:
            query = "SELECT pg_catalog.count(*) FROM {}.{} WHERE {}"
            query = query.format(quote(installed.schema_name), quote(table), condition)
            rows = execute_query(connection, query).scalar_one()
            impact = f"{finding.impact} Rows that do not fit {finding.expected}: {rows:,}."
            counted.append(replace(finding, impact=impact))
        else:
            counted.append(finding)
    return counted


def _conditions(declared: Schema, installed: LiveCatalog) -> Iterator[tuple[str, str, Column, str]]:
    for table, expected in declared.tables.items():
        found = installed.schema.tables.get(table)
        if found is None or found.kind != expected.kind or "SELECT" in installed.privileges.missing.get(table, ()):
            continue
        for name, column in expected.columns.items():
            other = found.columns.get(name)
            condition = ddl.loss_condition(f"{quote(name)}::text", column.type)
            if other is not None and condition is not None and _may_not_fit(column, other):
                yield table, name, column, condition


def _may_not_fit(declared: Column, installed: Column) -> bool:
    return declared.type != installed.type and (
        declared.type != "double precision" or installed.type.startswith(NUMBERS)
    )
