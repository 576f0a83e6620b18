"""What `vectors status` measures and says is true, in the time that there is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from vectors.texts import fill

from syntegra_db.vectors.condition import examine
from syntegra_db.vectors.index import OLD, VECTOR_INDEX, Measurement, Tuning, VectorIndex, read_index
from syntegra_db.vectors.rebuilding import Wish, rebuild

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from servers import Database, Server


pytestmark = pytest.mark.slow


@pytest.fixture
def indexes_of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searches ask an index on few rows too."""
    monkeypatch.setattr("syntegra_db.vectors.planning.ALWAYS_EXACT_ROWS", 100)
    monkeypatch.setattr("syntegra_db.vectors.advice.ALWAYS_EXACT_ROWS", 100)


def standing(connection: Connection) -> VectorIndex:
    index = read_index(connection)
    assert index is not None
    return index


@pytest.mark.usefixtures("indexes_of_few_rows")
def test_status_of_an_index_that_was_rebuilt_and_grown(server: Server, migrated_template: str) -> None:
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


@pytest.mark.usefixtures("indexes_of_few_rows")
def test_status_measures_what_searches_use(server: Server, migrated_template: str) -> None:
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


@pytest.mark.usefixtures("indexes_of_few_rows")
def test_status_says_when_two_indexes_serve_a_search(server: Server, migrated_template: str) -> None:
    with server.database(migrated_template) as database:
        fill(database, 2_000, {})
        rebuild(database.url, Wish("ivfflat", 30), measuring_seconds=2)
        database.execute(f"CREATE INDEX {OLD} ON text_summary USING hnsw (embedding vector_cosine_ops)")
        seen = examine(database.url, 2)
        assert (seen.measured, seen.leftovers, seen.command) == (None, [OLD], "syntegra-db vectors rebuild")
        assert f"left {OLD}" in seen.advice
        database.execute(f"ALTER INDEX {OLD} RENAME TO theirs")
        # So costly that the planner prefers theirs.
        keep(database, Measurement(30, (0.99, 0.99), 0.001))
        seen = examine(database.url, 2)
        assert seen.measured is None
        assert "searches through another index on the embeddings of text_summary, theirs" in str(
            seen.unmeasured_because
        )
        assert seen.advice == "Not known: it was not measured."


def test_status_ends_in_time_and_says_that_it_was_too_short(server: Server, migrated_template: str) -> None:
    with server.database(migrated_template) as database:
        fill(database, 2_000, {})
        began = time.monotonic()
        seen = examine(database.url, 0.001)
        assert time.monotonic() - began < 3
    assert seen.measured is None
    assert seen.unmeasured_because == "0.001 s were too short; allow more with --seconds"
    assert seen.rows == pytest.approx(2_000, rel=0.05)


def keep(database: Database, measurement: Measurement) -> None:
    """Say of the index of `database` that this is what was measured."""
    with database.engine.begin() as connection:
        index = standing(connection)
        tuning = Tuning(3_000, index.filenode, index.table_filenode, 0.95, 100.0, (measurement,))
        connection.exec_driver_sql(f"COMMENT ON INDEX {VECTOR_INDEX} IS '{tuning.to_comment()}'")
