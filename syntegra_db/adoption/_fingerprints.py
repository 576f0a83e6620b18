"""Fingerprints of tables: row counts and a checksum of each column, computed by the server, independent of types.

The checksum of a column is the sum over its rows of a 64-bit hash of the id and the value as text. Sums can be added:
the backfilled rows are summed when they are updated, and the remaining rows must have the sum from before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from syntegra_db.sql import execute_query, quote

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from decimal import Decimal

    from sqlalchemy import Connection

    from syntegra_db.adoption._model import Backfill


@dataclass(frozen=True)
class Fingerprint:
    """The number of rows of a table and the checksum of each column."""

    rows: int
    checksums: Mapping[str, Decimal]

    def with_backfilled(self, column: str, checksum: Decimal) -> Fingerprint:
        """Return the fingerprint after a backfill of `column` whose new values have `checksum`."""
        if column not in self.checksums:
            return self
        return Fingerprint(self.rows, {**self.checksums, column: self.checksums[column] + checksum})


def fingerprint(
    connection: Connection, table: str, texts: Mapping[str, str], to_backfill: Collection[str] = ()
) -> Fingerprint:
    """Return the fingerprint of a table, given SQL of each column as text; NULLs in `to_backfill` are not summed."""
    sums = [_sum(text, skip_null=name in to_backfill) for name, text in texts.items()]
    statement = f"SELECT {', '.join(['count(*)', *sums])} FROM {quote(table)}"  # noqa: S608  names of the catalog
    found = tuple(execute_query(connection, statement).one())
    return Fingerprint(found[0], dict(zip(texts, found[1:], strict=True)))


def backfill(connection: Connection, column: Backfill, text: str) -> Decimal:
    """Set the supplied value where a column is NULL, and return the checksum of the new values, given SQL as text."""
    table, name = quote(column.table), quote(column.column)
    checksum: Decimal = execute_query(
        connection,
        f"WITH filled AS (UPDATE {table} SET {name} = {column.expression} WHERE {name} IS NULL "  # noqa: S608  declared names
        f"RETURNING id, ({text}) AS text) SELECT {_sum('filled.text')} FROM filled",
    ).scalar_one()
    return checksum


def _sum(text: str, *, skip_null: bool = False) -> str:
    only_values = f" FILTER (WHERE ({text}) IS NOT NULL)" if skip_null else ""
    return f"coalesce(sum(hashtextextended(concat(id, '=' || ({text})), 0)){only_values}, 0)"
