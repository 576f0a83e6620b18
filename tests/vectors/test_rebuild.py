"""The rebuild of the vector index: its result, and its effect on other sessions."""

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

from support.rebuild import INSERT, QUICK, ROWS, SPECS, only_index, options_for
from support.texts import load_texts
from syntegra_db.binary_vectors import enable_binary_vectors
from syntegra_db.catalog import verify
from syntegra_db.connections import conninfo, unpooled_engine
from syntegra_db.database import create_engine, session_factory
from syntegra_db.errors import InsufficientResources, RebuildFailed
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors import search
from syntegra_db.vectors._index import NEW_INDEX, OLD_INDEX, VectorIndex, read_primary_index
from syntegra_db.vectors._statements import index_statement
from syntegra_db.vectors.maintenance import RebuildOptions, rebuild
from syntegra_db.vectors.maintenance._build import BuildProgress, index_validity
from syntegra_db.vectors.maintenance._ground_truth import force_index_scan
from syntegra_db.vectors.maintenance._resources import IndexSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server
    from support.texts import Texts


SESSION_SETTINGS = (
    "SELECT setting FROM pg_settings WHERE name IN ('client_min_messages', 'maintenance_work_mem') ORDER BY name"
)
LOCK_TIMEOUT = "-c lock_timeout=200ms"


@pytest.mark.parametrize(("spec", "definition"), SPECS)
def test_rebuild_installs_calibrated_index_that_searches_use(
    loaded: Database, loaded_template: tuple[str, Texts], spec: IndexSpec, definition: str
) -> None:
    result = rebuild(loaded.engine, options_for(spec), recall=0.9, calibration_seconds=3)
    index = only_index(loaded)
    assert (index.method, index.lists, index.is_half) == spec
    assert (index.calibration, index.is_calibration_current) == (result.calibration, True)
    assert (result.rows, result.calibration.recall) == (ROWS, 0.9)
    assert result.selected is not None
    assert result.selected.recall[0] >= 0.9
    with loaded.engine.connect() as connection:
        report = verify(connection)
        assert report.findings == []
        assert [(note.object, note.found) for note in report.notes] == [(f"index {VECTOR_INDEX}", definition)]
    texts = loaded_template[1]
    assert measure_recall(loaded, index, texts, result.selected.setting) >= 0.85


def measure_recall(database: Database, index: VectorIndex, texts: Texts, setting: int) -> float:
    """The mean recall at ten rows of index scans, which the plan must contain."""
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


def test_rebuild_without_options_keeps_method_and_precision(loaded: Database) -> None:
    rebuild(loaded.engine, RebuildOptions("ivfflat", 7, half=True), calibration_seconds=QUICK)
    result = rebuild(loaded.engine, calibration_seconds=QUICK)
    assert result.spec == IndexSpec("ivfflat", 108, is_half=True)
    assert result.bytes_before > 0
    assert result.bytes_after > 0


def test_rebuild_with_lists_builds_ivfflat(loaded: Database) -> None:
    rebuild(loaded.engine, RebuildOptions("hnsw"), calibration_seconds=QUICK)
    assert rebuild(loaded.engine, RebuildOptions(lists=25), calibration_seconds=QUICK).spec == IndexSpec(
        "ivfflat", 25, is_half=False
    )


@pytest.mark.embedded
def test_rebuild_keeps_tablespace(server: Server, loaded: Database) -> None:
    directory = tempfile.mkdtemp(prefix="sdb-")
    shutil.chown(directory, Path(loaded.query("SHOW data_directory")[0][0]).owner())
    server.execute(sql.SQL("CREATE TABLESPACE syntegra_test_fast LOCATION {}").format(directory))
    try:
        loaded.execute(f"ALTER INDEX {VECTOR_INDEX} SET TABLESPACE syntegra_test_fast")
        rebuild(loaded.engine, calibration_seconds=QUICK)
        found = loaded.query(f"SELECT tablespace FROM pg_indexes WHERE indexname = '{VECTOR_INDEX}'")
        assert found == [("syntegra_test_fast",)]
    finally:
        loaded.execute(f"DROP INDEX {VECTOR_INDEX}")
        server.execute("DROP TABLESPACE syntegra_test_fast")
        shutil.rmtree(directory)


def test_calibration_is_precise_around_requested_recall(loaded: Database) -> None:
    points = rebuild(
        loaded.engine, RebuildOptions("ivfflat", 200), recall=0.95, calibration_seconds=20
    ).calibration.points
    assert [point.setting for point in points] == sorted({point.setting for point in points})
    recalls = [point.recall for point in points]
    assert recalls == sorted(recalls)
    reached = next(at for at, point in enumerate(points) if point.recall[0] >= 0.95)
    top, bottom = points[reached].setting, points[reached - 1].setting
    # The steps of the sweep are 1.4 apart.
    assert top - bottom == 1 or top < 1.1 * bottom


