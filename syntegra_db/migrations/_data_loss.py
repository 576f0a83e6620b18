"""The rows that a downgrade deletes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.errors import InsufficientPrivilege, LockNotAvailable, QueryCanceled
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from syntegra_db import wording
from syntegra_db.catalog import load_manifest
from syntegra_db.revisions import all_revisions
from syntegra_db.search_path import table_clause, table_name

if TYPE_CHECKING:
    from sqlalchemy import Connection

COUNT_SECONDS = 2
ESTIMATE = text("SELECT CAST(greatest(reltuples, 0) AS bigint) FROM pg_class WHERE oid = to_regclass(:table)")


def tables_to_drop(before: str | None, after: str | None) -> list[str]:
    """Return the tables that a migration from revision `before` to `after` drops."""
    known = [None, *all_revisions()]
    if known.index(after) >= known.index(before):
        return []
    return [name for name in load_manifest(before).tables if name not in load_manifest(after).tables]


def describe_data_loss(connection: Connection, tables: list[str]) -> str:
    """Return the tables with their rows, such as `clusters (6 rows)`, counted, or estimated after 2 s of counting."""
    return ", ".join(f"{name} ({_rows(connection, name)})" for name in tables)


def _rows(connection: Connection, name: str) -> str:
    try:
        connection.execute(text(f"SET LOCAL statement_timeout = '{COUNT_SECONDS}s'"))
        count = connection.scalars(select(func.count()).select_from(table_clause(connection, name))).one()
    except DBAPIError as error:
        if not isinstance(error.orig, QueryCanceled | LockNotAvailable | InsufficientPrivilege):
            raise
        connection.rollback()
        return f"about {wording.rows(connection.scalar(ESTIMATE, {'table': table_name(connection, name)}) or 0)}"
    finally:
        connection.rollback()
    return wording.rows(count)
