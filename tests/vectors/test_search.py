"""Searches for the nearest texts: results, settings, and invalid arguments."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pgvector import Vector
from sqlalchemy import insert, text

from support.search import HALF, calibration_of, current_setting, ids, recall, replace_index, store_calibration
from support.texts import Texts, clustered_vectors
from syntegra_db.database import async_session_factory, create_async_engine, create_engine, session_factory
from syntegra_db.models import InvalidEmbedding, TextSummary
from syntegra_db.vectors import InvalidSearchArgument, async_search, search
from syntegra_db.vectors._index import CalibrationPoint

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from support.servers import Database


@pytest.mark.parametrize("client", [20, 200])
def test_search_of_small_client_is_exact(session: Session, texts: Texts, client: int) -> None:
    for query in texts.queries[:10]:
        matches = search(session, query, client_id=client)
        assert ids(matches) == texts.nearest(query, texts.clients == client)
        distances = [match.distance for match in matches]
        expected = [1 - float(texts.embeddings[row - 1] @ query) for row in ids(matches)]
        assert distances == pytest.approx(expected, abs=1e-5)
        assert all(isinstance(match.row, TextSummary) for match in matches)
    assert current_setting(session, "ivfflat.probes") == "1"


def test_search_of_large_table_uses_index(session: Session, texts: Texts) -> None:
    found = search(session, texts.queries[0])
    assert [match.distance for match in found] == sorted(match.distance for match in found)
    # This index is not calibrated: four times the square root of its lists.
    assert current_setting(session, "ivfflat.probes") == "54"
    assert recall(session, texts) >= 0.95
    assert recall(session, texts, client_id=30_000) >= 0.95


def test_search_uses_calibrated_setting_for_recall(session: Session, texts: Texts) -> None:
    few, many = CalibrationPoint(3, (0.8, 0.7), 1.0), CalibrationPoint(11, (0.97, 0.9), 2.0)
    store_calibration(session, calibration_of(session, few, many, CalibrationPoint(90, (1.0, 1.0), 60.0)))
    search(session, texts.queries[0], recall=0.8)
    assert current_setting(session, "ivfflat.probes") == "3"
    search(session, texts.queries[0])
    assert current_setting(session, "ivfflat.probes") == "11"
    session.execute(text("SET LOCAL ivfflat.probes = 1"))
    # This point is slower than an exact search.
    search(session, texts.queries[0], recall=0.99)
    assert current_setting(session, "ivfflat.probes") == "1"
    session.rollback()


def test_settings_end_with_transaction(engine: Engine, texts: Texts) -> None:
    sessions = session_factory(engine)
    with sessions() as session:
        search(session, texts.queries[0])
        assert current_setting(session, "ivfflat.iterative_scan") == "relaxed_order"
        session.commit()
    with sessions() as session:
        assert current_setting(session, "ivfflat.probes") == "1"
        assert current_setting(session, "ivfflat.iterative_scan") == "off"
        assert current_setting(session, "plan_cache_mode") == "auto"
        search(session, texts.queries[0])
        session.rollback()
        assert current_setting(session, "ivfflat.probes") == "1"


def test_recall_1_is_exact(session: Session, texts: Texts) -> None:
    for query in texts.queries[:5]:
        assert ids(search(session, query, recall=1)) == texts.nearest(query)


@pytest.mark.parametrize("length", [1e-30, 1e-9, 1e6, 1e25])
def test_length_of_query_does_not_change_results(session: Session, texts: Texts, length: float) -> None:
    replace_index(session, HALF)
    query = texts.queries[0].astype(np.float64) * length
    for client in (20, 30_000):
        assert ids(search(session, query, client_id=client)) == ids(search(session, texts.queries[0], client_id=client))
    session.rollback()


def test_search_accepts_pgvector_vector(session: Session, texts: Texts) -> None:
    vector: Any = Vector(texts.queries[0])
    assert ids(search(session, vector, client_id=20)) == texts.nearest(texts.queries[0], texts.clients == 20)


def test_search_accepts_numpy_numbers(session: Session, texts: Texts) -> None:
    numbers: dict[str, Any] = {"client_id": np.int64(20), "limit": np.int64(5), "max_distance": np.float32(2)}
    found = search(session, texts.queries[0].tolist(), **numbers)
    assert ids(found) == texts.nearest(texts.queries[0], texts.clients == 20, 5)


def test_search_with_filters_returns_limit_rows(session: Session, texts: Texts) -> None:
    mask = (texts.clients == 30_000) & (texts.sentiments == "negative")
    for query in texts.queries[:10]:
        found = search(session, query, client_id=30_000, sentiment="negative", limit=25)
        assert ids(found) == texts.nearest(query, mask, 25)
    assert len(search(session, texts.queries[0], language="es", limit=30)) == 30
    assert search(session, texts.queries[0], language="fr") == []
    assert len(search(session, texts.queries[0], since=datetime(2020, 1, 1, tzinfo=UTC))) == 10
    assert search(session, texts.queries[0], since=datetime(2100, 1, 1, tzinfo=UTC)) == []
    assert len(search(session, texts.queries[0], client_id=20, limit=50)) == 20


def test_max_distance_excludes_farther_texts(session: Session, texts: Texts) -> None:
    everything = search(session, texts.queries[0])
    bound = everything[4].distance
    assert ids(search(session, texts.queries[0], max_distance=bound)) == ids(everything)[:5]
    assert search(session, texts.queries[0], max_distance=0) == []


def test_half_precision_index_returns_full_precision_distances(session: Session, texts: Texts) -> None:
    replace_index(session, HALF)
    matches = search(session, texts.queries[1])
    expected = [1 - float(texts.embeddings[match.row.id - 1] @ texts.queries[1]) for match in matches]
    assert [match.distance for match in matches] == pytest.approx(expected, abs=1e-6)
    assert recall(session, texts) >= 0.95
    assert current_setting(session, "ivfflat.probes") == "54"
    session.rollback()


def test_async_search_returns_same_texts(searched: tuple[Database, Texts], session: Session) -> None:
    database, texts = searched

    async def search_both_clients() -> list[list[int]]:
        engine = create_async_engine(database.url)
        async with async_session_factory(engine)() as asynchronous:
            found = [
                ids(await async_search(asynchronous, texts.queries[0], client_id=client, limit=15))
                for client in (200, 30_000)
            ]
        await engine.dispose()
        return found

    assert asyncio.run(search_both_clients()) == [
        ids(search(session, texts.queries[0], client_id=client, limit=15)) for client in (200, 30_000)
    ]


def test_zero_vector_and_null_are_not_found(database: Database) -> None:
    engine = create_engine(database.url)
    vector = clustered_vectors(np.random.default_rng(1), 1)[0]
    with session_factory(engine)() as session:
        rows = [{"client_id": 1, "text_field": "x", "embedding": one} for one in (vector, [0.0] * 384, None)]
        session.execute(insert(TextSummary), rows)
        assert ids(search(session, vector)) == [1]
        assert ids(search(session, vector, client_id=1)) == [1]
        session.commit()
    engine.dispose()


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        ([0.0] * 384, "A vector of zeros has no direction"),
        ([1.0] * 383, "this vector has 383"),
        ([float("nan")] * 384, "number 0 of this vector is nan"),
        (Vector([0.0] * 384), "A vector of zeros has no direction"),
    ],
)
def test_invalid_embedding_raises(session: Session, embedding: Any, message: str) -> None:
    with pytest.raises(InvalidEmbedding, match=message):
        search(session, embedding)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limit": 0}, "limit=0 requests zero rows"),
        ({"limit": True}, "limit is not an integer of 64 bits"),
        ({"limit": 2.0}, "limit is not an integer of 64 bits"),
        ({"limit": 2**63}, "limit is not an integer of 64 bits"),
        ({"client_id": 2**63}, "client_id is not an integer of 64 bits"),
        ({"client_id": True}, "client_id is not an integer of 64 bits"),
        ({"max_distance": 2.5}, "max_distance=2.5 is not a cosine distance"),
        ({"max_distance": float("nan")}, "max_distance=nan is not a cosine distance"),
        ({"sentiment": 5}, "sentiment is of type int; pass a str"),
        ({"language": ["es"]}, "language is of type list; pass a str"),
        ({"since": date(2026, 1, 1)}, "since is of type date; pass a datetime"),
        ({"recall": 0}, "recall=0 is out of range"),
        ({"recall": 1.5}, "recall=1.5 is out of range"),
        ({"since": datetime(2026, 1, 1)}, "has no time zone"),  # noqa: DTZ001  the invalid argument
    ],
)
def test_invalid_argument_raises(session: Session, texts: Texts, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSearchArgument, match=message):
        search(session, texts.queries[0], **arguments)


def test_session_in_autocommit_raises(searched: tuple[Database, Texts]) -> None:
    database, texts = searched
    engine = create_engine(database.url, isolation_level="AUTOCOMMIT")
    for client in (20, None):
        with session_factory(engine)() as session, pytest.raises(InvalidSearchArgument, match="in autocommit"):
            search(session, texts.queries[0], client_id=client)
    engine.dispose()
