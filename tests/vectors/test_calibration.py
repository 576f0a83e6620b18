"""The calibration: its ground truth, its recalls and its duration."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, LiteralString

import numpy as np
import pytest
from sqlalchemy import text

from support.embeddings import EMBEDDING
from support.texts import Texts, load_texts
from syntegra_db.binary_vectors import enable_binary_vectors
from syntegra_db.connections import unpooled_engine
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors._index import Calibration, VectorIndex, read_primary_index
from syntegra_db.vectors.maintenance import RebuildOptions, rebuild
from syntegra_db.vectors.maintenance._calibration import (
    SettingResult,
    calibrate,
    enforce_monotonic,
    evaluate_setting,
    read_only_snapshot,
)
from syntegra_db.vectors.maintenance._ground_truth import compute_ground_truth, sample_queries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from support.servers import Database, Server


pytestmark = pytest.mark.slow
ROWS = 4_000
LISTS = 40
REBUILD: LiteralString = f"""SET maintenance_work_mem = '64MB'; DROP INDEX {VECTOR_INDEX};
    CREATE INDEX {VECTOR_INDEX} ON text_summary USING """


@pytest.fixture(scope="module")
def loaded(server: Server, migrated_template: str) -> Iterator[tuple[Database, Texts]]:
    with server.database(migrated_template, name="syntegra_test_calibration") as database:
        texts = load_texts(database, ROWS, {})
        database.execute(f"{REBUILD} ivfflat (embedding vector_cosine_ops) WITH (lists = 40)")
        yield database, texts


@pytest.fixture
def snapshot(loaded: tuple[Database, Texts]) -> Iterator[Connection]:
    engine = unpooled_engine(loaded[0].url)
    enable_binary_vectors(engine)
    with read_only_snapshot(engine, 60) as connection:
        yield connection


def read_index(connection: Connection) -> VectorIndex:
    index = read_primary_index(connection, EMBEDDING)
    assert index is not None
    return index


def test_ground_truth_excludes_source_row(snapshot: Connection, loaded: tuple[Database, Texts]) -> None:
    queries = sample_queries(snapshot, EMBEDDING, 30, ROWS)
    # With one list, the index gives a loose bound.
    for setting in (1, LISTS):
        truth = compute_ground_truth(snapshot, read_index(snapshot), queries, setting, min_queries=30, seconds=60)
        assert len(truth.distances) == 30
        for query, distances in zip(queries, truth.distances, strict=True):
            vector = np.array(query.vector.to_list())
            exact = 1 - np.delete(loaded[1].embeddings @ vector / np.linalg.norm(vector), query.source_id - 1)
            assert distances == pytest.approx(np.sort(exact)[:100].tolist(), abs=1e-6)


def test_sample_queries_differ_from_stored_rows_and_cover_the_table(
    snapshot: Connection, loaded: tuple[Database, Texts]
) -> None:
    queries = sample_queries(snapshot, EMBEDDING, 200, ROWS)
    assert len({query.source_id for query in queries}) == 200
    assert max(query.source_id for query in queries) > ROWS * 0.8
    assert min(query.source_id for query in queries) < ROWS * 0.2
    similarity = [
        float(loaded[1].embeddings[query.source_id - 1] @ np.array(query.vector.to_list()))
        / float(np.linalg.norm(query.vector.to_list()))
        for query in queries
    ]
    assert 0.7 < float(np.median(similarity)) < 0.95


def test_sample_queries_with_wrong_row_estimate_are_complete(snapshot: Connection) -> None:
    assert len(sample_queries(snapshot, EMBEDDING, 100, 10**9)) == 100


def test_recall_grows_with_probes(snapshot: Connection) -> None:
    index = read_index(snapshot)
    truth = compute_ground_truth(
        snapshot, index, sample_queries(snapshot, EMBEDDING, 60, ROWS), LISTS, min_queries=60, seconds=60
    )
    all_lists, one_list = (evaluate_setting(snapshot, index, truth, setting) for setting in (LISTS, 1))
    assert all_lists.recall == (1.0, 1.0)
    assert one_list.recall[1] < 0.9
    assert one_list.error[1] > 0
    assert one_list.conservative().recall[1] == pytest.approx(one_list.recall[1] - one_list.error[1] / 2, abs=1e-4)
    assert one_list.milliseconds > 0


def test_calibration_uses_one_snapshot_and_restores_planner_settings(loaded: tuple[Database, Texts]) -> None:
    database, _ = loaded
    engine = unpooled_engine(database.url)
    enable_binary_vectors(engine)
    with read_only_snapshot(engine, 30) as connection:
        before = connection.scalar(text("SELECT count(*) FROM public.text_summary"))
        database.execute("INSERT INTO text_summary (client_id, text_field) VALUES (1, 'later')")
        calibrate(connection, read_index(connection), rows=ROWS, recall=0.9, seconds=1)
        assert connection.scalar(text("SELECT count(*) FROM public.text_summary")) == before
        for name in ("enable_seqscan", "enable_sort"):
            assert connection.scalar(text(f"SHOW {name}")) == "on"
    database.execute("DELETE FROM text_summary WHERE text_field = 'later'")


def test_calibration_with_little_time_reaches_requested_recall(snapshot: Connection) -> None:
    started = time.monotonic()
    calibration = calibrate(snapshot, read_index(snapshot), rows=ROWS, recall=0.9, seconds=0.01)
    assert any(point.recall[0] >= 0.9 for point in calibration.points)
    assert time.monotonic() - started < 10


def test_calibration_with_noise_on_few_rows_reaches_requested_recall(
    snapshot: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syntegra_db.vectors.maintenance._calibration.time_exact_search", lambda *_: 0.001)
    # Longer than any search here, also on a busy machine.
    monkeypatch.setattr("syntegra_db.vectors.maintenance._calibration.ALWAYS_FAST_MILLISECONDS", 10_000)
    calibration = calibrate(snapshot, read_index(snapshot), rows=ROWS, recall=0.95, seconds=5)
    assert any(point.recall[0] >= 0.95 for point in calibration.points)


def test_enforce_monotonic_keeps_recall_of_smaller_setting() -> None:
    results = [
        SettingResult(setting, (recall, 0.5), (0.01, 0.0), 1.0, 100)
        for setting, recall in ((3, 0.9), (1, 0.8), (2, 0.95))
    ]
    assert [(point.setting, point.recall) for point in enforce_monotonic(results)] == [
        (1, (0.795, 0.5)),
        (2, (0.945, 0.5)),
        (3, (0.945, 0.5)),
    ]


def test_calibration_round_trips_through_comment(snapshot: Connection) -> None:
    calibration = calibrate(snapshot, read_index(snapshot), rows=ROWS, recall=0.9, seconds=1)
    assert Calibration.from_comment(calibration.to_comment(), "ivfflat") == calibration


def test_recall_counts_rows_with_same_text_as_equal(server: Server, migrated_template: str) -> None:
    """Any ten of forty rows with the same text are the nearest."""
    with server.database(migrated_template) as database:
        load_texts(database, 1_500, {})
        database.execute(
            "INSERT INTO text_summary (client_id, text_field, embedding)"
            " SELECT client_id, text_field, embedding FROM text_summary, generate_series(1, 40) WHERE id % 5 = 0"
        )
        assert rebuild(database.engine, RebuildOptions("ivfflat", 30), calibration_seconds=4).selected is not None


def test_ground_truth_with_too_few_approximate_rows_is_complete(
    snapshot: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    approximate = iter([[0.5] * 100, [0.5] * 7])
    monkeypatch.setattr("syntegra_db.vectors.maintenance._ground_truth.index_distances", lambda *_: next(approximate))
    queries = sample_queries(snapshot, EMBEDDING, 2, ROWS)
    bounded, unbounded = compute_ground_truth(
        snapshot, read_index(snapshot), queries, LISTS, min_queries=2, seconds=60
    ).distances
    assert max(bounded) <= 0.5
    assert len(unbounded) == 100
