"""What `vectors status` measures and says is true, in the time that there is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from vectors.texts import fill

from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors._index import OLD_INDEX, Calibration, CalibrationPoint, VectorIndex, read_primary_index
from syntegra_db.vectors.maintenance._health import check_index_health
from syntegra_db.vectors.maintenance._rebuild import RebuildOptions, rebuild

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from support.servers import Database, Server


pytestmark = pytest.mark.slow


@pytest.fixture
def indexes_of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searches ask an index on few rows too."""
    monkeypatch.setattr("syntegra_db.vectors._strategy.EXACT_SCAN_MAX_ROWS", 100)
    monkeypatch.setattr("syntegra_db.vectors.maintenance._health.EXACT_SCAN_MAX_ROWS", 100)


def standing(connection: Connection) -> VectorIndex:
    index = read_primary_index(connection)
    assert index is not None
    return index


@pytest.mark.usefixtures("indexes_of_few_rows")
def test_status_of_an_index_that_was_rebuilt_and_grown(server: Server, migrated_template: str) -> None:
    with server.database(migrated_template) as database:
        fill(database, 2_000, {})
        assert check_index_health(database.url, 2).built_on == 0
        rebuild(database.url, RebuildOptions("ivfflat", 30, half=True), measuring_seconds=2)
        seen = check_index_health(database.url, 5)
        assert seen.shape is not None
        assert (seen.shape.method, seen.shape.options, seen.shape.is_half) == ("ivfflat", {"lists": 30}, True)
        assert (seen.built_on, seen.rows, seen.leftovers) == (2_000, 2_000, [])
        assert seen.measured is not None
        assert seen.measured.exact_milliseconds > 0
        database.execute(f"REINDEX INDEX {VECTOR_INDEX}")
        again = check_index_health(database.url, 2)
        assert again.built_on is None
        assert "by other means" in again.advice
        assert again.command == "syntegra-db vectors rebuild"
        database.execute(f"ALTER INDEX {VECTOR_INDEX} RENAME TO {VECTOR_INDEX}_old")
        interrupted = check_index_health(database.url, 2)
        assert (interrupted.shape, interrupted.leftovers) == (None, [f"{VECTOR_INDEX}_old"])
        assert "was interrupted" in interrupted.advice
        database.execute(f"DROP INDEX {VECTOR_INDEX}_old")
        assert "is missing" in check_index_health(database.url, 2).advice


@pytest.mark.usefixtures("indexes_of_few_rows")
def test_status_measures_what_searches_use(server: Server, migrated_template: str) -> None:
    with server.database(migrated_template) as database:
        fill(database, 3_000, {})
        rebuild(database.url, RebuildOptions("ivfflat", 30), measuring_seconds=1)
        keep(database, CalibrationPoint(30, (1.0, 1.0), 0.001))
        seen = check_index_health(database.url, 8).measured
        assert seen is not None
        assert (seen.setting, seen.recall, seen.margin) == (30, 1.0, 0.0)
        assert seen.queries > 20
        keep(database, CalibrationPoint(1, (0.99, 0.99), 0.001))
        seen = check_index_health(database.url, 8).measured
        assert seen is not None
        assert seen.recall is not None
        assert seen.recall < 1


@pytest.mark.usefixtures("indexes_of_few_rows")
def test_status_says_when_two_indexes_serve_a_search(server: Server, migrated_template: str) -> None:
    with server.database(migrated_template) as database:
        fill(database, 2_000, {})
        rebuild(database.url, RebuildOptions("ivfflat", 30), measuring_seconds=2)
        database.execute(f"CREATE INDEX {OLD_INDEX} ON text_summary USING hnsw (embedding vector_cosine_ops)")
        seen = check_index_health(database.url, 2)
        assert (seen.measured, seen.leftovers, seen.command) == (None, [OLD_INDEX], "syntegra-db vectors rebuild")
        assert f"left {OLD_INDEX}" in seen.advice
        database.execute(f"ALTER INDEX {OLD_INDEX} RENAME TO theirs")
        # So costly that the planner prefers theirs.
        keep(database, CalibrationPoint(30, (0.99, 0.99), 0.001))
        seen = check_index_health(database.url, 2)
        assert seen.measured is None
        assert "searches through another index on the embeddings of text_summary, theirs" in str(
            seen.not_measured_reason
        )
        assert seen.advice == "Not known: it was not measured."


def test_status_ends_in_time_and_says_that_it_was_too_short(server: Server, migrated_template: str) -> None:
    with server.database(migrated_template) as database:
        fill(database, 2_000, {})
        began = time.monotonic()
        seen = check_index_health(database.url, 0.001)
        assert time.monotonic() - began < 3
    assert seen.measured is None
    assert seen.not_measured_reason == "0.001 s were too short; allow more with --seconds"
    assert seen.rows == pytest.approx(2_000, rel=0.05)


def keep(database: Database, measurement: CalibrationPoint) -> None:
    """Say of the index of `database` that this is what was measured."""
    with database.engine.begin() as connection:
        index = standing(connection)
        tuning = Calibration(3_000, index.filenode, index.table_filenode, 0.95, 100.0, (measurement,))
        connection.exec_driver_sql(f"COMMENT ON INDEX {VECTOR_INDEX} IS '{tuning.to_comment()}'")
