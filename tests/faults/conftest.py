"""Fixtures of the fault tests: a server that a test may stop or configure."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import pytest

from support.servers import embedded_server
from syntegra_db.client_programs import find_program_for_server
from syntegra_db.network import IDLE_IN_TRANSACTION_SECONDS
from syntegra_db.testing._options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.servers import Database, EmbeddedServer


@pytest.fixture
def own_server(pytestconfig: pytest.Config) -> Iterator[EmbeddedServer]:
    """Yield an embedded server that no other test uses, and whose commits survive a crash."""
    with embedded_server(pytestconfig.stash[OPTIONS].postgres) as server:
        server.execute("ALTER SYSTEM SET synchronous_commit = on")
        server.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def slow_pg_dump(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pg_dump that takes longer than the server lets a transaction be idle."""
    with database.connect() as connection:
        version = connection.info.server_version // 10_000
    program = shlex.join(find_program_for_server("pg_dump", version).command)
    script = tmp_path / "bin" / "pg_dump"
    script.parent.mkdir()
    seconds = IDLE_IN_TRANSACTION_SECONDS + 2
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] || sleep {seconds}\nexec {program} "$@"\n')
    script.chmod(0o700)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