def test_rebuild_with_unreachable_recall_selects_no_setting(loaded: Database) -> None:
    result = rebuild(loaded.engine, RebuildOptions("ivfflat", 3), recall=0.999, calibration_seconds=QUICK)
    assert result.selected is None
    assert only_index(loaded).calibration == result.calibration


@contextmanager
def services(database: Database) -> Iterator[list[int]]:
    """Insert and search every 10 ms with a lock timeout; yields the number of texts of each search."""
    rounds: list[int] = []
    done = threading.Event()

    def work() -> None:
        # Only waiting for a lock fails, not a slow machine.
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


@pytest.mark.slow
@pytest.mark.parametrize("spec", [SPECS[0][0], SPECS[3][0]])
def test_rebuild_does_not_block_writes_and_searches(loaded: Database, spec: IndexSpec) -> None:
    with services(loaded) as rounds:
        rebuild(loaded.engine, options_for(spec), calibration_seconds=QUICK)
    assert len(rounds) > 20
    assert set(rounds) == {10}
    index = only_index(loaded)
    assert index.is_calibration_current


def test_rebuild_reports_progress_and_blockers(loaded: Database) -> None:
    reports: list[BuildProgress] = []
    with psycopg.connect(conninfo(loaded.url), application_name="month-end report") as report:
        report.execute("UPDATE text_summary SET sentiment = 'secret' WHERE id = 1")
        timer = threading.Timer(2, report.rollback)
        timer.start()
        rebuild(
            loaded.engine, options_for(SPECS[2][0], workers=0), calibration_seconds=QUICK, on_progress=reports.append
        )
        timer.join()
    waited = next(progress for progress in reports if progress.blocked_by)
    assert waited.phase == "waiting for writers before build"
    assert "month-end report" in str(waited.blocked_by[0])
    assert "secret" not in str(waited.blocked_by[0])
    assert any(progress.phase == "building index: loading tuples" and progress.total for progress in reports)
    assert reports[-1] == BuildProgress("calibrating")


def test_reader_of_old_index_delays_only_its_drop(loaded: Database) -> None:
    reports: list[BuildProgress] = []
    reader = psycopg.connect(conninfo(loaded.url), application_name="nightly export")
    # Only if no report names the reader.
    timer = threading.Timer(60, reader.rollback)
    timer.start()

    def read_until_reported(progress: BuildProgress) -> None:
        if not reports:
            reader.execute("SELECT count(*) FROM text_summary")
        elif progress.blocked_by:
            reader.rollback()
        reports.append(progress)

    options = options_for(SPECS[2][0], workers=0)
    rebuild(loaded.engine, options, calibration_seconds=QUICK, on_progress=read_until_reported)
    timer.cancel()
    reader.close()
    assert only_index(loaded).is_calibration_current
    (blocked,) = {report.phase for report in reports if "nightly export" in str(report.blocked_by)}
    assert blocked == "waiting to drop the old index"


