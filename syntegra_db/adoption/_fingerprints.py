"""Rows told by the numbers of them and a checksum of each column, computed by the server, whatever the type.

The checksum of a column is the sum over its rows of a 64-bit hash of the id and the value as text. A sum can be added
to: the rows that an answer fills are summed up when they are filled, and what was there before must be the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from syntegra_db.sql import execute_raw, quote

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import Connection

    from syntegra_db.adoption._model import Backfill


@dataclass(frozen=True)
class Fingerprint:
    """The rows of a table and the checksum of each column."""

    rows: int
    checksums: Mapping[str, Decimal]

    def with_filled(self, checksums: Mapping[str, Decimal]) -> Fingerprint:
        """Return what the fingerprint is once rows have got values with these checksums."""
        return Fingerprint(
            self.rows, {name: value + checksums.get(name, Decimal(0)) for name, value in self.checksums.items()}
        )


def fingerprint(
    connection: Connection, table: str, texts: Mapping[str, str], to_fill: Collection[str] = ()
) -> Fingerprint:
    """Return the fingerprint of a table, given SQL of each column's text; of those `to_fill`, of the values."""
    sums = [_sum(text, only_values=name in to_fill) for name, text in texts.items()]
    statement = f"SELECT {', '.join(['count(*)', *sums])} FROM {quote(table)}"  # noqa: S608  names of the catalog
    found = tuple(execute_raw(connection, statement).one())
    return Fingerprint(found[0], dict(zip(texts, found[1:], strict=True)))


def backfill(connection: Connection, what: Backfill, text: str) -> Decimal:
    """Give a column the values of its answer where it has none, and return their checksum, given SQL of their text."""
    table, column = quote(what.table), quote(what.column)
    checksum: Decimal = execute_raw(
        connection,
        f"WITH filled AS (UPDATE {table} SET {column} = {what.expression} WHERE {column} IS NULL "  # noqa: S608  names of our own
        f"RETURNING id, ({text}) AS text) SELECT {_sum('filled.text')} FROM filled",
    ).scalar_one()
    return checksum


def _sum(text: str, *, only_values: bool = False) -> str:
    which = f" FILTER (WHERE ({text}) IS NOT NULL)" if only_values else ""
    return f"coalesce(sum(hashtextextended(concat(id, '=' || ({text})), 0)){which}, 0)"
