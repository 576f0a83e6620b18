"""A network that forwards nothing more: a proxy acknowledges what it does not forward, so TCP does not notice it."""

from __future__ import annotations

import asyncio
import shlex
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from support.commands import run
from support.legacy_databases import execute
from support.processes import PAUSE, PAUSED, running, wait_for_rows
from support.revisions import HEAD
from support.sample_rows import load_rows
from support.servers import Database
from support.tcp_proxy import tcp_proxy
from syntegra_db import network
from syntegra_db.database import create_async_engine, create_engine
from syntegra_db.migrations import downgrade, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.long

ANSWER_SECONDS = network.SILENCE_SECONDS + network.PROBES * network.PROBE_SECONDS
DUMPING = "SELECT FROM pg_locks WHERE relation = 'clusters'::regclass AND mode = 'AccessShareLock'"
CONNECT_SECONDS = network.LIBPQ_LIMITS["connect_timeout"]
GRACE_SECONDS = 5


@pytest.fixture
def proxy(database: Database) -> Iterator[TcpProxy]:
    with tcp_proxy(database.url) as proxy:
        yield proxy


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + GRACE_SECONDS


def test_pooled_checkout_ends_and_recovers(proxy: TcpProxy) -> None:
    engine = create_engine(proxy.url, pool_size=1, max_overflow=0)
    with engine.connect():
        pass
    proxy.silence()
    with at_most(ANSWER_SECONDS + CONNECT_SECONDS), pytest.raises(OperationalError):
        engine.connect()
    proxy.resume()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


@pytest.mark.long
def test_async_checkout_ends_while_other_tasks_run(proxy: TcpProxy) -> None:
    async def checkout() -> int:
        engine = create_async_engine(proxy.url)
        async with engine.connect():
            pass
        proxy.silence()
        pending = asyncio.ensure_future(engine.connect().start())
        ticks = 0
        while not pending.done():
            await asyncio.sleep(0.1)
            ticks += 1
        with pytest.raises(OperationalError):
            await pending
        await engine.dispose()
        return ticks

    with at_most(ANSWER_SECONDS + CONNECT_SECONDS):
        ticks = asyncio.run(checkout())
    assert ticks > 10 * network.SILENCE_SECONDS / 2


@pytest.mark.parametrize("accepts_others", [True, False])
def test_long_statement_on_answering_host_is_not_ended(
    proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch, *, accepts_others: bool
) -> None:
    monkeypatch.setattr(network, "SILENCE_SECONDS", 0.5)
    engine = create_engine(proxy.url)
    with engine.connect() as connection:
        if not accepts_others:
            proxy.refuse()
        assert connection.scalar(text("SELECT 1 FROM pg_sleep(5)")) == 1
    engine.dispose()


LONG_COMMANDS = ("verify", "upgrade", "backup", "vectors status", "psql -c 'SELECT 1'")
COMMANDS = ("status", *(pytest.param(command, marks=pytest.mark.long) for command in LONG_COMMANDS))


@pytest.mark.parametrize("command", COMMANDS)
def test_command_on_silent_network_ends(proxy: TcpProxy, tmp_path: Path, command: str) -> None:
    proxy.silence()
    url = proxy.url.render_as_string(hide_password=False)
    # The diagnosis and a report of the state may connect again.
    with at_most(3 * CONNECT_SECONDS):
        result = run("syntegra-db", *shlex.split(command), url=url, cwd=tmp_path)
    assert result.returncode not in {0, 1}
    assert "Traceback" not in result.stderr


@pytest.mark.long
def test_migration_on_silent_network_ends_without_change(proxy: TcpProxy, database: Database) -> None:
    downgrade("002", database.url)
    execute(database, *PAUSE)
    with running(Database(proxy.url), "syntegra-db", "upgrade") as process:
        wait_for_rows(database, PAUSED)
        proxy.silence()
        with at_most(ANSWER_SECONDS + 2 * CONNECT_SECONDS):
            _, errors = process.communicate()
    assert process.returncode == 11, errors
    proxy.resume()
    assert upgrade(url=proxy.url) == HEAD


@pytest.mark.long
@pytest.mark.usefixtures("slow_pg_dump")
@pytest.mark.parametrize("command", [("backup",), ("rollback", "002")])
def test_pg_dump_on_silent_network_is_ended(
    proxy: TcpProxy, database: Database, tmp_path: Path, command: tuple[str, ...]
) -> None:
    load_rows(database, 200)
    with running(Database(proxy.url), "syntegra-db", *command, cwd=tmp_path) as process:
        wait_for_rows(database, DUMPING)
        time.sleep(1)
        proxy.silence()
        with at_most(ANSWER_SECONDS + 2 * CONNECT_SECONDS):
            process.communicate()
    assert process.returncode in {4, 11}
    assert not list(tmp_path.glob("backups/*"))
