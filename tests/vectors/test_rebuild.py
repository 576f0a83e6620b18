"""Rebuilding the vector index: what stands afterwards, and who is disturbed meanwhile."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text
from vectors.rebuilt import INSERT, KINDS, QUICKLY, ROWS, standing, wish
from vectors.texts import fill

from syntegra_db.binary_vectors import enable_binary_vectors
from syntegra_db.catalog import verify
from syntegra_db.connections import conninfo, unpooled_engine
from syntegra_db.database import create_engine, session_factory
from syntegra_db.errors import InsufficientResources, RebuildFailed
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors import search
from syntegra_db.vectors._index import NEW_INDEX, OLD_INDEX, VectorIndex, read_primary_index
from syntegra_db.vectors._statements import index_statement
from syntegra_db.vectors.maintenance._build import BuildProgress, index_validity
from syntegra_db.vectors.maintenance._ground_truth import force_index_scan
from syntegra_db.vectors.maintenance._rebuild import RebuildOptions, rebuild
from syntegra_db.vectors.maintenance._resources import IndexSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vectors.texts import Texts

    from support.servers import Database, Server


LOCK_TIMEOUT = "-c lock_timeout=200ms"


@pytest.mark.parametrize(("kind", "definition"), KINDS)
def test_each_kind_stands_measured_and_serves_searches(
    filled: Database, filled_template: tuple[str, Texts], kind: IndexSpec, definition: str
) -> None:
    done = rebuild(filled.url, wish(kind), recall=0.9, measuring_seconds=3)
    index = standing(filled)
    assert (index.method, index.lists, index.is_half) == kind
    assert (index.tuning, index.is_calibration_current) == (done.tuning, True)
    assert (done.rows, done.tuning.recall) == (ROWS, 0.9)
    assert done.selected is not None
    assert done.selected.recall[0] >= 0.9
    with filled.engine.connect() as connection:
        report = verify(connection)
        assert report.findings == []
        assert [(note.object, note.found) for note in report.notes] == [(f"index {VECTOR_INDEX}", definition)]
    texts = filled_template[1]
    assert found_share(filled, index, texts, done.selected.setting) >= 0.85


def found_share(database: Database, index: VectorIndex, texts: Texts, setting: int) -> float:
    """The share of the ten true nearest that the index finds, which the plan must show to be used."""
    statement = index_statement((), is_half=index.is_half)
    hits = 0
    with database.engine.connect() as connection, force_index_scan(connection, index, setting):
        plan = connection.scalars(
            text(f"EXPLAIN {statement}"), {"query": str(texts.queries[0].tolist()), "limit": 10}
        ).all()
        assert any(f"Index Scan using {VECTOR_INDEX} " in line for line in plan)
        for query in texts.queries:
            found = connection.execute(statement, {"query": query, "limit": 10}).all()
            hits += len({row[0] for row in found} & set(texts.nearest(query)))
    return hits / (10 * len(texts.queries))


def test_without_a_wish_it_keeps_the_kind_and_follows_the_rows(filled: Database) -> None:
    rebuild(filled.url, RebuildOptions("ivfflat", 7, half=True), measuring_seconds=QUICKLY)
    done = rebuild(filled.url, measuring_seconds=QUICKLY)
    assert done.kind == IndexSpec("ivfflat", 108, is_half=True)
    assert done.bytes_before > 0
    assert done.bytes_after > 0


def test_lists_mean_ivfflat_whatever_stands(filled: Database) -> None:
    rebuild(filled.url, RebuildOptions("hnsw"), measuring_seconds=QUICKLY)
    assert rebuild(filled.url, RebuildOptions(lists=25), measuring_seconds=QUICKLY).kind == IndexSpec(
        "ivfflat", 25, is_half=False
    )


@pytest.mark.embedded
def test_an_index_stays_in_its_tablespace(server: Server, filled: Database) -> None:
    place = tempfile.mkdtemp(prefix="sdb-")
    shutil.chown(place, Path(filled.query("SHOW data_directory")[0][0]).owner())
    server.execute(sql.SQL("CREATE TABLESPACE syntegra_test_fast LOCATION {}").format(place))
    try:
        filled.execute(f"ALTER INDEX {VECTOR_INDEX} SET TABLESPACE syntegra_test_fast")
        assert rebuild(filled.url, measuring_seconds=QUICKLY).room.free_disk is None
        found = filled.query(f"SELECT tablespace FROM pg_indexes WHERE indexname = '{VECTOR_INDEX}'")
        assert found == [("syntegra_test_fast",)]
    finally:
        filled.execute(f"DROP INDEX {VECTOR_INDEX}")
        server.execute("DROP TABLESPACE syntegra_test_fast")
        shutil.rmtree(place)


def test_what_is_measured_rises_and_reaches_the_asked_recall_closely(filled: Database) -> None:
    measured = rebuild(filled.url, RebuildOptions("ivfflat", 200), recall=0.95, measuring_seconds=20).tuning.measured
    assert [one.setting for one in measured] == sorted({one.setting for one in measured})
    recalls = [one.recall for one in measured]
    assert recalls == sorted(recalls)
    reached = next(at for at, one in enumerate(measured) if one.recall[0] >= 0.95)
    top, bottom = measured[reached].setting, measured[reached - 1].setting
    # The rungs of the ladder are 1.4 apart.
    assert top - bottom == 1 or top < 1.1 * bottom


def test_a_recall_that_no_setting_reaches_leaves_an_index_that_is_not_asked(filled: Database) -> None:
    done = rebuild(filled.url, RebuildOptions("ivfflat", 3), recall=0.999, measuring_seconds=QUICKLY)
    assert done.selected is None
    assert standing(filled).tuning == done.tuning


@contextmanager
def services(database: Database) -> Iterator[list[int]]:
    """Inserts and searches every 10 ms, neither of which may wait for a lock; how many texts each search found."""
    rounds: list[int] = []
    done = threading.Event()

    def work() -> None:
        # Whoever has to wait for a lock fails; a busy machine makes nobody fail.
        engine = create_engine(database.url, connect_args={"options": LOCK_TIMEOUT})
        writer = psycopg.connect(conninfo(database.url), options=LOCK_TIMEOUT, autocommit=True)
        with writer, session_factory(engine)() as session:
            while not done.wait(0.01):
                writer.execute(INSERT)
                rounds.append(len(search(session, [1.0] * 384)))
                session.rollback()
        engine.dispose()

    with ThreadPoolExecutor(1) as pool:
        work_done = pool.submit(work)
        try:
            yield rounds
        finally:
            done.set()
        work_done.result()


@pytest.mark.parametrize("kind", [KINDS[0][0], KINDS[3][0]])
def test_services_write_and_search_meanwhile(filled: Database, kind: IndexSpec) -> None:
    with services(filled) as rounds:
        rebuild(filled.url, wish(kind), measuring_seconds=QUICKLY)
    assert len(rounds) > 20
    assert set(rounds) == {10}
    index = standing(filled)
    assert index.is_calibration_current


def test_it_says_how_far_it_is_and_for_whom_it_waits(filled: Database) -> None:
    seen: list[BuildProgress] = []
    with psycopg.connect(conninfo(filled.url), application_name="month-end report") as report:
        report.execute("UPDATE text_summary SET sentiment = 'secret' WHERE id = 1")
        timer = threading.Timer(2, report.rollback)
        timer.start()
        rebuild(filled.url, wish(KINDS[2][0], workers=0), measuring_seconds=QUICKLY, on_progress=seen.append)
        timer.join()
    waited = next(progress for progress in seen if progress.blocked_by)
    assert waited.phase == "waiting for writers before build"
    assert "month-end report" in str(waited.blocked_by[0])
    assert "secret" not in str(waited.blocked_by[0])
    assert any(progress.phase == "building index: loading tuples" and progress.total for progress in seen)
    assert seen[-1] == BuildProgress("measuring what it finds")


def test_a_reader_of_the_old_index_delays_its_end_and_nothing_else(filled: Database) -> None:
    seen: list[BuildProgress] = []
    reader = psycopg.connect(conninfo(filled.url), application_name="nightly export")

    def begin_to_read(progress: BuildProgress) -> None:
        if not seen:
            reader.execute("SELECT count(*) FROM text_summary")
            threading.Timer(3, reader.rollback).start()
        seen.append(progress)

    rebuild(filled.url, wish(KINDS[2][0], workers=0), measuring_seconds=QUICKLY, on_progress=begin_to_read)
    reader.close()
    assert standing(filled).is_calibration_current
    assert any("nightly export" in str(blocker) for progress in seen for blocker in progress.blocked_by)


def test_two_at_once_take_turns(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syntegra_db.vectors.maintenance._preconditions.REBUILD_LOCK_TIMEOUT_SECONDS", 0.2)
    with psycopg.connect(conninfo(filled.url)) as writer:
        writer.execute(INSERT)
        first = threading.Thread(target=rebuild, args=(filled.url,), kwargs={"measuring_seconds": QUICKLY})
        first.start()
        deadline = time.monotonic() + 10
        while not filled.query("SELECT FROM pg_stat_progress_create_index") and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(RebuildFailed, match=r"Another rebuild of the vector index is running \(pid \d+, "):
            rebuild(filled.url)
        writer.rollback()
        first.join()
    assert standing(filled).is_calibration_current
    assert filled.query("SELECT FROM pg_locks WHERE locktype = 'advisory'") == []


SECOND: LiteralString = "CREATE INDEX {} ON text_summary USING hnsw (embedding vector_cosine_ops)"
SPOIL: LiteralString = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{}'::regclass"
LEFTOVERS: dict[str, tuple[list[str], bool]] = {
    # How it came about, and whether one of the indexes works, which then has the name before the build begins.
    "nothing": ([f"DROP INDEX {VECTOR_INDEX}"], False),
    "half-built": ([SECOND.format(NEW_INDEX), SPOIL.format(NEW_INDEX)], True),
    "built, but not in its place": ([SECOND.format(NEW_INDEX)], True),
    "in its place, and the old one there": ([SECOND.format(OLD_INDEX)], True),
    "in its place, and the old one half-dropped": ([SECOND.format(OLD_INDEX), SPOIL.format(OLD_INDEX)], True),
    "only the new one": ([f"ALTER INDEX {VECTOR_INDEX} RENAME TO {NEW_INDEX}"], True),
    "only the old one": ([f"ALTER INDEX {VECTOR_INDEX} RENAME TO {OLD_INDEX}"], True),
    "only the old one, and a half-built one": (
        [f"ALTER INDEX {VECTOR_INDEX} RENAME TO {OLD_INDEX}", SECOND.format(NEW_INDEX), SPOIL.format(NEW_INDEX)],
        True,
    ),
    "an invalid one of the name": (
        [SECOND.format(NEW_INDEX), SECOND.format(OLD_INDEX), SPOIL.format(VECTOR_INDEX)],
        True,
    ),
    "only invalid ones": ([SECOND.format(OLD_INDEX), SPOIL.format(OLD_INDEX), SPOIL.format(VECTOR_INDEX)], False),
}


@pytest.mark.parametrize("left", LEFTOVERS)
def test_whatever_an_interrupted_run_left_is_cleared(filled: Database, left: str) -> None:
    statements, works = LEFTOVERS[left]
    with filled.connect() as connection:
        for statement in statements:
            connection.execute(statement.encode())
    # It clears up before it finds that there is not enough memory.
    with pytest.raises(InsufficientResources):
        rebuild(filled.url, RebuildOptions("ivfflat", memory=2**20))
    with filled.engine.connect() as connection:
        standing_now = index_validity(connection)
    assert standing_now.keys() <= {VECTOR_INDEX}
    assert standing_now.get(VECTOR_INDEX, False) is works
    rebuild(filled.url, RebuildOptions("ivfflat"), measuring_seconds=QUICKLY)
    assert standing(filled).is_calibration_current
    with filled.engine.connect() as connection:
        assert verify(connection).findings == []


def test_one_row_is_enough(database: Database) -> None:
    fill(database, 1, {})
    done = rebuild(database.url, measuring_seconds=QUICKLY)
    assert (done.kind.lists, done.rows) == (1, 1)


def test_another_index_on_the_embeddings_is_named_and_the_new_one_stands(filled: Database) -> None:
    filled.execute("CREATE INDEX theirs ON text_summary USING hnsw (embedding vector_cosine_ops)")
    with pytest.raises(RebuildFailed, match="another index on the embeddings of text_summary, theirs"):
        rebuild(filled.url, RebuildOptions("ivfflat", 1), measuring_seconds=QUICKLY)
    assert standing(filled).lists == 1


def test_an_index_that_is_replaced_while_it_is_measured_is_not_believed(filled: Database) -> None:
    engine = unpooled_engine(filled.url)
    enable_binary_vectors(engine)
    with engine.connect() as connection:
        index = read_primary_index(connection)
        assert index is not None
        connection.rollback()
        filled.execute(f"DROP INDEX {VECTOR_INDEX}")
        with pytest.raises(RebuildFailed, match="built or dropped"), force_index_scan(connection, index, 1):
            pass
