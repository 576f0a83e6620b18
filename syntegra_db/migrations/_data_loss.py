"""The rows and values that a migration deletes or changes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from psycopg import DataError, ProgrammingError
from psycopg.errors import LockNotAvailable, QueryCanceled, UndefinedColumn, UndefinedTable
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from syntegra_db import wording
from syntegra_db.catalog import data_losses, load_manifest
from syntegra_db.revisions import revision_path
from syntegra_db.search_path import declared_search_path, table_name
from syntegra_db.sql import execute_query, quote

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syntegra_db.catalog import DataLoss

logger = logging.getLogger(__name__)

COUNT_SECONDS = 2
ESTIMATE = text("SELECT CAST(greatest(reltuples, 0) AS bigint) FROM pg_class WHERE oid = to_regclass(:table)")


def find_data_loss(before: str | None, after: str | None) -> list[DataLoss]:
    """Return what a migration from revision `before` to `after` deletes or changes, of what exists at `before`.

    Raises:
        RevisionError: a revision has no manifest; see `load_manifest`.
    """
    existing = load_manifest(before).tables
    found: list[DataLoss] = []
    # Step by step, because what one revision drops, the next one can create again without its values.
    for old, new in pairwise(revision_path(before, after) if existing else ()):
        dropped = {(loss.table, loss.column) for loss in found if loss.is_complete}
        found += [
            loss
            for loss in data_losses(load_manifest(old), load_manifest(new))
            if loss.table in existing
            and (loss.column is None or loss.column in existing[loss.table].columns)
            and not {(loss.table, None), (loss.table, loss.column)} & dropped
        ]
    return list(dict.fromkeys(found))


def log_data_loss(connection: Connection, before: str | None, after: str | None) -> None:
    """Log what a migration from `before` to `after` deletes or changes, if anything."""
    if lost := describe_data_loss(connection, find_data_loss(before, after)):
        logger.warning("This drops %s", lost)


@dataclass(frozen=True)
class LostRows:
    """A table, column or label that a migration deletes, with the number of its rows that lose something.

    `is_estimate` means that a count took too long or was not possible: `rows` is about the number of all rows then.
    """

    what: str
    rows: int
    is_estimate: bool
    description: str


def describe_data_loss(connection: Connection, losses: list[DataLoss]) -> str:
    """Return the tables, columns and values with their rows, such as `clusters (6 rows)`; empty if there are none.

    A count that takes more than 2 s is an estimate. What is not installed has nothing to lose.

    Raises:
        UntrustedObject: see `declared_search_path`; not if there is nothing to count.
    """
    return ", ".join(f"{lost.what} ({lost.description})" for lost in count_data_loss(connection, losses))


def count_data_loss(connection: Connection, losses: list[DataLoss]) -> list[LostRows]:
    """Return what is installed of `losses`, with its rows: see `describe_data_loss`."""
    if not losses:
        return []
    with declared_search_path(connection):
        return [lost for loss in losses if (lost := _count(connection, loss)) is not None]


def _count(connection: Connection, loss: DataLoss) -> LostRows | None:
    table = table_name(connection, loss.table)
    condition = loss.condition.replace("{}", quote(loss.column)) if loss.column else loss.condition
    try:
        connection.execute(text(f"SET LOCAL statement_timeout = '{COUNT_SECONDS}s'"))
        count = execute_query(connection, f"SELECT count(*) FROM {table} WHERE {condition}").scalar_one()  # noqa: S608  declared names
    except DBAPIError as error:
        if isinstance(error.orig, UndefinedTable | UndefinedColumn):
            return None
        # The last two: a privilege is missing, or the installed column has another type than the declared one.
        if not isinstance(error.orig, QueryCanceled | LockNotAvailable | DataError | ProgrammingError):
            raise
        connection.rollback()
        estimate = connection.scalar(ESTIMATE, {"table": table}) or 0
        about = f"about {wording.rows(estimate)}"
        about = about if loss.column is None else f"not counted, in {about}"
        return LostRows(loss.label, estimate, is_estimate=True, description=about)
    finally:
        connection.rollback()
    description = wording.rows(count) + (" with a value" if loss.column and loss.is_complete else "")
    return LostRows(loss.label, count, is_estimate=False, description=description)
