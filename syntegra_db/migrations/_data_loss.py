"""The rows that a downgrade deletes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from psycopg.errors import InsufficientPrivilege, LockNotAvailable, QueryCanceled
from sqlalchemy import func, select, table, text
from sqlalchemy.exc import DBAPIError

from syntegra_db.catalog import load_manifest
from syntegra_db.revisions import all_revisions

if TYPE_CHECKING:
    from sqlalchemy import Connection

COUNT_SECONDS = 2
RELATIVE = re.compile(r"(?P<base>\w+)?(?P<steps>[+-]\d+)")
ESTIMATE = text("SELECT CAST(greatest(reltuples, 0) AS bigint) FROM pg_class WHERE oid = to_regclass(:table)")


def tables_to_drop(revision: str | None, target: str | None) -> list[str]:
    """Return the tables that a migration from `revision` to `target`, as Alembic spells it, drops."""
    known = all_revisions()
    before = _position(revision, known)
    after = _target_position(target, before, known)
    if after >= before:
        return []
    kept = load_manifest(known[after - 1]).tables if after else {}
    return [name for name in load_manifest(known[before - 1]).tables if name not in kept]


def describe_data_loss(connection: Connection, tables: list[str]) -> str:
    """Return the tables with their rows, such as `clusters (6 rows)`, counted, or estimated after 2 s of counting."""
    return ", ".join(f"{name} ({_rows(connection, name)})" for name in tables)


def _rows(connection: Connection, name: str) -> str:
    try:
        connection.execute(text(f"SET LOCAL statement_timeout = '{COUNT_SECONDS}s'"))
        count = connection.scalars(select(func.count()).select_from(table(name))).one()
    except DBAPIError as error:
        if not isinstance(error.orig, QueryCanceled | LockNotAvailable | InsufficientPrivilege):
            raise
        connection.rollback()
        return f"about {connection.scalar(ESTIMATE, {'table': name}) or 0:,} rows"
    finally:
        connection.rollback()
    return f"{count:,} row{'' if count == 1 else 's'}"


def _target_position(target: str | None, current: int, known: list[str]) -> int:
    relative = RELATIVE.fullmatch(target or "")
    if relative is None:
        return _position(target, known)
    base = relative["base"]
    return max(0, (current if base is None else _position(base, known)) + int(relative["steps"]))


def _position(revision: str | None, known: list[str]) -> int:
    """Return how many revisions lead to `revision`: all of them to `head`, or to one that Alembic will reject."""
    if revision is None or revision == "base":
        return 0
    return known.index(revision) + 1 if revision in known else len(known)
