"""Searches for the nearest texts: what they find, with which settings, and what they leave behind."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import cycle
from typing import TYPE_CHECKING, Any, LiteralString

import numpy as np
import pytest
from pgvector import Vector
from sqlalchemy import insert, text
from sqlalchemy.orm import Session
from vectors.texts import Texts, clustered, fill

from syntegra_db.database import async_session_factory, create_async_engine, create_engine, session_factory
from syntegra_db.models import InvalidEmbedding, TextSummary
from syntegra_db.vectors import InvalidSearch, async_search, search, standing
from syntegra_db.vectors.index import Measurement, Tuning, read_index, read_indexes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from servers import Database, Server
    from syntegra_db.vectors.index import VectorIndex

ROWS = 32_000
CLIENTS = {20: 20, 200: 200, 30_000: 30_000}
BUILT_ON_EMPTY_TABLE = (
    "CREATE INDEX idx_text_summary_embedding ON text_summary USING ivfflat (embedding vector_cosine_ops)"
)
IVFFLAT = f"{BUILT_ON_EMPTY_TABLE} WITH (lists = 180)"
HNSW = "CREATE INDEX idx_text_summary_embedding ON text_summary USING hnsw (embedding vector_cosine_ops) WITH (m = 6)"
HALF = """CREATE INDEX idx_text_summary_embedding ON text_summary
    USING ivfflat ((embedding::halfvec(384)) halfvec_cosine_ops) WITH (lists = 180)"""

ROW_LEVEL_SECURITY: LiteralString = """
    GRANT SELECT ON text_summary TO syntegra_test_tenant;
    ALTER TABLE text_summary ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON text_summary USING (client_id = current_setting('app.client_id')::bigint)
"""
NO_ROW_LEVEL_SECURITY: LiteralString = """
    DROP POLICY own ON text_summary;
    ALTER TABLE text_summary DISABLE ROW LEVEL SECURITY;
    REVOKE ALL ON text_summary FROM syntegra_test_tenant
"""


@pytest.fixture(scope="module")
def filled(server: Server, migrated_template: str) -> Iterator[tuple[Database, Texts]]:
    """A database whose index was built on its rows."""
    with server.database(migrated_template, name="syntegra_test_search") as database:
        database.execute("DROP INDEX idx_text_summary_embedding")
        texts = fill(database, ROWS, CLIENTS)
        database.execute(f"SET maintenance_work_mem = '256MB'; {IVFFLAT}")
        yield database, texts


@pytest.fixture
def texts(filled: tuple[Database, Texts]) -> Texts:
    return filled[1]


@pytest.fixture
def engine(filled: tuple[Database, Texts]) -> Iterator[Engine]:
    """An engine with one connection, so that whoever comes next gets the same."""
    engine = create_engine(filled[0].url, pool_size=1, max_overflow=0)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with session_factory(engine)() as session:
        yield session


def replace_index(session: Session, definition: LiteralString, tuning: Tuning | None = None) -> None:
    """Put another index in the place of the one that stands, until the session's transaction ends."""
    # Alone: parallel workers share that memory, and a container has 64 MB to share.
    session.execute(text("SET LOCAL maintenance_work_mem = '256MB'; SET LOCAL max_parallel_maintenance_workers = 0"))
    session.execute(text("DROP INDEX IF EXISTS idx_text_summary_embedding"))
    session.execute(text(definition))
    if tuning is not None:
        keep(session, tuning)


def keep(session: Session, tuning: Tuning) -> None:
    session.execute(text(f"COMMENT ON INDEX idx_text_summary_embedding IS '{tuning.to_comment()}'"))


def measured(session: Session, *measurements: Measurement) -> Tuning:
    index = read_index(session.connection())
    assert index is not None
    return Tuning(
        rows=ROWS,
        filenode=index.filenode,
        table_filenode=index.table_filenode,
        recall=0.95,
        exact_milliseconds=50.0,
        measured=measurements,
    )


def ids(matches: list[Any]) -> list[int]:
    return [match.row.id for match in matches]


def setting(session: Session, name: str) -> str:
    return str(session.scalar(text(f"SHOW {name}")))


def recall(session: Session, texts: Texts, **filters: Any) -> float:
    """The share of the true ten nearest that searches find, each of which must give ten."""
    mask = texts.clients == filters["client_id"] if "client_id" in filters else None
    shares = []
    for query in texts.queries:
        found = ids(search(session, query, **filters))
        assert len(found) == 10
        shares.append(len({*found} & {*texts.nearest(query, mask)}) / 10)
    return float(np.mean(shares))


