"""What the sessions of a backup, a restore and a rollback have in common: long transactions, short waits for locks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from sqlalchemy import exists, func, select, table, text

from syntegra_db.catalog import load_manifest
from syntegra_db.migrations._retry import retry_in_savepoint
from syntegra_db.revisions import all_revisions
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg
    from sqlalchemy import Connection

    from syntegra_db.migrations._options import MigrationOptions

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
TRANSACTION_TIMEOUT_SINCE = 17
EXISTING_TABLES = text("""
    SELECT relname FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'p')
      AND relname = ANY (:names)
""")


class RowProgress(NamedTuple):
    """How far the work is: rows of how many, and bytes of a file written or of rows sent."""

    rows: int
    total_rows: int
    bytes: int


def psycopg_connection(connection: Connection) -> psycopg.Connection:
    """Return psycopg's connection beneath."""
    return cast("psycopg.Connection", connection.connection.dbapi_connection)


def server_version(connection: Connection) -> int:
    """Return the server's major version, from what it said when the session began."""
    return psycopg_connection(connection).info.server_version // 10_000


def begin_unlimited_transaction(connection: Connection) -> None:
    """Begin the transaction if need be, without limits of time, and so that hidden rows are an error.

    Its snapshot is not yet taken by that.
    """
    limits = ["statement_timeout", "idle_in_transaction_session_timeout"]
    if server_version(connection) >= TRANSACTION_TIMEOUT_SINCE:
        limits.append("transaction_timeout")
    for limit in limits:
        connection.exec_driver_sql(f"SET LOCAL {limit} = 0")
    connection.exec_driver_sql("SET LOCAL row_security = off")


def tables_at_revision(revision: str) -> list[str]:
    """Return the tables of `revision` in the order of the revisions that made them, referenced ones first."""
    known = all_revisions()
    earlier = known[: known.index(revision) + 1]
    kept = load_manifest(revision).tables
    return [
        name
        for name in dict.fromkeys(name for number in earlier for name in load_manifest(number).tables)
        if name in kept
    ]


def existing_tables(connection: Connection, names: Iterable[str]) -> list[str]:
    """Return those of `names` that are tables of the current schema, in the order given."""
    there = set(connection.scalars(EXISTING_TABLES, {"names": list(names)}))
    return [name for name in names if name in there]


def nonempty_tables(connection: Connection, tables: Iterable[str]) -> list[str]:
    """Return those of `tables` that hold a row."""
    return [name for name in tables if connection.scalar(select(exists().select_from(table(name))))]


def count_rows(connection: Connection, tables: Iterable[str]) -> dict[str, int]:
    """Return the rows of each of `tables`."""
    return {name: connection.scalars(select(func.count()).select_from(table(name))).one() for name in tables}


def lock_tables(connection: Connection, tables: Iterable[str], mode: str, options: MigrationOptions) -> None:
    """Lock `tables` in `mode` until the transaction ends, with retries.

    Raises:
        LockTimeout: other sessions kept one of them locked.
    """
    names = ", ".join(quote(name) for name in tables)
    if names:
        retry_in_savepoint(
            connection, lambda: connection.exec_driver_sql(f"LOCK TABLE {names} IN {mode} MODE"), options
        )
