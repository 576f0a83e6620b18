"""Fixtures: each test that needs a database gets a new one on a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.fault_table import pytest_terminal_summary
from support.revisions import HEAD
from support.scheduling import pytest_xdist_make_scheduler
from support.servers import Database, Server
from syntegra_db import migrations
from syntegra_db.testing._options import EMBEDDED, OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL

__all__ = ["pytest_terminal_summary", "pytest_xdist_make_scheduler"]  # hooks

pytest_plugins = ["syntegra_db.testing", "pytester"]

FAULTS = Path(__file__).parent / "faults"
VARIABLES = (
    "DATABASE_URL",
    "POSTGRES_HOST",
    "POSTGRES_PORT",
    "POSTGRES_DB",
    "POSTGRES_USER",
    "POSTGRES_PASSWORD",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("syntegra_db")
    group.addoption(
        "--cases", type=int, metavar="N", help="run at most N parameter sets of each test, evenly chosen; default: all"
    )
    group.addoption("--rows", type=int, help="rows of the tests of every kind of evolution; default: a few")
    group.addoption("--kills", type=int, default=2, help="interruptions of each of them")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: needs Chromium and its driver; skipped without them")
    config.addinivalue_line("markers", "docker: needs a Docker engine; skipped without one")
    config.addinivalue_line("markers", "embedded: reads files of the server; skipped on a server without local files")
    config.addinivalue_line("markers", "slow: takes long; `make test-all` runs it on one server")
    config.addinivalue_line("markers", "long: waits for time limits, or runs many commands; `.ci/run` leaves it out")
    config.addinivalue_line("markers", "each(parameter): `--cases` counts for each value of this parameter")
    config.addinivalue_line("markers", "pooler: needs PgBouncer; skipped without it")


def pytest_report_header() -> str | None:
    missing = "; ".join(f"{reason}: the tests marked {marker} are skipped" for marker, reason in missing_programs())
    return missing or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if cases := config.getoption("--cases"):
        chosen = [item for number, test in enumerate(group_by_test(items)) for item in choose(test, cases, number)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen
    for item in items:
        # Most of them wait for a limit, and a second server would not change the outcome.
        if FAULTS in item.path.parents:
            item.add_marker(pytest.mark.slow)
    elsewhere = [("embedded", "the server's files are not on this machine")]
    for marker, reason in [*missing_programs(), *(elsewhere if config.stash[OPTIONS].server != EMBEDDED else [])]:
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def group_by_test(items: list[pytest.Item]) -> Iterator[list[pytest.Item]]:
    """Yield the parameter sets of each test; those of a test marked `each` for each value of that parameter."""
    tests: dict[tuple[str, str], list[pytest.Item]] = {}
    for item in items:
        marker = item.get_closest_marker("each")
        value = str(item.callspec.params[marker.args[0]]) if marker else ""  # type: ignore[attr-defined]  # of a function
        tests.setdefault((item.nodeid.partition("[")[0], value), []).append(item)
    yield from tests.values()


def choose(test: list[pytest.Item], count: int, number: int) -> list[pytest.Item]:
    """Return at most `count` of the parameter sets of `test`, from the first to the last.

    One of a test marked `each` is another for each `number`, so that the values of its other parameters occur too.
    """
    if len(test) <= count:
        return test
    if count == 1:
        return [test[number % len(test)] if test[0].get_closest_marker("each") else test[0]]
    return [test[round(position * (len(test) - 1) / (count - 1))] for position in range(count)]


@cache
def missing_programs() -> list[tuple[str, str]]:
    """Return the markers whose tests cannot run here, each with the reason."""
    missing = []
    if not docker_is_running():
        missing.append(("docker", "no Docker engine answers"))
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        missing.append(("browser", "no chromium and chromedriver on PATH"))
    if shutil.which("pgbouncer") is None:
        missing.append(("pooler", "no pgbouncer on PATH"))
    return missing


def docker_is_running() -> bool:
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


@pytest.fixture(autouse=True)
def isolated_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the settings of the environment, and run the test in a directory without `.env`."""
    for variable in [*VARIABLES, *(name for name in os.environ if name.startswith(("PG", "SYNTEGRA_")))]:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def server(syntegra_server_url: URL) -> Server:
    return Server(syntegra_server_url)


@pytest.fixture(scope="session")
def migrated_template(syntegra_template: str) -> str:
    """Return the name of a database at head, for `CREATE DATABASE … TEMPLATE`."""
    return syntegra_template


@pytest.fixture
def empty_database(server: Server) -> Iterator[Database]:
    with server.database() as database:
        yield database


@pytest.fixture
def database(syntegra_url: URL) -> Database:
    """Return a database at head."""
    return Database(syntegra_url)


@pytest.fixture
def database_003(database: Database) -> Database:
    """Return a database at revision 003, whose downgrade is one step with locks on tables of the revisions before."""
    if HEAD != "003":
        migrations.downgrade("003", database.url)
    return database
