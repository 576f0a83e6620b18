"""What the vector index is worth now, and whether to rebuild it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.errors import QueryCanceled
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from syntegra_db.binary_vectors import use_binary_vectors
from syntegra_db.catalog.status import vector_index_trained
from syntegra_db.connecting import connect, unpooled_engine
from syntegra_db.migrations.revision import require_head
from syntegra_db.vectors.building import NEW, OLD, find_indexes
from syntegra_db.vectors.index import VECTOR_INDEX, read_index
from syntegra_db.vectors.measuring import at_setting, one_moment
from syntegra_db.vectors.planning import ALWAYS_EXACT_ROWS, setting_for
from syntegra_db.vectors.sampling import draw, exact_milliseconds, find_truth
from syntegra_db.vectors.standing import estimated_rows
from syntegra_db.vectors.statements import Filters

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

    from syntegra_db.vectors.index import VectorIndex

SECONDS = 10
RECALL = 0.95
QUERIES = 200
FEWEST_QUERIES = 5
SHARE_FOR_EXACT = 0.2
SHARE_FOR_TRUTH = 0.6
# Of a normal distribution, 95 % lie within so many standard errors.
STANDARD_ERRORS = 1.96
# An ivfflat index that has grown tenfold since it was built has .9 of its speed, a hundredfold .57.
GROWTH_TO_REBUILD = 10
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

    `setting` is the `ivfflat.probes` or `hnsw.ef_search` that `search` uses for a recall of .95, and `recall` what it
    finds, give or take `margin`, within which it is in 95 of 100 cases. They and `milliseconds` are None where `search`
    compares all rows. `queries` is how many were tried.
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
    came with the empty table, None when nobody knows. `measured` is None where the time was too short for it. `advice`
    is one sentence, `command` what to run, None when there is nothing to do.
    """

    shape: Shape | None
    leftovers: list[str]
    rows: int
    built_on: int | None
    measured: Measured | None
    advice: str
    command: str | None


def examine(url: URL, seconds: float = SECONDS) -> Condition:
    """Return what the vector index of the database at `url` is, and is worth, measured in about `seconds`.

    Changes nothing. The server ends each statement that takes longer.

    Raises:
        DatabaseBehind, DatabaseAhead, RevisionError: see `require_head`.
        RebuildFailed: another index stands in the way of measuring this one.
        ConnectionFailed: there is no connection; one of its subclasses says why.
    """
    engine = unpooled_engine(url)
    use_binary_vectors(engine)
    with connect(engine) as connection:
        require_head(connection)
        index = read_index(connection)
        shape = _shape(connection)
        standing = find_indexes(connection)
        rows = estimated_rows(connection, Filters())
        built_on = _built_on(connection, index)
    measured = None
    if rows:
        try:
            with one_moment(engine, seconds) as moment:
                measured = _measure(moment, index, rows, time.monotonic() + seconds, seconds)
        except OperationalError as error:
            if not isinstance(error.orig, QueryCanceled):
                raise
    advice, is_due = advise(index, shape, rows, built_on, measured)
    return Condition(
        shape=shape,
        leftovers=sorted(standing.keys() & {NEW, OLD}),
        rows=rows,
        built_on=built_on,
        measured=measured,
        advice=advice,
        command=COMMAND if is_due else None,
    )


def advise(
    index: VectorIndex | None, shape: Shape | None, rows: int, built_on: int | None, measured: Measured | None
) -> tuple[str, bool]:
    """Return what to do, and why, in one sentence, and whether that is a rebuild."""
    if rows <= ALWAYS_EXACT_ROWS:
        return f"Nothing to do: up to {ALWAYS_EXACT_ROWS:,} rows, a search compares all of them, as fast.", False
    if index is None:
        lack = "is invalid" if shape else "is missing"
        return f"Rebuild it: the index {lack}, so that each search compares all rows.", True
    reason = _flaw(index, rows, built_on, measured)
    if reason is not None:
        return f"Rebuild it: {reason}.", True
    if measured is not None and measured.setting is None:
        return "Nothing to do, unless searches are too slow: then try an index of another --method.", False
    return "Nothing to do: it finds what it should.", False


def _flaw(index: VectorIndex, rows: int, built_on: int | None, measured: Measured | None) -> str | None:
    if built_on == 0:
        return "it came with the empty table, and an index that was built on no row finds little or is slow"
    if index.tuning is None:
        return "nobody has measured which setting it needs, so that searches guess it"
    if not index.is_as_measured:
        return "it was built anew by other means since it was measured, so that searches guess which setting it needs"
    if measured is not None and measured.recall is not None and measured.recall + (measured.margin or 0) < RECALL:
        return f"at the setting that searches use, it finds less than the {RECALL:g} that it should"
    if index.method == "ivfflat" and rows >= GROWTH_TO_REBUILD * index.tuning.rows:
        return f"there are {rows / index.tuning.rows:.0f} times the rows that it was built on, which costs speed"
    return None


def _measure(
    connection: Connection, index: VectorIndex | None, rows: int, deadline: float, seconds: float
) -> Measured | None:
    queries = draw(connection, QUERIES, rows)
    if not queries:
        return None
    exact = exact_milliseconds(connection, queries, deadline - (1 - SHARE_FOR_EXACT) * seconds)
    if index is None:
        return Measured(exact)
    setting = setting_for(index, recall=RECALL, limit=10, rows=rows, all_rows=rows)
    if setting is None:
        return Measured(exact)
    allowed = SHARE_FOR_TRUTH * (deadline - time.monotonic())
    truth = find_truth(connection, index, queries, setting, fewest=FEWEST_QUERIES, seconds=allowed)
    found = at_setting(connection, index, truth, setting, deadline)
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
