"""Commands that run while a test locks tables, sends signals and reads the server's view of them."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, LiteralString

from support.commands import PROGRAMS
from syntegra_db.connections import connect
from syntegra_db.migrations import migration_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.servers import Database

# Background jobs of a shell ignore these signals, and the tests inherit that.
DEFAULT_SIGNALS = ("env", "--default-signal=INT,HUP,TERM")
# The first index or drop of a session takes a second, in which a test can do something to the command.
PAUSE: tuple[LiteralString, ...] = (
    """
    CREATE FUNCTION pause() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF coalesce(current_setting('syntegra_test.paused', true), '') = '' THEN
        PERFORM pg_sleep(1), set_config('syntegra_test.paused', 'yes', false);
      END IF;
    END$$
    """,
    """
    CREATE EVENT TRIGGER pause ON ddl_command_end WHEN TAG IN ('CREATE INDEX', 'DROP TABLE', 'ALTER INDEX')
    EXECUTE FUNCTION pause()
    """,
)
PAUSED = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"


BLOCKS_READERS_OR_WRITERS = "mode IN ('AccessExclusiveLock', 'ShareRowExclusiveLock')"


@contextmanager
def running(
    database: Database, program: str, *arguments: str, cwd: Path | None = None, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Run a program of the tests' environment on `database` during the block; kill it if it has not ended."""
    with subprocess.Popen(
        [*DEFAULT_SIGNALS, program, *arguments],
        env={
            **os.environ,
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "DATABASE_URL": database.environment_url,
            **environment,
        },
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def migration_lock_of(database: Database) -> Iterator[None]:
    """Hold the lock of a migration during the block."""
    with connect(database.engine) as connection, migration_lock(connection, 1):
        yield


def kill_at_random(process: subprocess.Popen[str], shortest: float, longest: float) -> None:
    """Kill `process` after a random time between both, in seconds, or let it end before that."""
    try:
        process.communicate(timeout=random.uniform(shortest, longest))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


@contextmanager
def writing(database: Database, statement: LiteralString) -> Iterator[list[float]]:
    """Execute `statement` every 10 ms during the block, and yield the list of the seconds that each execution took."""
    seconds: list[float] = []
    ended = threading.Event()

    def write() -> None:
        with database.connect() as connection:
            while not ended.wait(0.01):
                started = time.monotonic()
                connection.execute(statement)
                seconds.append(time.monotonic() - started)

    with in_thread(write):
        try:
            yield seconds
        finally:
            ended.set()


@contextmanager
def blocking(database: Database, seconds: float, *statements: LiteralString) -> Iterator[None]:
    """Keep a transaction that has executed `statements` open for `seconds`, at the same time as the block."""

    def block() -> None:
        with database.connect() as connection, connection.transaction():
            for statement in statements:
                connection.execute(statement)
            time.sleep(seconds)

    with in_thread(block):
        yield


@contextmanager
def in_thread(act: Callable[[], object]) -> Iterator[None]:
    """Call `act` at the same time as the block, and wait for its end."""
    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@contextmanager
def lock_after(database: Database, table: str) -> Iterator[None]:
    """Another session waits for the lock that a command holds on `table`, so it gets it when the command commits."""
    finished = threading.Event()

    def wait_and_lock() -> None:
        with database.connect() as connection:
            held = f"SELECT FROM pg_locks WHERE relation = '{table}'::regclass AND {BLOCKS_READERS_OR_WRITERS}"
            deadline = time.monotonic() + 60
            while not connection.execute(held.encode()).rowcount:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            with connection.transaction():
                connection.execute(f"LOCK TABLE {table}".encode())
                finished.wait(60)

    with in_thread(wait_and_lock):
        try:
            yield
        finally:
            finished.set()


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until `condition` is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_rows(database: Database, query: LiteralString, seconds: float = 30) -> None:
    """Wait until `query` returns a row."""
    wait_until(lambda: database.query(query), seconds)
