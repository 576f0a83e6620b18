"""Cached index state per connection pool and schema, and the settings that a search applies."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import psycopg

from syntegra_db.client_setting import ALL_ROWS, BOUND_ROWS, LOOKUP_FUNCTION, OWN_ROWS, SETTING
from syntegra_db.errors import InvalidSearchArgument
from syntegra_db.search_path import schema_of, table_name
from syntegra_db.sql import catalog_query, execute_raw, literal, qualify_calls, qualify_name
from syntegra_db.vectors._index import SETTING_NAMES, read_indexes
from syntegra_db.vectors._statements import Filters, estimate_statement, rebuild_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Pool

    from syntegra_db.models.embeddings import EmbeddingColumn, Method
    from syntegra_db.vectors._index import VectorIndex

logger = logging.getLogger(__name__)

CACHE_TTL_SECONDS = 30
MAX_CACHED_ESTIMATES = 10_000
MAX_CACHED_SCHEMAS = 1_000
# Filenodes change on REINDEX and TRUNCATE: a difference shows that a cached `IndexState` is out of date.
VALID_FILENODES = qualify_calls("""SELECT ARRAY (
    SELECT pg_relation_filenode(indexrelid)::bigint FROM pg_index
    WHERE indisvalid AND indexrelid = ANY (ARRAY[{indexes}])
)""")
# The policies for SELECT of another kind may hide rows by any rule, such as another setting.
TABLE_STATE = catalog_query("""
    SELECT relrowsecurity, greatest(reltuples, 0)::bigint, NOT EXISTS (
        SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND polcmd IN ('r', '*')
          AND pg_get_expr(polqual, polrelid) <> ALL (:known)
    )
    FROM pg_class WHERE oid = to_regclass(:table)
""")
# What decides which rows the policies of the package show. The client of a bound login depends on its name only.
READ_SCOPE = qualify_calls(f"SELECT current_user::text, current_setting('{SETTING}', true)")
# After five runs of a prepared statement, the server would use one generic plan for every `client_id`.
CUSTOM_PLAN = {"plan_cache_mode": "force_custom_plan"}


@dataclass(frozen=True)
class IndexState:
    """The indexes that a search may use, and estimated numbers of rows with an embedding: in total and per filter.

    `filenodes` are those of all valid indexes with one of the column's `index_names`, including any that no search can
    use. `index` is the one with the declared name if it is valid. With row-level security, where each client sees other
    rows, `embeddings` counts all rows of the table, and `estimates` are also per role and client. They are None if it
    has policies that are not of the package. `expires` is in seconds of `time.monotonic`.
    """

    indexes: tuple[VectorIndex, ...]
    index: VectorIndex | None
    filenodes: frozenset[int]
    embeddings: int
    expires: float
    has_row_security: bool
    estimates: dict[tuple[Any, ...], int] | None

    @property
    def extension_schema(self) -> str | None:
        """The schema of pgvector if there is an index, else None."""
        return self.indexes[0].extension_schema if self.indexes else None


# By pool, which an engine shares with the engines that its execution_options() returns; then by embedding, and by the
# schema to which the connection translates that of the models.
_states_by_pool: WeakKeyDictionary[Pool, dict[tuple[EmbeddingColumn, str | None], IndexState]] = WeakKeyDictionary()
_warned_pools: WeakKeyDictionary[Pool, set[EmbeddingColumn]] = WeakKeyDictionary()


def get_index_state(connection: Connection, embedding: EmbeddingColumn) -> IndexState:
    """Return the cached index state of the connection's pool and schema, refreshed after 30 s."""
    state = _states_by_pool.get(connection.engine.pool, {}).get((embedding, schema_of(connection)))
    if state is not None and time.monotonic() < state.expires:
        return state
    return refresh_index_state(connection, embedding)


