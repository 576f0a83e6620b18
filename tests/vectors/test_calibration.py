"""What is measured of an index is true, in the time that there is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, LiteralString

import numpy as np
import pytest
from sqlalchemy import text
from vectors.texts import Texts, fill

from syntegra_db.binary_vectors import enable_binary_vectors
from syntegra_db.connections import unpooled_engine
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors._index import Calibration, VectorIndex, read_primary_index
from syntegra_db.vectors.maintenance._calibration import (
    SettingResult,
    calibrate,
    enforce_monotonic,
    evaluate_setting,
    read_only_snapshot,
)
from syntegra_db.vectors.maintenance._ground_truth import compute_ground_truth, sample_queries
from syntegra_db.vectors.maintenance._rebuild import RebuildOptions, rebuild

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
def filled(server: Server, migrated_template: str) -> Iterator[tuple[Database, Texts]]:
    with server.database(migrated_template, name="syntegra_test_measuring") as database:
        texts = fill(database, ROWS, {})
        database.execute(f"{REBUILD} ivfflat (embedding vector_cosine_ops) WITH (lists = 40)")
        yield database, texts


@pytest.fixture
def moment(filled: tuple[Database, Texts]) -> Iterator[Connection]:
    engine = unpooled_engine(filled[0].url)
    enable_binary_vectors(engine)
    with read_only_snapshot(engine, 60) as connection:
        yield connection


def standing(connection: Connection) -> VectorIndex:
    index = read_primary_index(connection)
    assert index is not None
    return index


def test_a_sample_has_the_true_nearest_but_the_row_it_was_made_of(
    moment: Connection, filled: tuple[Database, Texts]
) -> None:
    queries = sample_queries(moment, 30, ROWS)
    # Where one list is searched, what the index finds bounds the truth loosely.
    for setting in (1, LISTS):
        truth = compute_ground_truth(moment, standing(moment), queries, setting, fewest=30, seconds=60)
        assert len(truth.distances) == 30
        for query, distances in zip(queries, truth.distances, strict=True):
            vector = np.array(query.vector.to_list())
            far = 1 - np.delete(filled[1].embeddings @ vector / np.linalg.norm(vector), query.source_id - 1)
            assert distances == pytest.approx(np.sort(far)[:100].tolist(), abs=1e-6)


def test_queries_are_not_stored_rows_and_come_from_all_over(moment: Connection, filled: tuple[Database, Texts]) -> None:
    queries = sample_queries(moment, 200, ROWS)
    assert len({query.source_id for query in queries}) == 200
    assert max(query.source_id for query in queries) > ROWS * 0.8
    assert min(query.source_id for query in queries) < ROWS * 0.2
    similarity = [
        float(filled[1].embeddings[query.source_id - 1] @ np.array(query.vector.to_list()))
        / float(np.linalg.norm(query.vector.to_list()))
        for query in queries
    ]
    assert 0.7 < float(np.median(similarity)) < 0.95


def test_an_estimate_of_rows_that_is_far_off_still_gives_queries(moment: Connection) -> None:
    assert len(sample_queries(moment, 100, 10**9)) == 100


def test_all_lists_find_all_and_few_find_less(moment: Connection) -> None:
    index = standing(moment)
    truth = compute_ground_truth(moment, index, sample_queries(moment, 60, ROWS), LISTS, fewest=60, seconds=60)
    all_lists, one_list = (evaluate_setting(moment, index, truth, setting) for setting in (LISTS, 1))
    assert all_lists.recall == (1.0, 1.0)
    assert one_list.recall[1] < 0.9
    assert one_list.error[1] > 0
    assert one_list.conservative().recall[1] == pytest.approx(one_list.recall[1] - one_list.error[1] / 2, abs=1e-4)
    assert one_list.milliseconds > 0


def test_it_sees_one_moment_and_changes_no_setting_for_others(filled: tuple[Database, Texts]) -> None:
    database, _ = filled
    engine = unpooled_engine(database.url)
    enable_binary_vectors(engine)
    with read_only_snapshot(engine, 30) as connection:
        before = connection.scalar(text("SELECT count(*) FROM text_summary"))
        database.execute("INSERT INTO text_summary (client_id, text_field) VALUES (1, 'later')")
        calibrate(connection, standing(connection), rows=ROWS, recall=0.9, seconds=1)
        assert connection.scalar(text("SELECT count(*) FROM text_summary")) == before
        for name in ("enable_seqscan", "enable_sort"):
            assert connection.scalar(text(f"SHOW {name}")) == "on"
    database.execute("DELETE FROM text_summary WHERE text_field = 'later'")


def test_little_time_still_reaches_the_asked_recall(moment: Connection) -> None:
    began = time.monotonic()
    tuning = calibrate(moment, standing(moment), rows=ROWS, recall=0.9, seconds=0.01)
    assert any(one.recall[0] >= 0.9 for one in tuning.measured)
    assert time.monotonic() - began < 10


def test_noise_on_few_rows_does_not_end_it_before_the_asked_recall(
    moment: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syntegra_db.vectors.maintenance._calibration.time_exact_search", lambda *_: 0.001)
    # Longer than any search here, on however busy a machine.
    monkeypatch.setattr("syntegra_db.vectors.maintenance._calibration.NEVER_SLOW_MILLISECONDS", 10_000)
    tuning = calibrate(moment, standing(moment), rows=ROWS, recall=0.95, seconds=5)
    assert any(one.recall[0] >= 0.95 for one in tuning.measured)


def test_a_greater_setting_finds_at_least_what_a_smaller_one_was_seen_to_find() -> None:
    found = [
        SettingResult(setting, (recall, 0.5), (0.01, 0.0), 1.0, 100)
        for setting, recall in ((3, 0.9), (1, 0.8), (2, 0.95))
    ]
    assert [(one.setting, one.recall) for one in enforce_monotonic(found)] == [
        (1, (0.795, 0.5)),
        (2, (0.945, 0.5)),
        (3, (0.945, 0.5)),
    ]


def test_a_tuning_comes_back_from_its_comment(moment: Connection) -> None:
    tuning = calibrate(moment, standing(moment), rows=ROWS, recall=0.9, seconds=1)
    assert Calibration.from_comment(tuning.to_comment()) == tuning


def test_rows_of_the_same_text_are_equally_near(server: Server, migrated_template: str) -> None:
    """Ten of forty rows that are alike are found, and any ten of them are the nearest."""
    with server.database(migrated_template) as database:
        fill(database, 1_500, {})
        database.execute(
            "INSERT INTO text_summary (client_id, text_field, embedding)"
            " SELECT client_id, text_field, embedding FROM text_summary, generate_series(1, 40) WHERE id % 5 = 0"
        )
        assert rebuild(database.url, RebuildOptions("ivfflat", 30), measuring_seconds=4).selected is not None


def test_some_queries_that_find_fewer_than_wanted_do_not_end_it(
    moment: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([[0.5] * 100, [0.5] * 7])
    monkeypatch.setattr("syntegra_db.vectors.maintenance._ground_truth.index_distances", lambda *_: next(found))
    queries = sample_queries(moment, 2, ROWS)
    bounded, unbounded = compute_ground_truth(moment, standing(moment), queries, LISTS, fewest=2, seconds=60).distances
    assert max(bounded) <= 0.5
    assert len(unbounded) == 100
