"""The rebuild of the vector index alongside other sessions: writers, readers, locks and a second rebuild."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import text

from support.embeddings import EMBEDDING, NEW_INDEX
from support.rebuild import INSERT, QUICK, SPECS, only_index, options_for
from syntegra_db.connections import conninfo
from syntegra_db.database import create_engine, session_factory
from syntegra_db.errors import RebuildFailed
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors import search
from syntegra_db.vectors._index import read_primary_index
from syntegra_db.vectors.maintenance import RebuildOptions, rebuild
from syntegra_db.vectors.maintenance._build import BuildProgress, index_validity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database
    from syntegra_db.vectors.maintenance._resources import IndexSpec


SESSION_SETTINGS = (
    "SELECT setting FROM pg_settings WHERE name IN ('client_min_messages', 'maintenance_work_mem') ORDER BY name"
)
LOCK_TIMEOUT = "-c lock_timeout=200ms"


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
        assert index_validity(connection, EMBEDDING) == {VECTOR_INDEX: True, NEW_INDEX: True}
        index = read_primary_index(connection, EMBEDDING)
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
