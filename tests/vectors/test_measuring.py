"""What is measured of an index is true, in the time that there is, and the advice follows from it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, LiteralString

import numpy as np
import psycopg
import pytest
from sqlalchemy import text
from vectors.texts import Texts, fill

from syntegra_db.binary_vectors import use_binary_vectors
from syntegra_db.connecting import unpooled_engine
from syntegra_db.errors import RebuildFailed
from syntegra_db.vectors.advice import Evidence, advise
from syntegra_db.vectors.condition import Measured, Shape, examine
from syntegra_db.vectors.index import OLD, VECTOR_INDEX, Measurement, Tuning, VectorIndex, read_index
from syntegra_db.vectors.measuring import Found, at_setting, one_moment, rising, tune
from syntegra_db.vectors.rebuilding import Wish, rebuild
from syntegra_db.vectors.sampling import draw, find_truth
from syntegra_db.vectors.sizing import INDEX_BYTES_OF_A_ROW, MEBIBYTE, Kind, graph_memory, kmeans_memory, lists_to_try

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from servers import Database, Server

pytestmark = pytest.mark.slow

ROWS = 4_000
LISTS = 40
REBUILD: LiteralString = f"""SET maintenance_work_mem = '64MB'; DROP INDEX {VECTOR_INDEX};
    CREATE INDEX {VECTOR_INDEX} ON text_summary USING """
TUNING = Tuning(100_000, 7, 5, 0.95, 50.0, (Measurement(20, (0.96, 0.95), 5.0),))
INDEX = VectorIndex(1, VECTOR_INDEX, 7, 5, "ivfflat", 300, is_half=False, has_iterative_scans=True, tuning=TUNING)
SHAPE = Shape("ivfflat", {"lists": 300}, is_half=False, is_valid=True, bytes=1)


@pytest.fixture(scope="module")
def filled(server: Server, migrated_template: str) -> Iterator[tuple[Database, Texts]]:
    with server.database(migrated_template, name="syntegra_test_measuring") as database:
        texts = fill(database, ROWS, {})
        database.execute(f"{REBUILD} ivfflat (embedding vector_cosine_ops) WITH (lists = 40)")
        yield database, texts


@pytest.fixture
def moment(filled: tuple[Database, Texts]) -> Iterator[Connection]:
    engine = unpooled_engine(filled[0].url)
    use_binary_vectors(engine)
    with one_moment(engine, 60) as connection:
        yield connection


def standing(connection: Connection) -> VectorIndex:
    index = read_index(connection)
    assert index is not None
    return index


def test_a_sample_has_the_true_nearest_but_the_row_it_was_made_of(
    moment: Connection, filled: tuple[Database, Texts]
) -> None:
    queries = draw(moment, 30, ROWS)
    # Where one list is searched, what the index finds bounds the truth loosely.
    for setting in (1, LISTS):
        truth = find_truth(moment, standing(moment), queries, setting, fewest=30, seconds=60)
        assert len(truth.distances) == 30
        for query, distances in zip(queries, truth.distances, strict=True):
            vector = np.array(query.vector.to_list())
            far = 1 - np.delete(filled[1].embeddings @ vector / np.linalg.norm(vector), query.own - 1)
            assert distances == pytest.approx(np.sort(far)[:100].tolist(), abs=1e-6)


def test_queries_are_not_stored_rows_and_come_from_all_over(moment: Connection, filled: tuple[Database, Texts]) -> None:
    queries = draw(moment, 200, ROWS)
    assert len({query.own for query in queries}) == 200
    assert max(query.own for query in queries) > ROWS * 0.8
    assert min(query.own for query in queries) < ROWS * 0.2
    similarity = [
        float(filled[1].embeddings[query.own - 1] @ np.array(query.vector.to_list()))
        / float(np.linalg.norm(query.vector.to_list()))
        for query in queries
    ]
    assert 0.7 < float(np.median(similarity)) < 0.95


def test_an_estimate_of_rows_that_is_far_off_still_gives_queries(moment: Connection) -> None:
    assert len(draw(moment, 100, 10**9)) == 100


def test_all_lists_find_all_and_few_find_less(moment: Connection) -> None:
    index = standing(moment)
    truth = find_truth(moment, index, draw(moment, 60, ROWS), LISTS, fewest=60, seconds=60)
    all_lists, one_list = (at_setting(moment, index, truth, setting) for setting in (LISTS, 1))
    assert all_lists.recall == (1.0, 1.0)
    assert one_list.recall[1] < 0.9
    assert one_list.error[1] > 0
    assert one_list.careful().recall[1] == pytest.approx(one_list.recall[1] - one_list.error[1] / 2, abs=1e-4)
    assert one_list.milliseconds > 0


def test_it_sees_one_moment_and_changes_no_setting_for_others(filled: tuple[Database, Texts]) -> None:
    database, _ = filled
    engine = unpooled_engine(database.url)
    use_binary_vectors(engine)
    with one_moment(engine, 30) as connection:
        before = connection.scalar(text("SELECT count(*) FROM text_summary"))
        database.execute("INSERT INTO text_summary (client_id, text_field) VALUES (1, 'later')")
        tune(connection, standing(connection), rows=ROWS, recall=0.9, seconds=1)
        assert connection.scalar(text("SELECT count(*) FROM text_summary")) == before
        for name in ("enable_seqscan", "enable_sort"):
            assert connection.scalar(text(f"SHOW {name}")) == "on"
    database.execute("DELETE FROM text_summary WHERE text_field = 'later'")


def test_little_time_still_reaches_the_asked_recall(moment: Connection) -> None:
    began = time.monotonic()
    tuning = tune(moment, standing(moment), rows=ROWS, recall=0.9, seconds=0.01)
    assert any(one.recall[0] >= 0.9 for one in tuning.measured)
    assert time.monotonic() - began < 10


def test_noise_on_few_rows_does_not_end_it_before_the_asked_recall(
    moment: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syntegra_db.vectors.measuring.exact_milliseconds", lambda *_: 0.001)
    tuning = tune(moment, standing(moment), rows=ROWS, recall=0.95, seconds=5)
    assert any(one.recall[0] >= 0.95 for one in tuning.measured)


def test_a_greater_setting_finds_at_least_what_a_smaller_one_was_seen_to_find() -> None:
    found = [
        Found(setting, (recall, 0.5), (0.01, 0.0), 1.0, 100) for setting, recall in ((3, 0.9), (1, 0.8), (2, 0.95))
    ]
    assert [(one.setting, one.recall) for one in rising(found)] == [
        (1, (0.795, 0.5)),
        (2, (0.945, 0.5)),
        (3, (0.945, 0.5)),
    ]


def test_a_tuning_comes_back_from_its_comment(moment: Connection) -> None:
    tuning = tune(moment, standing(moment), rows=ROWS, recall=0.9, seconds=1)
    assert Tuning.from_comment(tuning.to_comment()) == tuning


def test_status_of_an_index_that_was_rebuilt_and_grown(
    server: Server, migrated_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syntegra_db.vectors.planning.ALWAYS_EXACT_ROWS", 100)
    monkeypatch.setattr("syntegra_db.vectors.advice.ALWAYS_EXACT_ROWS", 100)
    with server.database(migrated_template) as database:
        fill(database, 2_000, {})
        assert examine(database.url, 2).built_on == 0
        rebuild(database.url, Wish("ivfflat", 30, half=True), measuring_seconds=2)
        seen = examine(database.url, 5)
        assert seen.shape is not None
        assert (seen.shape.method, seen.shape.options, seen.shape.is_half) == ("ivfflat", {"lists": 30}, True)
        assert (seen.built_on, seen.rows, seen.leftovers) == (2_000, 2_000, [])
        assert seen.measured is not None
        assert seen.measured.exact_milliseconds > 0
        database.execute(f"REINDEX INDEX {VECTOR_INDEX}")
        again = examine(database.url, 2)
        assert again.built_on is None
        assert "by other means" in again.advice
        assert again.command == "syntegra-db vectors rebuild"
        database.execute(f"ALTER INDEX {VECTOR_INDEX} RENAME TO {VECTOR_INDEX}_old")
        interrupted = examine(database.url, 2)
        assert (interrupted.shape, interrupted.leftovers) == (None, [f"{VECTOR_INDEX}_old"])
        assert "was interrupted" in interrupted.advice
        database.execute(f"DROP INDEX {VECTOR_INDEX}_old")
        assert "is missing" in examine(database.url, 2).advice


def test_status_measures_what_searches_use(
    server: Server, migrated_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syntegra_db.vectors.planning.ALWAYS_EXACT_ROWS", 100)
    with server.database(migrated_template) as database:
        fill(database, 3_000, {})
        rebuild(database.url, Wish("ivfflat", 30), measuring_seconds=1)
        keep(database, Measurement(30, (1.0, 1.0), 0.001))
        seen = examine(database.url, 8).measured
        assert seen is not None
        assert (seen.setting, seen.recall, seen.margin) == (30, 1.0, 0.0)
        assert seen.queries > 20
        keep(database, Measurement(1, (0.99, 0.99), 0.001))
        seen = examine(database.url, 8).measured
        assert seen is not None
        assert seen.recall is not None
        assert seen.recall < 1


def keep(database: Database, measurement: Measurement) -> None:
    """Say of the index of `database` that this is what was measured."""
    with database.engine.begin() as connection:
        index = standing(connection)
        tuning = Tuning(3_000, index.filenode, index.table_filenode, 0.95, 100.0, (measurement,))
        connection.exec_driver_sql(f"COMMENT ON INDEX {VECTOR_INDEX} IS '{tuning.to_comment()}'")


def test_rows_of_the_same_text_are_equally_near(server: Server, migrated_template: str) -> None:
    """Ten of forty rows that are alike are found, and any ten of them are the nearest."""
    with server.database(migrated_template) as database:
        fill(database, 1_500, {})
        database.execute(
            "INSERT INTO text_summary (client_id, text_field, embedding)"
            " SELECT client_id, text_field, embedding FROM text_summary, generate_series(1, 40) WHERE id % 5 = 0"
        )
        done = rebuild(database.url, Wish("ivfflat", 30), measuring_seconds=4)
        assert done.chosen is not None
        assert done.chosen.recall[0] >= 0.95


def test_some_queries_that_find_fewer_than_wanted_do_not_end_it(
    moment: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([[0.5] * 100, [0.5] * 7])
    monkeypatch.setattr("syntegra_db.vectors.sampling.search_index", lambda *_: next(found))
    queries = draw(moment, 2, ROWS)
    bounded, unbounded = find_truth(moment, standing(moment), queries, LISTS, fewest=2, seconds=60).distances
    assert max(bounded) <= 0.5
    assert len(unbounded) == 100


def test_status_says_when_two_indexes_serve_a_search(
    server: Server, migrated_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syntegra_db.vectors.planning.ALWAYS_EXACT_ROWS", 100)
    with server.database(migrated_template) as database:
        fill(database, 2_000, {})
        rebuild(database.url, Wish("ivfflat", 30), measuring_seconds=2)
        database.execute(f"CREATE INDEX {OLD} ON text_summary USING hnsw (embedding vector_cosine_ops)")
        seen = examine(database.url, 2)
        assert (seen.measured, seen.leftovers, seen.command) == (None, [OLD], "syntegra-db vectors rebuild")
        assert f"left {OLD}" in seen.advice
        database.execute(f"ALTER INDEX {OLD} RENAME TO theirs")
        keep(database, Measurement(1, (0.99, 0.99), 0.001))
        with pytest.raises(RebuildFailed, match=r"searches through another index on the embeddings .* theirs"):
            examine(database.url, 2)


def test_status_ends_in_time_and_says_that_it_was_too_short(filled: tuple[Database, Texts]) -> None:
    began = time.monotonic()
    seen = examine(filled[0].url, 0.001)
    assert time.monotonic() - began < 3
    assert seen.measured is None
    assert seen.rows == pytest.approx(ROWS, rel=0.05)


GOOD = Measured(50.0, 20, 0.96, 0.01, 5.0, 200)


@pytest.mark.parametrize(
    ("changed", "given", "words", "is_due"),
    [
        ({}, {"rows": 20_000}, "Nothing to do: up to 25,000 rows", False),
        ({}, {"rows": 20_000, "index": None}, "Nothing to do: up to 25,000 rows", False),
        ({}, {"index": None, "shape": None}, "Rebuild it: the index is missing", True),
        ({}, {"index": None, "shape": replace(SHAPE, is_valid=False)}, "Rebuild it: the index is invalid", True),
        ({"tuning": None}, {"built_on": 0}, "came with the empty table", True),
        ({"tuning": None}, {"built_on": None}, "was never measured", True),
        ({"filenode": 8}, {"built_on": None}, "by other means", True),
        ({}, {"measured": replace(GOOD, recall=0.9)}, "finds less than the 0.95", True),
        ({}, {"measured": replace(GOOD, recall=0.945)}, "Nothing to do: it finds what it should", False),
        ({}, {"rows": 1_200_000}, "12 times the rows", True),
        ({"method": "hnsw"}, {"rows": 1_200_000}, "Nothing to do: it finds", False),
        ({}, {"measured": Measured(50.0)}, "another --method", False),
        ({}, {"measured": None}, "Not known: the time was too short", False),
        ({}, {"measured": Measured(50.0, 20)}, "Not known: the time was too short", False),
        ({}, {"measured": replace(GOOD, margin=0.05)}, "Not known: the time was too short", False),
        (
            {},
            {"leftovers": ["idx_new"]},
            "Rebuild it: a rebuild that was interrupted, or is running, left idx_new",
            True,
        ),
        ({"table_filenode": 6, "filenode": 8}, {"built_on": None}, "made anew with its table", True),
        ({}, {"index": None, "shape": replace(SHAPE, is_valid=True)}, "serves no search by cosine distance", True),
    ],
)
def test_advice(changed: dict[str, Any], given: dict[str, Any], words: str, *, is_due: bool) -> None:
    usual: dict[str, Any] = {"rows": 150_000, "built_on": 100_000, "shape": SHAPE, "measured": GOOD, "leftovers": []}
    sentence, due = advise(Evidence(**{"index": replace(INDEX, **changed), **usual, **given}))
    assert words in sentence
    assert due is is_due


def test_the_memory_for_ivfflat_is_just_what_the_server_takes(filled: tuple[Database, Texts]) -> None:
    needed = kmeans_memory(100, ROWS, is_half=False)
    create = "CREATE INDEX try ON text_summary USING ivfflat (embedding vector_cosine_ops) WITH (lists = 100)"
    with filled[0].connect() as connection:
        connection.execute(f"SET maintenance_work_mem = '{(needed - 3 * MEBIBYTE) // 1024}kB'".encode())
        with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="memory required"):
            connection.execute(create)
        connection.execute(f"SET maintenance_work_mem = '{needed // 1024}kB'".encode())
        connection.execute(create)
        connection.execute("DROP INDEX try")


@pytest.mark.parametrize(
    "kind",
    [
        Kind("ivfflat", 40, is_half=False),
        Kind("ivfflat", 40, is_half=True),
        Kind("hnsw", 0, is_half=False),
        Kind("hnsw", 0, is_half=True),
    ],
)
def test_memory_and_disk_are_about_what_a_build_takes(filled: tuple[Database, Texts], kind: Kind) -> None:
    form = "((embedding::halfvec(384)) halfvec_cosine_ops)" if kind.is_half else "(embedding vector_cosine_ops)"
    options = f" WITH (lists = {kind.lists})" if kind.lists else ""
    memory = graph_memory(ROWS, is_half=kind.is_half) if kind.method == "hnsw" else 64 * MEBIBYTE
    notices: list[str | None] = []
    with filled[0].connect() as connection:
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        connection.execute(f"SET maintenance_work_mem = '{memory // 1024}kB'".encode())
        connection.execute(f"CREATE INDEX try ON text_summary USING {kind.method} {form}{options}".encode())
        (size,) = connection.execute("SELECT pg_relation_size('try')").fetchone() or (0,)
        connection.execute("DROP INDEX try")
    # An hnsw graph that does not fit is a notice.
    assert notices == []
    expected = INDEX_BYTES_OF_A_ROW[kind.method, kind.is_half] * ROWS
    assert 0.8 * expected < size < 1.2 * expected


def test_lists_follow_the_rows() -> None:
    assert [lists_to_try(rows) for rows in (1, 200_000, 4_000_000, 10**10)] == [
        [1, 1, 1],
        [894, 447, 200],
        [4_000, 2_000, 1_000],
        [32_768] * 3,
    ]