@pytest.mark.parametrize("client", [20, 200])
def test_a_small_client_is_answered_exactly(session: Session, texts: Texts, client: int) -> None:
    for query in texts.queries[:10]:
        matches = search(session, query, client_id=client)
        assert ids(matches) == texts.nearest(query, texts.clients == client)
        distances = [match.distance for match in matches]
        expected = [1 - float(texts.embeddings[row - 1] @ query) for row in ids(matches)]
        assert distances == pytest.approx(expected, abs=1e-5)
        assert all(isinstance(match.row, TextSummary) for match in matches)
    assert setting(session, "ivfflat.probes") == "1"


def test_a_table_of_many_texts_is_asked_through_its_index(session: Session, texts: Texts) -> None:
    found = search(session, texts.queries[0])
    assert [match.distance for match in found] == sorted(match.distance for match in found)
    # Nobody measured this index: four times the root of its lists.
    assert setting(session, "ivfflat.probes") == "54"
    assert recall(session, texts) >= 0.95
    assert recall(session, texts, client_id=30_000) >= 0.95


def test_the_setting_that_was_measured_for_the_recall_is_used(session: Session, texts: Texts) -> None:
    few, many = Measurement(3, (0.8, 0.7), 1.0), Measurement(11, (0.97, 0.9), 2.0)
    keep(session, measured(session, few, many, Measurement(90, (1.0, 1.0), 60.0)))
    search(session, texts.queries[0], recall=0.8)
    assert setting(session, "ivfflat.probes") == "3"
    search(session, texts.queries[0])
    assert setting(session, "ivfflat.probes") == "11"
    session.execute(text("SET LOCAL ivfflat.probes = 1"))
    # What takes longer than to compare all rows is not worth asking.
    search(session, texts.queries[0], recall=0.99)
    assert setting(session, "ivfflat.probes") == "1"
    session.rollback()


def test_settings_end_with_the_transaction(engine: Engine, texts: Texts) -> None:
    sessions = session_factory(engine)
    with sessions() as session:
        search(session, texts.queries[0])
        assert setting(session, "ivfflat.iterative_scan") == "relaxed_order"
        session.commit()
    with sessions() as session:
        assert setting(session, "ivfflat.probes") == "1"
        assert setting(session, "ivfflat.iterative_scan") == "off"
        assert setting(session, "plan_cache_mode") == "auto"
        search(session, texts.queries[0])
        session.rollback()
        assert setting(session, "ivfflat.probes") == "1"


def test_recall_1_compares_all_rows(session: Session, texts: Texts) -> None:
    for query in texts.queries[:5]:
        assert ids(search(session, query, recall=1)) == texts.nearest(query)


@pytest.mark.parametrize("length", [1e-30, 1e-9, 1e6, 1e25])
def test_the_length_of_a_query_means_nothing(session: Session, texts: Texts, length: float) -> None:
    replace_index(session, HALF)
    query = texts.queries[0].astype(np.float64) * length
    for client in (20, 30_000):
        assert ids(search(session, query, client_id=client)) == ids(search(session, texts.queries[0], client_id=client))
    session.rollback()


def test_a_vector_of_pgvector_is_one_too(session: Session, texts: Texts) -> None:
    vector: Any = Vector(texts.queries[0])
    assert ids(search(session, vector, client_id=20)) == texts.nearest(texts.queries[0], texts.clients == 20)


def test_numbers_of_numpy_are_numbers(session: Session, texts: Texts) -> None:
    numbers: dict[str, Any] = {"client_id": np.int64(20), "limit": np.int64(5), "max_distance": np.float32(2)}
    found = search(session, texts.queries[0].tolist(), **numbers)
    assert ids(found) == texts.nearest(texts.queries[0], texts.clients == 20, 5)


def test_filters_narrow_and_still_give_as_many_as_asked(session: Session, texts: Texts) -> None:
    mask = (texts.clients == 30_000) & (texts.sentiments == "negative")
    for query in texts.queries[:10]:
        found = search(session, query, client_id=30_000, sentiment="negative", limit=25)
        assert ids(found) == texts.nearest(query, mask, 25)
    assert len(search(session, texts.queries[0], language="es", limit=30)) == 30
    assert search(session, texts.queries[0], language="fr") == []
    assert len(search(session, texts.queries[0], since=datetime(2020, 1, 1, tzinfo=UTC))) == 10
    assert search(session, texts.queries[0], since=datetime(2100, 1, 1, tzinfo=UTC)) == []
    assert len(search(session, texts.queries[0], client_id=20, limit=50)) == 20