def test_second_rebuild_at_same_time_raises(loaded: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syntegra_db.vectors.maintenance._preconditions.REBUILD_LOCK_TIMEOUT_SECONDS", 0.2)
    with psycopg.connect(conninfo(loaded.url)) as writer:
        writer.execute(INSERT)
        first = threading.Thread(target=rebuild, args=(loaded.engine,), kwargs={"calibration_seconds": QUICK})
        first.start()
        deadline = time.monotonic() + 10
        while not loaded.query("SELECT FROM pg_stat_progress_create_index") and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(
            RebuildFailed, match=r"Another rebuild of the vector index is still running after 0.2 s \(pid \d+, "
        ):
            rebuild(loaded.engine)
        writer.rollback()
        first.join()
    assert only_index(loaded).is_calibration_current
    assert loaded.query("SELECT FROM pg_locks WHERE locktype = 'advisory'") == []


def test_rebuild_with_locked_index_names_blocker_and_keeps_old_index(
    loaded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTEGRA_LOCK_RETRY_TIMEOUT", "0.5")
    with psycopg.connect(conninfo(loaded.url), application_name="index audit") as other:
        other.execute(f"COMMENT ON INDEX {VECTOR_INDEX} IS 'audited'")
        with pytest.raises(RebuildFailed, match=rf"index audit.* The index {VECTOR_INDEX} is unchanged\."):
            rebuild(loaded.engine, RebuildOptions("ivfflat", 7), calibration_seconds=QUICK)
    with loaded.engine.connect() as connection:
        assert index_validity(connection) == {VECTOR_INDEX: True, NEW_INDEX: True}
        index = read_primary_index(connection)
    assert index is not None
    assert index.lists == 100
    rebuild(loaded.engine, RebuildOptions("ivfflat", 7), calibration_seconds=QUICK)
    assert only_index(loaded).lists == 7


def test_rebuild_with_pooled_engine_leaves_no_lock_or_setting(loaded: Database) -> None:
    engine = create_engine(loaded.url, pool_size=1, max_overflow=0)
    reports: list[BuildProgress] = []
    options = options_for(SPECS[2][0], workers=0)
    with engine.connect() as connection:
        settings = connection.scalars(text(SESSION_SETTINGS)).all()
    rebuild(engine, options, calibration_seconds=QUICK, on_progress=reports.append)
    with engine.connect() as connection:
        assert connection.scalars(text(SESSION_SETTINGS)).all() == settings
    engine.dispose()
    assert len(reports) > 1
    assert loaded.query("SELECT FROM pg_locks WHERE locktype = 'advisory'") == []


CREATE_SECOND: LiteralString = "CREATE INDEX {} ON text_summary USING hnsw (embedding vector_cosine_ops)"
INVALIDATE: LiteralString = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{}'::regclass"
INTERRUPTIONS: dict[str, tuple[list[str], bool]] = {
    # The statements, and whether one of the indexes works, which then gets the primary name before the build.
    "nothing": ([f"DROP INDEX {VECTOR_INDEX}"], False),
    "half-built": ([CREATE_SECOND.format(NEW_INDEX), INVALIDATE.format(NEW_INDEX)], True),
    "built, not renamed": ([CREATE_SECOND.format(NEW_INDEX)], True),
    "renamed, old one left": ([CREATE_SECOND.format(OLD_INDEX)], True),
    "renamed, old one half-dropped": ([CREATE_SECOND.format(OLD_INDEX), INVALIDATE.format(OLD_INDEX)], True),
    "only the new one": ([f"ALTER INDEX {VECTOR_INDEX} RENAME TO {NEW_INDEX}"], True),
    "only the old one": ([f"ALTER INDEX {VECTOR_INDEX} RENAME TO {OLD_INDEX}"], True),
    "only the old one and a half-built one": (
        [
            f"ALTER INDEX {VECTOR_INDEX} RENAME TO {OLD_INDEX}",
            CREATE_SECOND.format(NEW_INDEX),
            INVALIDATE.format(NEW_INDEX),
        ],
        True,
    ),
    "invalid primary index": (
        [CREATE_SECOND.format(NEW_INDEX), CREATE_SECOND.format(OLD_INDEX), INVALIDATE.format(VECTOR_INDEX)],
        True,
    ),
    "only invalid indexes": (
        [CREATE_SECOND.format(OLD_INDEX), INVALIDATE.format(OLD_INDEX), INVALIDATE.format(VECTOR_INDEX)],
        False,
    ),
}


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
def test_rebuild_recovers_from_interrupted_run(loaded: Database, interruption: str) -> None:
    statements, works = INTERRUPTIONS[interruption]
    with loaded.connect() as connection:
        for statement in statements:
            connection.execute(statement.encode())
    # The recovery comes before the memory check.
    with pytest.raises(InsufficientResources):
        rebuild(loaded.engine, RebuildOptions("ivfflat", memory=2**20))
    with loaded.engine.connect() as connection:
        validity = index_validity(connection)
    assert validity.keys() <= {VECTOR_INDEX}
    assert validity.get(VECTOR_INDEX, False) is works
    rebuild(loaded.engine, RebuildOptions("ivfflat"), calibration_seconds=QUICK)
    assert only_index(loaded).is_calibration_current
    with loaded.engine.connect() as connection:
        assert verify(connection).findings == []


def test_rebuild_of_one_row_builds_one_list(database: Database) -> None:
    load_texts(database, 1, {})
    result = rebuild(database.engine, calibration_seconds=QUICK)
    assert (result.spec.lists, result.rows) == (1, 1)


def test_rebuild_with_equivalent_index_names_it_and_keeps_new_index(loaded: Database) -> None:
    loaded.execute("CREATE INDEX other ON text_summary USING hnsw (embedding vector_cosine_ops)")
    with pytest.raises(RebuildFailed, match="another index on the embeddings of text_summary: other"):
        rebuild(loaded.engine, RebuildOptions("ivfflat", 1), calibration_seconds=QUICK)
    assert only_index(loaded).lists == 1


def test_index_replaced_during_calibration_raises(loaded: Database) -> None:
    engine = unpooled_engine(loaded.url)
    enable_binary_vectors(engine)
    with engine.connect() as connection:
        index = read_primary_index(connection)
        assert index is not None
        connection.rollback()
        loaded.execute(f"DROP INDEX {VECTOR_INDEX}")
        with pytest.raises(RebuildFailed, match="built or dropped"), force_index_scan(connection, index, 1):
            pass
