"""What a search has to know of the database behind its engine, and what it sets there."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from syntegra_db.vectors.index import SETTING_NAMES, VECTOR_INDEX, read_index
from syntegra_db.vectors.statements import Filters, InvalidSearch, estimate_statement

if TYPE_CHECKING:
    from sqlalchemy import Connection, Pool

    from syntegra_db.vectors.index import VectorIndex

logger = logging.getLogger(__name__)

REMEMBERED_FOR_SECONDS = 30
MOST_ESTIMATES = 10_000
STANDING_INDEX = f"SELECT to_regclass('{VECTOR_INDEX}')::oid::bigint"
# After five runs of a prepared statement, the server plans for a client of average size.
PLAN_FOR_THIS_CLIENT = {"plan_cache_mode": "force_custom_plan"}


@dataclass(frozen=True)
class Standing:
    """The vector index, if there is a valid one, and about how many rows have an embedding, of all and by filter.

    `expires` is on the clock of `time.monotonic`, in seconds.
    """

    index: VectorIndex | None
    embeddings: int
    expires: float
    estimates: dict[tuple[tuple[str, Any], ...], int] = field(default_factory=dict)


# By pool, which an engine shares with those of its execution_options().
_remembered: WeakKeyDictionary[Pool, Standing] = WeakKeyDictionary()
_said_missing: WeakSet[Pool] = WeakSet()


def remembered(connection: Connection) -> Standing:
    """Return what was last seen behind the engine of `connection`, or look when that was 30 s ago."""
    standing = _remembered.get(connection.engine.pool)
    return standing if standing is not None and time.monotonic() < standing.expires else look(connection)


def look(connection: Connection) -> Standing:
    """Look at the catalog and remember what stands there; that the index is missing is said once an engine."""
    pool = connection.engine.pool
    index = read_index(connection)
    if index is None and pool not in _said_missing:
        _said_missing.add(pool)
        logger.warning(
            "There is no valid index %s, so that each search compares all rows that match; build it with "
            "`syntegra-db vectors rebuild`",
            VECTOR_INDEX,
        )
    expires = time.monotonic() + REMEMBERED_FOR_SECONDS
    _remembered[pool] = standing = Standing(index, estimated_rows(connection, Filters()), expires)
    return standing


def rows_about(connection: Connection, standing: Standing, filters: Filters) -> int:
    """Return about how many rows with an embedding pass `filters`, remembered as long as `standing` is."""
    given = filters.given()
    if not given:
        return standing.embeddings
    key = tuple(given.items())
    rows = standing.estimates.get(key)
    if rows is None:
        rows = estimated_rows(connection, filters)
        # A point in time is hardly asked for twice.
        if "since" not in given and len(standing.estimates) < MOST_ESTIMATES:
            standing.estimates[key] = rows
    return rows


def estimated_rows(connection: Connection, filters: Filters) -> int:
    """Return about how many rows with an embedding pass `filters`: the planner's estimate, from its statistics."""
    given = filters.given()
    (plan,) = connection.scalars(estimate_statement(tuple(given)), given).one()
    rows: int = plan["Plan"]["Plan Rows"]
    return rows


def require_transaction(connection: Connection) -> None:
    """Refuse autocommit, also where a search needs no setting yet: with more rows it will.

    Raises:
        InvalidSearch: the connection is in autocommit.
    """
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        raise InvalidSearch(
            "This session is in autocommit, where a setting ends before the search that needs it; give one that is not."
        )


def set_for_scan(connection: Connection, index: VectorIndex, setting: int) -> bool:
    """Set what a scan of `index` needs, until the transaction ends, and tell whether it is still the one that stands.

    One round trip.
    """
    settings = {SETTING_NAMES[index.method]: f"{setting:d}", **PLAN_FOR_THIS_CLIENT}
    if index.has_iterative_scans:
        settings[f"{index.method}.iterative_scan"] = "relaxed_order"
    calls = "".join(f", set_config('{name}', '{value}', true)" for name, value in settings.items())
    oid, *_ = connection.exec_driver_sql(STANDING_INDEX + calls).one()
    return bool(oid == index.oid)
