"""What a search has to know of the database behind its engine, and what it sets there."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import text

from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors._index import INDEX_NAMES, SETTING_NAMES, read_indexes
from syntegra_db.vectors._statements import Filters, InvalidSearchArgument, estimate_statement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Pool

    from syntegra_db.vectors._index import Method, VectorIndex

logger = logging.getLogger(__name__)

CACHE_TTL_SECONDS = 30
MAX_CACHED_ESTIMATES = 10_000
# Of the valid indexes, what is another after REINDEX and TRUNCATE.
VALID_FILENODES = f"""SELECT ARRAY (
    SELECT pg_relation_filenode(indexrelid)::bigint FROM pg_index
    WHERE indisvalid AND indexrelid IN ({", ".join(f"to_regclass('{name}')" for name in INDEX_NAMES)})
)"""  # noqa: S608  of constants
ROW_SECURITY = text("""
    SELECT relrowsecurity, greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass('text_summary')
""")
# After five runs of a prepared statement, the server plans for a client of average size.
CUSTOM_PLAN = {"plan_cache_mode": "force_custom_plan"}


@dataclass(frozen=True)
class IndexState:
    """The indexes that a search may go through, and about how many rows have an embedding, of all and by filter.

    `files` are the filenodes of the valid indexes of the names, also of those that serve no search. With row-level
    security, in which each transaction has rows of its own, `embeddings` counts all rows of the table, and `estimates`
    are None. `expires` is on the clock of `time.monotonic`, in seconds.
    """

    indexes: tuple[VectorIndex, ...]
    filenodes: frozenset[int]
    embeddings: int
    expires: float
    estimates: dict[tuple[tuple[str, Any], ...], int] | None

    @property
    def index(self) -> VectorIndex | None:
        """The index of the real name, for which a search is meant."""
        return self.indexes[0] if self.indexes and self.indexes[0].name == VECTOR_INDEX else None


# By pool, which an engine shares with those of its execution_options().
_state_by_pool: WeakKeyDictionary[Pool, IndexState] = WeakKeyDictionary()
_warned_pools: WeakSet[Pool] = WeakSet()


def get_index_state(connection: Connection) -> IndexState:
    """Return what was last seen behind the engine of `connection`, or look when that was 30 s ago."""
    standing = _state_by_pool.get(connection.engine.pool)
    return standing if standing is not None and time.monotonic() < standing.expires else refresh_index_state(connection)


def refresh_index_state(connection: Connection) -> IndexState:
    """Look at the catalog and remember what stands there; that the index is missing is said once an engine."""
    pool = connection.engine.pool
    indexes = read_indexes(connection)
    has_row_security, rows = connection.execute(ROW_SECURITY).one_or_none() or (False, 0)
    standing = IndexState(
        indexes,
        filenodes=frozenset(connection.exec_driver_sql(VALID_FILENODES).scalar_one()),
        embeddings=rows if has_row_security else estimate_rows(connection, Filters()),
        expires=time.monotonic() + CACHE_TTL_SECONDS,
        estimates=None if has_row_security else {},
    )
    if standing.index is None and pool not in _warned_pools:
        _warned_pools.add(pool)
        logger.warning(
            "There is no valid index %s, so that each search compares all rows that match; build it with "
            "`syntegra-db vectors rebuild`",
            VECTOR_INDEX,
        )
    _state_by_pool[pool] = standing
    return standing


def estimate_rows_cached(connection: Connection, standing: IndexState, filters: Filters) -> int:
    """Return about how many rows with an embedding pass `filters`, remembered as long as `standing` is."""
    if standing.estimates is None:
        return estimate_rows(connection, filters)
    given = filters.as_parameters()
    if not given:
        return standing.embeddings
    key = tuple(given.items())
    rows = standing.estimates.get(key)
    if rows is None:
        rows = estimate_rows(connection, filters)
        # A point in time is hardly asked for twice.
        if "since" not in given and len(standing.estimates) < MAX_CACHED_ESTIMATES:
            standing.estimates[key] = rows
    return rows


def estimate_rows(connection: Connection, filters: Filters) -> int:
    """Return about how many rows with an embedding pass `filters`: the planner's estimate, from its statistics."""
    given = filters.as_parameters()
    (plan,) = connection.scalars(estimate_statement(tuple(given)), given).one()
    rows: int = plan["Plan"]["Plan Rows"]
    return rows


def require_transaction(connection: Connection) -> None:
    """Refuse autocommit, also where a search needs no setting yet: with more rows it will.

    Raises:
        InvalidSearch: the connection is in autocommit.
    """
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        raise InvalidSearchArgument(
            "This session is in autocommit, where a setting ends before the search that needs it; give one that is not."
        )


def configure_scan(
    connection: Connection, indexes: Sequence[VectorIndex], settings: Mapping[Method, int]
) -> frozenset[int]:
    """Set what a scan of `indexes` needs, until the transaction ends, and return the files of those that stand now.

    One round trip.
    """
    values = {SETTING_NAMES[method]: f"{setting:d}" for method, setting in settings.items()} | CUSTOM_PLAN
    if indexes[0].has_iterative_scans:
        values |= {f"{method}.iterative_scan": "relaxed_order" for method in settings}
    calls = "".join(f", set_config('{name}', '{value}', true)" for name, value in values.items())
    files, *_ = connection.exec_driver_sql(VALID_FILENODES + calls).one()
    return frozenset(files)
