"""A real PgBouncer in front of the server of a test."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from syntegra_db.sql import literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL

    from support.servers import Database


@contextmanager
def pgbouncer(
    database: Database, mode: str, folder: Path, pool_size: int = 20, user: str | None = None
) -> Iterator[URL]:
    """The URL of `database` through a pooler in `mode`, for its administrator or for the login `user`."""
    url = database.url if user is None else database.url_as(user)
    host = url.host or str(url.query["host"])
    server = {"host": host, "port": url.port or 5432, "user": url.username, "password": url.password}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = folder / f"{mode}.ini"
    configuration.write_text(
        f"[databases]\n* = {' '.join(f'{key}={literal(str(value))}' for key, value in server.items() if value)}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\ndefault_pool_size = {pool_size}\n"
    )
    command = ["pgbouncer", str(configuration)]
    if os.geteuid() == 0:
        # It refuses to be root, and a socket is open to the owner of its folder.
        command += ["-u", Path(host).owner() if host.startswith("/") else "daemon"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_open(port)
        yield url.set(host="127.0.0.1", port=port).set(query={})
    finally:
        process.terminate()
        process.wait()


def _wait_until_open(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)
