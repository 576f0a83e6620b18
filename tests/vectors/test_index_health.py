"""The report of `vectors status`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from support.embeddings import EMBEDDING, OLD_INDEX
from support.texts import load_texts
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors._index import Calibration, CalibrationPoint, VectorIndex, read_primary_index
from syntegra_db.vectors.maintenance import RebuildOptions, check_index_health, rebuild

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from support.servers import Database, Server


pytestmark = pytest.mark.slow


@pytest.fixture
def index_scans_of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searches use an index on few rows too."""
    monkeypatch.setattr("syntegra_db.vectors._strategy.EXACT_SCAN_MAX_ROWS", 100)
    monkeypatch.setattr("syntegra_db.vectors.maintenance._health.EXACT_SCAN_MAX_ROWS", 100)


def read_index(connection: Connection) -> VectorIndex:
    index = read_primary_index(connection, EMBEDDING)
    assert index is not None
    return index


@pytest.mark.usefixtures("index_scans_of_few_rows")
def test_health_after_rebuild_reindex_and_interruption(server: Server, migrated_template: str) -> None:
    with server.database(migrated_template) as database:
        load_texts(database, 2_000, {})
        assert check_index_health(database.engine, 2).rows_at_build == 0
        rebuild(database.engine, RebuildOptions("ivfflat", 30, half=True), calibration_seconds=2)
        health = check_index_health(database.engine, 5)
        assert health.definition is not None
        assert (health.definition.method, health.definition.options, health.definition.is_half) == (
            "ivfflat",
            {"lists": 30},
            True,
        )
        assert (health.rows_at_build, health.rows, health.rebuild_indexes) == (2_000, 2_000, [])
        assert health.measurement is not None
        assert health.measurement.exact_milliseconds > 0
        database.execute(f"REINDEX INDEX {VECTOR_INDEX}")
        again = check_index_health(database.engine, 2)
        assert again.rows_at_build is None
        assert "by other means" in again.advice
        assert again.command == "syntegra-db vectors rebuild"
        database.execute(f"ALTER INDEX {VECTOR_INDEX} RENAME TO {VECTOR_INDEX}_old")
        interrupted = check_index_health(database.engine, 2)
        assert (interrupted.definition, interrupted.rebuild_indexes) == (None, [f"{VECTOR_INDEX}_old"])
        assert "an interrupted rebuild left" in interrupted.advice
        database.execute(f"DROP INDEX {VECTOR_INDEX}_old")
        assert "is missing" in check_index_health(database.engine, 2).advice


@pytest.mark.usefixtures("index_scans_of_few_rows")
def test_health_measures_setting_of_searches(server: Server, migrated_template: str) -> None:
    with server.database(migrated_template) as database:
        load_texts(database, 3_000, {})
        rebuild(database.engine, RebuildOptions("ivfflat", 30), calibration_seconds=1)
        store_calibration(database, CalibrationPoint(30, (1.0, 1.0), 0.001))
        measurement = check_index_health(database.engine, 8).measurement
        assert measurement is not None
        assert (measurement.setting, measurement.recall, measurement.margin) == (30, 1.0, 0.0)
        assert measurement.queries > 20
        store_calibration(database, CalibrationPoint(1, (0.99, 0.99), 0.001))
        measurement = check_index_health(database.engine, 8).measurement
        assert measurement is not None
        assert measurement.recall is not None
        assert measurement.recall < 1


@pytest.mark.usefixtures("index_scans_of_few_rows")
def test_health_with_two_equivalent_indexes_is_not_measured(server: Server, migrated_template: str) -> None:
    with server.database(migrated_template) as database:
        load_texts(database, 2_000, {})
        rebuild(database.engine, RebuildOptions("ivfflat", 30), calibration_seconds=2)
        database.execute(f"CREATE INDEX {OLD_INDEX} ON text_summary USING hnsw (embedding vector_cosine_ops)")
        health = check_index_health(database.engine, 2)
        assert (health.measurement, health.rebuild_indexes, health.command) == (
            None,
            [OLD_INDEX],
            "syntegra-db vectors rebuild",
        )
        assert f"left {OLD_INDEX}" in health.advice
        database.execute(f"ALTER INDEX {OLD_INDEX} RENAME TO other")
        # At this setting the planner prefers the other index.
        store_calibration(database, CalibrationPoint(30, (0.99, 0.99), 0.001))
        health = check_index_health(database.engine, 2)
        assert health.measurement is None
        assert "another index on the embeddings of text_summary: other" in str(health.not_measured_reason)
        assert health.advice == "Unknown: the index was not measured."


def test_health_with_too_little_time_reports_it_in_time(server: Server, migrated_template: str) -> None:
    with server.database(migrated_template) as database:
        load_texts(database, 2_000, {})
        started = time.monotonic()
        health = check_index_health(database.engine, 0.001)
        assert time.monotonic() - started < 3
    assert health.measurement is None
    assert health.not_measured_reason == "0.001 s were too short; allow more with --seconds"
    assert health.rows == pytest.approx(2_000, rel=0.05)


def store_calibration(database: Database, point: CalibrationPoint) -> None:
    with database.engine.begin() as connection:
        index = read_index(connection)
        calibration = Calibration(3_000, index.filenode, index.table_filenode, 0.95, 100.0, (point,))
        connection.exec_driver_sql(f"COMMENT ON INDEX {VECTOR_INDEX} IS '{calibration.to_comment()}'")
