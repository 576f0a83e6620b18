"""A rebuild that is killed, interrupted or cut off at any moment leaves a working index, and the next run completes."""

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
from vectors.texts import fill

from support.commands import PROGRAMS, ROOT
from syntegra_db.catalog import verify
from syntegra_db.connections import conninfo
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors._index import read_primary_index
from syntegra_db.vectors.maintenance._build import index_validity
from syntegra_db.vectors.maintenance._rebuild import RebuildOptions, rebuild

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server

pytestmark = pytest.mark.slow

FILLED = "syntegra_test_interrupted_filled"
BACKENDS = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'syntegra_db rebuild' AND datname = current_database()"
)
BUILDS = "SELECT phase FROM pg_stat_progress_create_index WHERE datname = current_database()"
MOMENTS = 4
ENDING_SECONDS = 8


@pytest.fixture(scope="module")
def filled_template(server: Server, migrated_template: str) -> Iterator[str]:
    with server.database(migrated_template, name=FILLED) as database:
        fill(database, 2_000, {})
        yield FILLED


@pytest.fixture
def filled(server: Server, filled_template: str) -> Iterator[Database]:
    with server.database(filled_template) as database:
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
        # A shell's background jobs, and so their tests, ignore the signal.
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
    """The server notices soon that nobody waits for the build any more, and ends it."""
    deadline = time.monotonic() + ENDING_SECONDS
    while database.query(BACKENDS):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_something_works(database: Database) -> None:
    with database.engine.connect() as connection:
        assert index_validity(connection).get(VECTOR_INDEX) is True


def assert_the_next_run_completes(database: Database) -> None:
    rebuild(database.url, RebuildOptions("ivfflat", 20), measuring_seconds=0.5)
    with database.engine.connect() as connection:
        assert index_validity(connection) == {VECTOR_INDEX: True}
        index = read_primary_index(connection)
        assert index is not None
        assert index.is_calibration_current
        assert verify(connection).findings == []


def test_killed_at_any_moment(server: Server, filled_template: str) -> None:
    moments = random.Random(7)
    for _ in range(MOMENTS):
        with server.database(filled_template) as database:
            process = start(database)
            wait_for(database, BACKENDS)
            time.sleep(moments.uniform(0, 3))
            process.kill()
            process.communicate()
            assert_something_works(database)
            assert_the_next_run_completes(database)


def test_its_server_process_ended_at_any_moment(server: Server, filled_template: str) -> None:
    moments = random.Random(8)
    for _ in range(MOMENTS):
        with server.database(filled_template) as database:
            process = start(database)
            wait_for(database, BACKENDS)
            time.sleep(moments.uniform(0, 2))
            database.query(f"SELECT pg_terminate_backend(pid) FROM ({BACKENDS}) AS backends")
            _, errors = process.communicate(timeout=60)
            assert process.returncode in {0, 4}, errors
            assert "Traceback" not in errors
            assert_something_works(database)
            assert_the_next_run_completes(database)


def test_killed_while_it_waits_the_server_ends_it_and_the_next_run_clears_up(filled: Database) -> None:
    with open_transaction(filled):
        process = start(filled)
        wait_for(filled, BUILDS)
        process.kill()
        process.communicate()
        wait_until_gone(filled)
    assert_something_works(filled)
    assert_the_next_run_completes(filled)


def test_ctrl_c_says_what_stands_and_leaves_nothing_that_works_on(filled: Database) -> None:
    with open_transaction(filled):
        process = start(filled)
        wait_for(filled, BUILDS)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
        assert f"Interrupted. The index {VECTOR_INDEX} works" in errors
        wait_until_gone(filled)
    assert_something_works(filled)
    assert_the_next_run_completes(filled)


def test_a_cancelled_statement_is_one_line_and_cleared_up(filled: Database) -> None:
    with open_transaction(filled):
        process = start(filled)
        wait_for(filled, BUILDS)
        filled.query("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_create_index")
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 26, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("Error:")]
    assert "canceling statement due to user request" in line
    assert f"The index {VECTOR_INDEX} works" in line
    assert_something_works(filled)
    assert_the_next_run_completes(filled)


def test_what_a_cancelled_build_leaves_is_dropped_at_once_where_nobody_stands_in_the_way(filled: Database) -> None:
    process = start(filled)
    wait_for(filled, BUILDS)
    filled.query("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_create_index")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 26, errors
    with filled.engine.connect() as connection:
        assert index_validity(connection) == {VECTOR_INDEX: True}