def refresh_index_state(connection: Connection, embedding: EmbeddingColumn) -> IndexState:
    """Refresh the cached index state; warn once per pool if the index is missing."""
    pool = connection.engine.pool
    indexes = read_indexes(connection, embedding)
    parameters = {"table": table_name(connection, embedding.table), "known": known_policies(connection)}
    found = connection.execute(TABLE_STATE, parameters).one_or_none()
    has_row_security, rows, is_known = found or (False, 0, True)
    state = IndexState(
        indexes,
        index=next((index for index in indexes if index.name == embedding.index), None),
        filenodes=frozenset(execute_raw(connection, _select_valid_filenodes(connection, embedding)).scalar_one()),
        embeddings=rows if has_row_security else estimate_rows(connection, embedding, Filters()),
        expires=time.monotonic() + CACHE_TTL_SECONDS,
        has_row_security=has_row_security,
        estimates=None if has_row_security and not is_known else {},
    )
    warned = _warned_pools.setdefault(pool, set())
    if state.index is None and embedding not in warned:
        warned.add(embedding)
        logger.warning(
            "No valid index %s exists, so each search scans all matching rows; run `%s`",
            embedding.index,
            rebuild_command(embedding),
        )
    states = _states_by_pool.setdefault(pool, {})
    if len(states) >= MAX_CACHED_SCHEMAS:
        states.clear()
    states[embedding, schema_of(connection)] = state
    return state


def estimate_rows_cached(
    connection: Connection, embedding: EmbeddingColumn, state: IndexState, filters: Filters
) -> int:
    """Return `estimate_rows`, cached in `state`: with row-level security for each role and client."""
    if state.estimates is None:
        return estimate_rows(connection, embedding, filters)
    parameters = filters.as_parameters()
    if not parameters and not state.has_row_security:
        return state.embeddings
    scope = fetch_row(connection, READ_SCOPE) if state.has_row_security else ()
    key = (*scope, *parameters.items())
    rows = state.estimates.get(key)
    if rows is None:
        rows = estimate_rows(connection, embedding, filters)
        # The same timestamp is rarely searched for twice.
        if "since" not in parameters and len(state.estimates) < MAX_CACHED_ESTIMATES:
            state.estimates[key] = rows
    return rows


def fetch_row(connection: Connection, statement: str) -> tuple[Any, ...]:
    """Return the row of a statement without parameters, in half of the time that SQLAlchemy takes for it."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement)
        return tuple(cursor.fetchone() or ())
    except psycopg.Error:
        # SQLAlchemy raises its own error, and replaces a connection that is lost.
        return tuple(execute_raw(connection, statement).one())
    finally:
        cursor.close()


def known_policies(connection: Connection) -> list[str]:
    """Return the conditions of the package's policies as the server prints them."""
    schema = schema_of(connection)
    names = {LOOKUP_FUNCTION, qualify_name(schema, LOOKUP_FUNCTION)}
    return [OWN_ROWS, ALL_ROWS, *(BOUND_ROWS.format(lookup=name) for name in sorted(names))]


def estimate_rows(connection: Connection, embedding: EmbeddingColumn, filters: Filters) -> int:
    """Return the planner's estimate of the rows with an embedding that pass `filters`."""
    parameters = filters.as_parameters()
    statement = estimate_statement(embedding, tuple(parameters), schema_of(connection))
    (plan,) = connection.scalars(statement, parameters).one()
    rows: int = plan["Plan"]["Plan Rows"]
    return rows


def require_transaction(connection: Connection) -> None:
    """Raise `InvalidSearchArgument` in autocommit, where the settings would not apply to the next statement."""
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        raise InvalidSearchArgument(
            "This session is in autocommit, so the settings would no longer apply when the search runs; use a session "
            "with transactions."
        )


def configure_scan(
    connection: Connection, indexes: Sequence[VectorIndex], settings: Mapping[Method, int]
) -> frozenset[int]:
    """Apply the settings for a scan of `indexes` of one column until the transaction ends, in one round trip.

    Return the filenodes of the valid indexes, to compare them with `IndexState.filenodes`.
    """
    values = {SETTING_NAMES[method]: f"{setting:d}" for method, setting in settings.items()} | CUSTOM_PLAN
    if indexes[0].has_iterative_scans:
        values |= {f"{method}.iterative_scan": "relaxed_order" for method in settings}
    calls = "".join(f", pg_catalog.set_config('{name}', '{value}', true)" for name, value in values.items())
    filenodes, *_ = execute_raw(connection, _select_valid_filenodes(connection, indexes[0].embedding) + calls).one()
    return frozenset(filenodes)


def _select_valid_filenodes(connection: Connection, embedding: EmbeddingColumn) -> str:
    names = (literal(table_name(connection, name)) for name in embedding.index_names)
    return VALID_FILENODES.format(indexes=", ".join(f"pg_catalog.to_regclass({name})" for name in names))
