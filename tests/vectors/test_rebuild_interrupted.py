"""A killed, interrupted or disconnected rebuild leaves a working index, and the next run completes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from support.commands import PROGRAMS, ROOT
from support.embeddings import EMBEDDING
from support.texts import load_texts
from syntegra_db.catalog import verify
from syntegra_db.connections import conninfo
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors._index import read_primary_index
from syntegra_db.vectors.maintenance import RebuildOptions, rebuild
from syntegra_db.vectors.maintenance._build import index_validity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server

pytestmark = [pytest.mark.slow, pytest.mark.long]

TEMPLATE = "syntegra_test_interrupted_template"
BACKENDS = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'syntegra_db rebuild' AND datname = current_database()"
)
BUILDS = "SELECT phase FROM pg_stat_progress_create_index WHERE datname = current_database()"
ATTEMPTS = 4
BUILD_END_SECONDS = 8


@pytest.fixture(scope="module")
def loaded_template(server: Server, migrated_template: str) -> Iterator[str]:
    with server.database(migrated_template, name=TEMPLATE) as database:
        load_texts(database, 2_000, {})
        yield TEMPLATE


@pytest.fixture
def loaded(server: Server, loaded_template: str) -> Iterator[Database]:
    with server.database(loaded_template) as database:
        yield database


@contextmanager
def open_transaction(database: Database) -> Iterator[None]:
    """A transaction that a build waits for."""
    with psycopg.connect(conninfo(database.url)) as writer:
        writer.execute("UPDATE text_summary SET sentiment = 'mixed' WHERE id = 1")
        yield
        writer.rollback()


def start(database: Database) -> subprocess.Popen[str]:
    return subprocess.Popen(
        # Background jobs of a shell ignore the signal.
        ["env", "--default-signal=INT", str(PROGRAMS / "syntegra-db"), "vectors", "rebuild", "--method", "hnsw"],
        env={**os.environ, "DATABASE_URL": database.environment_url},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(database: Database, query: str) -> None:
    deadline = time.monotonic() + 20
    while not database.query(query):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def wait_until_gone(database: Database) -> None:
    """The server ends a build within seconds after its client has gone."""
    deadline = time.monotonic() + BUILD_END_SECONDS
    while database.query(BACKENDS):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_index_works(database: Database) -> None:
    with database.engine.connect() as connection:
        assert index_validity(connection, EMBEDDING).get(VECTOR_INDEX) is True


def assert_next_run_completes(database: Database) -> None:
    rebuild(database.engine, RebuildOptions("ivfflat", 20), calibration_seconds=0.5)
    with database.engine.connect() as connection:
        assert index_validity(connection, EMBEDDING) == {VECTOR_INDEX: True}
        index = read_primary_index(connection, EMBEDDING)
        assert index is not None
        assert index.is_calibration_current
        assert verify(connection).findings == []


def test_rebuild_killed_at_random_time_keeps_working_index(server: Server, loaded_template: str) -> None:
    random_delays = random.Random(7)
    for _ in range(ATTEMPTS):
        with server.database(loaded_template) as database:
            process = start(database)
            wait_for(database, BACKENDS)
            time.sleep(random_delays.uniform(0, 3))
            process.kill()
            process.communicate()
            assert_index_works(database)
            assert_next_run_completes(database)


def test_rebuild_with_lost_connection_keeps_working_index(server: Server, loaded_template: str) -> None:
    random_delays = random.Random(8)
    for _ in range(ATTEMPTS):
        with server.database(loaded_template) as database:
            process = start(database)
            wait_for(database, BACKENDS)
            time.sleep(random_delays.uniform(0, 2))
            database.query(f"SELECT pg_terminate_backend(pid) FROM ({BACKENDS}) AS backends")
            _, errors = process.communicate(timeout=60)
            assert process.returncode in {0, 4}, errors
            assert "Traceback" not in errors
            assert_index_works(database)
            assert_next_run_completes(database)


def test_rebuild_killed_while_waiting_is_ended_by_server(loaded: Database) -> None:
    with open_transaction(loaded):
        process = start(loaded)
        wait_for(loaded, BUILDS)
        process.kill()
        process.communicate()
        wait_until_gone(loaded)
    assert_index_works(loaded)
    assert_next_run_completes(loaded)


def test_rebuild_after_ctrl_c_reports_index_and_ends_build(loaded: Database) -> None:
    with open_transaction(loaded):
        process = start(loaded)
        wait_for(loaded, BUILDS)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
        assert f"Interrupted. The index {VECTOR_INDEX} works" in errors
        wait_until_gone(loaded)
    assert_index_works(loaded)
    assert_next_run_completes(loaded)


def test_rebuild_with_cancelled_statement_reports_one_line(loaded: Database) -> None:
    with open_transaction(loaded):
        process = start(loaded)
        wait_for(loaded, BUILDS)
        loaded.query("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_create_index")
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 26, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("Error:")]
    assert "canceling statement due to user request" in line
    assert f"The index {VECTOR_INDEX} works" in line
    assert_index_works(loaded)
    assert_next_run_completes(loaded)


def test_rebuild_with_cancelled_statement_drops_unfinished_index(loaded: Database) -> None:
    process = start(loaded)
    wait_for(loaded, BUILDS)
    loaded.query("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_create_index")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 26, errors
    with loaded.engine.connect() as connection:
        assert index_validity(connection, EMBEDDING) == {VECTOR_INDEX: True}
