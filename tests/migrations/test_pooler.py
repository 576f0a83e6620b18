"""Migrating through a real PgBouncer."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from syntegra_db import migrations
from syntegra_db.errors import MigrationFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL

    from support.servers import Database

pytestmark = pytest.mark.pooler

ADVISORY_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"


@contextmanager
def pgbouncer(database: Database, mode: str, folder: Path) -> Iterator[URL]:
    """The URL of `database` through a pooler in `mode`."""
    url = database.url
    host = url.host or str(url.query["host"])
    server = {"host": host, "port": url.port or 5432, "user": url.username, "password": url.password}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = folder / f"{mode}.ini"
    configuration.write_text(
        f"[databases]\n* = {' '.join(f'{key}={value}' for key, value in server.items() if value)}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\n"
    )
    command = ["pgbouncer", str(configuration)]
    if os.geteuid() == 0:
        # It refuses to be root, and a socket is open to the owner of its folder.
        command += ["-u", Path(host).owner() if host.startswith("/") else "nobody"]  # codespell:ignore nobody
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_open(port)
        yield url.set(host="127.0.0.1", port=port).set(query={})
    finally:
        process.terminate()
        process.wait()


def wait_until_open(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_transaction_mode_pooler_is_rejected_without_lock_left(empty_database: Database, tmp_path: Path) -> None:
    with pgbouncer(empty_database, "transaction", tmp_path) as url:
        with pytest.raises(MigrationFailed, match="connected through a transaction-mode pooler"):
            migrations.upgrade("head", url)
        assert empty_database.query(ADVISORY_LOCKS) == [(0,)]
        assert empty_database.query("SELECT to_regclass('data_sources')") == [(None,)]


def test_session_mode_pooler_migrates(empty_database: Database, tmp_path: Path) -> None:
    with pgbouncer(empty_database, "session", tmp_path) as url:
        assert migrations.upgrade("head", url) == "003"
