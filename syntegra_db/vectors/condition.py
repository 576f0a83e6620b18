"""What the vector index is worth now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.errors import QueryCanceled
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from syntegra_db.binary_vectors import enable_binary_vectors
from syntegra_db.catalog.status import vector_index_trained
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import RebuildFailed
from syntegra_db.migrations.revision import require_head
from syntegra_db.vectors.advice import RECALL, Evidence, advise
from syntegra_db.vectors.building import find_indexes
from syntegra_db.vectors.index import NEW, OLD, VECTOR_INDEX, read_index
from syntegra_db.vectors.measuring import at_setting, one_moment, require_use
from syntegra_db.vectors.planning import setting_for
from syntegra_db.vectors.sampling import draw, exact_milliseconds, find_truth
from syntegra_db.vectors.standing import estimated_rows
from syntegra_db.vectors.statements import Filters
from syntegra_db.vectors.turn import is_rebuilding

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

    from syntegra_db.vectors.index import VectorIndex

SECONDS = 10
QUERIES = 200
FEWEST_QUERIES = 5
SHARE_FOR_EXACT = 0.2
SHARE_FOR_TRUTH = 0.6
# Of a normal distribution, 95 % lie within so many standard errors.
STANDARD_ERRORS = 1.96
COMMAND = "syntegra-db vectors rebuild"
SHAPE = text("""
    SELECT amname, indisvalid, pg_relation_size(pg_class.oid),
           pg_get_indexdef(pg_class.oid) LIKE '%halfvec%',
           (SELECT json_object_agg(option_name, option_value::int) FROM pg_options_to_table(reloptions))
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
    WHERE indrelid = to_regclass('text_summary') AND relname = :index
""")


@dataclass(frozen=True)
class Shape:
    """The index of the name as the catalog has it, valid or not; `options` are `lists`, `m` or `ef_construction`."""

    method: str
    options: dict[str, int]
    is_half: bool
    is_valid: bool
    bytes: int


@dataclass(frozen=True)
class Measured:
    """What searches for ten rows took and found now.

    `setting` is the `ivfflat.probes` or `hnsw.ef_search` that `search` uses for a recall of .95, None where it compares
    all rows. `recall` is what it finds, give or take `margin`, within which it is in 95 of 100 cases. They and
    `milliseconds` are None too where the time was too short. `queries` is how many were tried.
    """

    exact_milliseconds: float
    setting: int | None = None
    recall: float | None = None
    margin: float | None = None
    milliseconds: float | None = None
    queries: int = 0


@dataclass(frozen=True)
class Condition:
    """The vector index as it stands.

    `rows` is about how many rows have an embedding now, `built_on` how many had when the index was built: 0 when it
    came with the empty table, None when nobody knows. `leftovers` are the indexes of a rebuild that was interrupted, or
    is running. `measured` is None where it could not be measured, and `unmeasured_because` then says why. `advice` is
    one sentence, `command` what to run, None when there is nothing to do.
    """

    shape: Shape | None
    leftovers: list[str]
    rows: int
    built_on: int | None
    measured: Measured | None
    unmeasured_because: str | None
    advice: str
    command: str | None


def examine(url: URL, seconds: float = SECONDS) -> Condition:
    """Return what the vector index of the database at `url` is, and is worth, measured in about `seconds`.

    Changes nothing. The server ends each statement that takes longer.

    Raises:
        DatabaseBehind, DatabaseAhead, RevisionError: see `require_head`.
        ConnectionFailed: there is no connection; one of its subclasses says why.
    """
    engine = unpooled_engine(url)
    enable_binary_vectors(engine)
    with connect(engine) as connection:
        require_head(connection)
        index = read_index(connection)
        shape = _shape(connection)
        standing = find_indexes(connection)
        rows = estimated_rows(connection, Filters())
        built_on = _built_on(connection, index)
        rebuilding = is_rebuilding(connection)
    leftovers = sorted(standing.keys() & {NEW, OLD})
    rivals = [name for name in leftovers if standing[name]]
    measured: Measured | None = None
    because: str | None = f"{', '.join(rivals)} serves searches as well"
    if not rivals:
        measured, because = _try_to_measure(engine, index, rows, seconds)
    advice, is_due = advise(Evidence(rebuilding, index, shape, leftovers, rows, built_on, measured))
    return Condition(
        shape=shape,
        leftovers=leftovers,
        rows=rows,
        built_on=built_on,
        measured=measured,
        unmeasured_because=because,
        advice=advice,
        command=COMMAND if is_due else None,
    )


def _try_to_measure(
    engine: Engine, index: VectorIndex | None, rows: int, seconds: float
) -> tuple[Measured | None, str | None]:
    """Return what was measured, or None and why nothing was."""
    try:
        with one_moment(engine, seconds) as moment:
            measured = _measure(moment, index, rows, seconds) if rows else None
    except RebuildFailed as error:
        return None, str(error)
    except OperationalError as error:
        if not isinstance(error.orig, QueryCanceled):
            raise
        return None, f"{seconds:g} s were too short; allow more with --seconds"
    return measured, None if measured else "there is nothing to search"


def _measure(connection: Connection, index: VectorIndex | None, rows: int, seconds: float) -> Measured | None:
    deadline = time.monotonic() + seconds
    queries = draw(connection, QUERIES, rows)
    if not queries:
        return None
    exact = exact_milliseconds(connection, queries, deadline - (1 - SHARE_FOR_EXACT) * seconds)
    if index is None:
        return Measured(exact)
    setting = setting_for(index, recall=RECALL, limit=10, rows=rows, all_rows=rows)
    if setting is None:
        return Measured(exact)
    require_use(connection, index, queries[0], setting)
    try:
        allowed = SHARE_FOR_TRUTH * (deadline - time.monotonic())
        truth = find_truth(connection, index, queries, setting, fewest=FEWEST_QUERIES, seconds=allowed)
        found = at_setting(connection, index, truth, setting, deadline)
    except OperationalError as error:
        if not isinstance(error.orig, QueryCanceled):
            raise
        return Measured(exact, setting)
    margin = STANDARD_ERRORS * found.error[0]
    return Measured(exact, setting, found.recall[0], margin, found.milliseconds, found.queries)


def _shape(connection: Connection) -> Shape | None:
    row = connection.execute(SHAPE, {"index": VECTOR_INDEX}).first()
    if row is None:
        return None
    method, is_valid, size, is_half, options = row
    return Shape(method, options or {}, is_half, is_valid, size)


def _built_on(connection: Connection, index: VectorIndex | None) -> int | None:
    if index is None:
        return None
    if index.built_on is not None:
        return index.built_on
    return 0 if index.tuning is None and vector_index_trained(connection) is False else None
