"""What the plugin reports if it cannot run tests: one sentence, without a traceback and without a password."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from support.servers import ROLE_PASSWORD
from syntegra_db.connections import conninfo
from syntegra_db.testing._databases import ABANDONED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.servers import Database, Server

    RunSuite = Callable[..., pytest.RunResult]

PASSWORD = "hunter2-is-the-password"  # noqa: S105  of no server
SUITE = """
def test_session(syntegra_session): ...
"""
FAILURES = {
    "choice": (["--syntegra-server", PASSWORD], "--syntegra-server is none of embedded, docker and a URL such as"),
    "isolation": (["--syntegra-isolation", "none"], "--syntegra-isolation is 'none'; it takes database or rollback."),
    "version": (["--syntegra-postgres", "new"], "--syntegra-postgres is 'new', not a version such as 18."),
    "no such version": (["--syntegra-server=embedded", "--syntegra-postgres=9"], "There is no embedded PostgreSQL 9"),
    "no server": (
        ["--syntegra-server", f"postgresql://administrator:{PASSWORD}@localhost:1/postgres"],
        "because the connection to the database postgres on localhost:1 failed (connection to server",
    ),
    "another database": (["--syntegra-server", f"mysql://a:{PASSWORD}@localhost/b"], "--syntegra-server names 'mysql'"),
    "no Docker": (["--syntegra-server", "docker"], "--syntegra-server docker cannot start pgvector/pgvector:pg17"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_run_that_cannot_start_ends_with_a_sentence(
    run_suite: RunSuite, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    arguments, message = FAILURES[failure]
    monkeypatch.setenv("DOCKER_HOST", "tcp://localhost:1")
    result = run_suite(SUITE, "--showlocals", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    require_sentence(result, message)


def test_processes_of_xdist_that_cannot_start_report_a_sentence(run_suite: RunSuite) -> None:
    arguments, message = FAILURES["no server"]
    result = run_suite(SUITE, "-n", "1", *arguments, plugins=["xdist"])
    result.assert_outcomes(errors=1)
    require_sentence(result, message)


def test_role_that_cannot_create_databases_is_reported(
    run_suite: RunSuite, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.role("syntegra_test_plain") as role:
        url = server.url.set(username=role, password=ROLE_PASSWORD)
        monkeypatch.setenv("SYNTEGRA_SERVER", url.render_as_string(hide_password=False))
        result = run_suite(SUITE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    require_sentence(result, "The role of --syntegra-server cannot create databases on the server of the database")


def test_marker_with_unknown_isolation_is_reported(run_suite: RunSuite) -> None:
    result = run_suite(f"import pytest\n@pytest.mark.syntegra_isolation('none'){SUITE}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    require_sentence(result, "has 'none'; it takes database or rollback.")


def test_anyio_with_trio_is_reported(run_suite: RunSuite) -> None:
    suite = """
import pytest
@pytest.fixture
def anyio_backend(): return "trio"
def test_engine(anyio_backend, syntegra_async_engine): ...
"""
    result = run_suite(suite, plugins=["anyio"])
    result.assert_outcomes(errors=1)
    require_sentence(result, "SQLAlchemy's asyncio engines do not work with trio.")


def require_sentence(result: pytest.RunResult, message: str) -> None:
    output = f"{result.stdout.str()}\n{result.stderr.str()}"
    assert output.count(message) in {1, 2}, output  # the second one is in the summary
    assert "Traceback" not in output
    assert PASSWORD not in output


SLEEP = """
import pathlib, time
def test_wait(syntegra_url, syntegra_server_url):
    file = pathlib.Path("started.new")
    file.write_text(f"{syntegra_url.database} {syntegra_server_url.query.get('host', '')}")
    file.rename("started")
    time.sleep(300)
"""


@pytest.fixture
def killed(pytester: pytest.Pytester, server: Server) -> Iterator[Callable[[str], list[str]]]:
    """Return a function that kills a run of tests on a server, and returns its database and socket folder."""

    def kill(choice: str) -> list[str]:
        pytester.makeconftest('pytest_plugins = ["syntegra_db.testing"]\n')
        pytester.makepyfile(SLEEP)
        started = pytester.path / "started"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
        with subprocess.Popen(
            command,
            env={**os.environ, "SYNTEGRA_SERVER": choice, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            stdout=subprocess.PIPE,
        ) as run:
            wait_for(started.exists)
            run.send_signal(signal.SIGKILL)
        return started.read_text(encoding="utf-8").split(" ")

    yield kill
    with psycopg.connect(conninfo(server.url)) as connection:
        assert connection.execute(ABANDONED).fetchall() == []


def test_killed_run_leaves_no_embedded_server(killed: Callable[[str], list[str]]) -> None:
    _, host = killed("embedded")
    folder = Path(host).parent
    assert folder.name.startswith("syntegra-db-")
    wait_for(lambda: not folder.exists())


def test_databases_of_killed_run_are_dropped_by_the_next(
    killed: Callable[[str], list[str]], run_suite: RunSuite, server: Server, empty_database: Database
) -> None:
    name, _ = killed(server.url.render_as_string(hide_password=False))
    with psycopg.connect(conninfo(server.url)) as connection:
        wait_for(lambda: (name,) in connection.execute(ABANDONED).fetchall())
    run_suite(SUITE).assert_outcomes(passed=1)
    with psycopg.connect(conninfo(server.url)) as connection:
        names = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
    assert name not in names
    assert empty_database.name in names, "it is of a run that lives"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