def test_max_distance_cuts_what_is_too_far(session: Session, texts: Texts) -> None:
    everything = search(session, texts.queries[0])
    bound = everything[4].distance
    assert ids(search(session, texts.queries[0], max_distance=bound)) == ids(everything)[:5]
    assert search(session, texts.queries[0], max_distance=0) == []


def test_an_index_that_finds_too_few_is_not_the_last_word(
    session: Session, texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 0.8, pgvector stops where a filter has left too few rows, and nobody estimated how few."""

    def old_indexes(connection: Any) -> tuple[VectorIndex, ...]:
        return tuple(replace(index, has_iterative_scans=False) for index in read_indexes(connection))

    monkeypatch.setattr(standing, "read_indexes", old_indexes)
    monkeypatch.setattr("syntegra_db.vectors.searching.rows_about", lambda *_: ROWS)
    assert ids(search(session, texts.queries[0], client_id=20)) == texts.nearest(texts.queries[0], texts.clients == 20)
    assert setting(session, "ivfflat.probes") == "54"
    assert setting(session, "ivfflat.iterative_scan") == "off"


def test_another_index_is_noticed_by_the_next_search(session: Session, texts: Texts) -> None:
    search(session, texts.queries[0])
    replace_index(session, HNSW)
    keep(session, measured(session, Measurement(77, (0.96, 0.9), 1.0)))
    assert len(search(session, texts.queries[0])) == 10
    assert setting(session, "hnsw.ef_search") == "77"
    assert setting(session, "hnsw.iterative_scan") == "relaxed_order"
    session.rollback()


@pytest.mark.parametrize("other", ["idx_text_summary_embedding_old", "idx_text_summary_embedding_new"])
def test_while_two_indexes_stand_either_finds_enough(session: Session, texts: Texts, other: str) -> None:
    """As between the moment when a rebuild has built its index and the one when it has dropped the old one."""
    replace_index(session, HNSW)
    keep(session, measured(session, Measurement(77, (0.96, 0.9), 1.0)))
    session.execute(text(IVFFLAT.replace("idx_text_summary_embedding", other)))
    assert recall(session, texts) >= 0.95
    assert setting(session, "hnsw.ef_search") == "77"
    assert setting(session, "ivfflat.probes") == "54"
    assert setting(session, "ivfflat.iterative_scan") == "relaxed_order"
    session.rollback()


def test_an_index_that_truncate_emptied_is_not_asked(session: Session, texts: Texts) -> None:
    session.execute(text("CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT * FROM text_summary"))
    keep(session, measured(session, Measurement(11, (0.97, 0.9), 2.0)))
    session.execute(text("TRUNCATE text_summary"))
    session.execute(text("INSERT INTO text_summary SELECT * FROM kept"))
    session.execute(text("ANALYZE text_summary"))
    for query in texts.queries[:5]:
        assert ids(search(session, query)) == texts.nearest(query)
    session.rollback()


def test_with_row_level_security_a_small_client_is_answered_exactly(
    server: Server, filled: tuple[Database, Texts]
) -> None:
    database, texts = filled
    with server.role("syntegra_test_tenant") as role:
        database.execute(ROW_LEVEL_SECURITY)
        engine = create_engine(database.url_as(role), pool_size=1, max_overflow=0)
        try:
            for client in (30_000, 200, 30_000):
                with session_factory(engine)() as session:
                    session.execute(text(f"SET LOCAL app.client_id = {client}"))
                    found = ids(search(session, texts.queries[0]))
                    expected = texts.nearest(texts.queries[0], texts.clients == client)
                    assert len({*found} & {*expected}) >= (10 if client == 200 else 7)
                    assert setting(session, "ivfflat.probes") == ("1" if client == 200 else "54")
        finally:
            engine.dispose()
            database.execute(NO_ROW_LEVEL_SECURITY)


def test_settings_and_search_go_over_the_same_connection(filled: tuple[Database, Texts], engine: Engine) -> None:
    """Also where a session takes another server for each statement."""
    database, texts = filled
    second = create_engine(database.url)
    turns = cycle([engine, second])

    class Routing(Session):
        def get_bind(self, *_: Any, bind: Any = None, **__: Any) -> Any:
            return bind or next(turns)

    with Routing() as session:
        search(session, texts.queries[0])
        # The turn of the second, which the search has left alone; it does not even know the setting.
        assert session.scalar(text("SELECT current_setting('ivfflat.probes', true)")) is None
        assert setting(session, "ivfflat.probes") == "54"
    second.dispose()


def test_an_index_in_half_precision_gives_distances_in_full(session: Session, texts: Texts) -> None:
    replace_index(session, HALF)
    matches = search(session, texts.queries[1])
    expected = [1 - float(texts.embeddings[match.row.id - 1] @ texts.queries[1]) for match in matches]
    assert [match.distance for match in matches] == pytest.approx(expected, abs=1e-6)
    assert recall(session, texts) >= 0.95
    assert setting(session, "ivfflat.probes") == "54"
    session.rollback()


def test_a_missing_index_costs_time_only_and_is_said_once(
    session: Session, texts: Texts, caplog: pytest.LogCaptureFixture
) -> None:
    session.execute(text("DROP INDEX idx_text_summary_embedding"))
    with caplog.at_level(logging.WARNING, "syntegra_db"):
        for query in texts.queries[:5]:
            assert ids(search(session, query)) == texts.nearest(query)
    (warning,) = caplog.messages
    assert "no valid index idx_text_summary_embedding" in warning
    assert "`syntegra-db vectors rebuild`" in warning
    session.rollback()


def test_an_engine_of_one_request_remembers_with_the_others(engine: Engine) -> None:
    with engine.connect() as connection:
        known = standing.remembered(connection)
    with engine.execution_options(request=1).connect() as connection:
        assert standing.remembered(connection) is known


def test_the_asyncio_twin_finds_the_same(filled: tuple[Database, Texts], session: Session) -> None:
    database, texts = filled

    async def both() -> list[list[int]]:
        engine = create_async_engine(database.url)
        async with async_session_factory(engine)() as asynchronous:
            found = [
                ids(await async_search(asynchronous, texts.queries[0], client_id=client, limit=15))
                for client in (200, 30_000)
            ]
        await engine.dispose()
        return found

    assert asyncio.run(both()) == [
        ids(search(session, texts.queries[0], client_id=client, limit=15)) for client in (200, 30_000)
    ]


def test_what_has_no_direction_is_not_found(database: Database) -> None:
    engine = create_engine(database.url)
    vector = clustered(np.random.default_rng(1), 1)[0]
    with session_factory(engine)() as session:
        rows = [{"client_id": 1, "text_field": "x", "embedding": one} for one in (vector, [0.0] * 384, None)]
        session.execute(insert(TextSummary), rows)
        assert ids(search(session, vector)) == [1]
        assert ids(search(session, vector, client_id=1)) == [1]
        session.commit()
    engine.dispose()


@pytest.mark.parametrize(
    ("embedding", "complaint"),
    [
        ([0.0] * 384, "A vector of zeros has no direction"),
        ([1.0] * 383, "this vector has 383"),
        ([float("nan")] * 384, "number 0 of this vector is nan"),
        (Vector([0.0] * 384), "A vector of zeros has no direction"),
    ],
)
def test_a_vector_that_cannot_be_searched_for_is_refused(session: Session, embedding: Any, complaint: str) -> None:
    with pytest.raises(InvalidEmbedding, match=complaint):
        search(session, embedding)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"limit": 0}, "limit=0 asks for no row"),
        ({"limit": True}, "limit is no whole number"),
        ({"limit": 2.0}, "limit is no whole number"),
        ({"limit": 2**63}, "limit is no whole number"),
        ({"client_id": 2**63}, "client_id is no whole number"),
        ({"client_id": True}, "client_id is no whole number"),
        ({"max_distance": 2.5}, "max_distance=2.5 is no cosine distance"),
        ({"max_distance": float("nan")}, "max_distance=nan is no cosine distance"),
        ({"sentiment": 5}, "sentiment is of type int; give a str"),
        ({"language": ["es"]}, "language is of type list; give a str"),
        ({"since": date(2026, 1, 1)}, "since is of type date; give a datetime"),
        ({"recall": 0}, "recall=0 is no share"),
        ({"recall": 1.5}, "recall=1.5 is no share"),
        ({"since": datetime(2026, 1, 1)}, "names no time zone"),  # noqa: DTZ001  that is the mistake
    ],
)
def test_an_argument_that_means_nothing_is_refused(
    session: Session, texts: Texts, arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidSearch, match=complaint):
        search(session, texts.queries[0], **arguments)


def test_a_session_in_autocommit_is_refused(filled: tuple[Database, Texts]) -> None:
    database, texts = filled
    engine = create_engine(database.url, isolation_level="AUTOCOMMIT")
    for client in (20, None):
        with session_factory(engine)() as session, pytest.raises(InvalidSearch, match="in autocommit"):
            search(session, texts.queries[0], client_id=client)
    engine.dispose()
