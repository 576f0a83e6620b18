"""Faults that a command meets at a known statement, and the state of its database before and after."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql

from support.processes import wait_until
from syntegra_db.catalog import existing_tables, managed_tables
from syntegra_db.connections import connect
from syntegra_db.revisions import current_revision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from decimal import Decimal

    from support.servers import Database, EmbeddedServer
    from support.tcp_proxy import TcpProxy

DISK_BYTES = 320 << 20
# Small enough that a full disk stops the write-ahead log too.
SETTINGS = (
    "synchronous_commit = on",
    "wal_recycle = off",
    "min_wal_size = '32MB'",
    "max_wal_size = '64MB'",
    "shared_buffers = '32MB'",
)
# The limits of a silent network, measured in test_silent_network.py, add up to more than a minute.
SHORT_LIMITS = """
from syntegra_db import network
network.SILENCE_SECONDS = network.PROBE_SECONDS = 1
network.LIBPQ_LIMITS["connect_timeout"] = 2
"""
OTHER_SESSIONS = """
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
END_SESSIONS = OTHER_SESSIONS.replace("SELECT", "SELECT pg_terminate_backend(pid)")


@dataclass
class Target:
    """A running command that waits for its mark in `proxy`, and what it works on."""

    server: EmbeddedServer
    disk: Path
    database: Database
    proxy: TcpProxy
    process: subprocess.Popen[str]
    commits: bool


class Fault(NamedTuple):
    """`inject` happens while a statement waits in the proxy; `recover` after the command has ended.

    `statuses` are the possible exit statuses, those of errors and of success if empty.
    """

    name: str
    inject: Callable[[Target], object]
    recover: Callable[[Target], object] = lambda _: None
    statuses: tuple[int, ...] = ()
    seconds: float = 30


def end_sessions(target: Target) -> None:
    target.database.query(END_SESSIONS)
    wait_until(lambda: not target.database.query(OTHER_SESSIONS))


def lose_answer(target: Target) -> None:
    """Lose the answer to the next COMMIT, or that to the mark if the command commits nothing."""
    target.proxy.lose_answer(*() if target.commits else (b"",))


def fill_disk(target: Target) -> None:
    with (target.disk / "filler").open("wb") as file:
        for size in (1 << 20, 1 << 12):
            while os.statvfs(target.disk).f_bavail * os.statvfs(target.disk).f_frsize >= size:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)


def free_disk(target: Target) -> None:
    (target.disk / "filler").unlink()
    target.server.start()


FAULTS = [
    Fault("kill -9", lambda target: target.process.kill(), statuses=(-9,)),
    Fault("SIGTERM", lambda target: target.process.terminate(), statuses=(143, -SIGTERM)),
    Fault("terminated backend", end_sessions),
    Fault("stopped server", lambda target: target.server.stop_immediately(), lambda target: target.server.start()),
    Fault("lost COMMIT answer", lose_answer),
    Fault("silent network", lambda target: target.proxy.silence(), lambda target: target.proxy.cut(), seconds=120),
    Fault("full disk", fill_disk, free_disk),
]


@contextmanager
def small_disk() -> Iterator[Path]:
    """Mount a small file system and yield its directory; this needs root."""
    folder = Path(tempfile.mkdtemp(prefix="syntegra-db-"))
    options = f"size={DISK_BYTES},mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def child_processes(pid: int) -> list[Path]:
    """Return the directories in /proc of the processes that `pid` and its children have started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [path for child in children for path in (Path("/proc", child), *child_processes(int(child)))]


class State(NamedTuple):
    """The revision of a database, and by table the number of rows and, if the values matter, a checksum of them."""

    revision: str | None
    tables: dict[str, tuple[int, Decimal | None]]


def read_state(database: Database, *, with_values: bool) -> State:
    checksum = sql.SQL("sum(hashtextextended(t::text, 0))" if with_values else "NULL")
    query = sql.SQL("SELECT count(*), {} FROM {} AS t")
    with connect(database.engine) as connection:
        names = [name for name in existing_tables(connection) if name in managed_tables()]
        revision = current_revision(connection)
    with database.connect() as session:
        rows = {name: session.execute(query.format(checksum, sql.Identifier(name))).fetchone() for name in names}
    return State(revision, {name: row for name, row in rows.items() if row is not None})
