"""The embedded server through its commands."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from support.commands import run, succeed
from syntegra_db import embedded
from syntegra_db.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, as the name of a Unix socket must be, that any user may enter."""
    path = Path(tempfile.mkdtemp(prefix="sdb-"))
    yield path
    run("syntegra-db", "local", "stop", cwd=path)
    shutil.rmtree(path)


@pytest.mark.parametrize("version", embedded.VERSIONS)
def test_start_and_stop_of_embedded_server(folder: Path, version: int) -> None:
    started = succeed("syntegra-db", "local", "start", "--version", str(version), cwd=folder)
    assert f"PostgreSQL {version} is running" in started
    url = succeed("syntegra-db", "local", "url", cwd=folder).strip()
    assert url.startswith("postgresql://syntegra_user@/syntegra_db?host=")
    succeed("syntegra-db", "upgrade", cwd=folder)
    query = (
        "-Atc",
        "SELECT current_user, rolsuper, version_num FROM pg_roles, alembic_version WHERE rolname = current_user",
    )
    for psql in (("syntegra-db", "local", "psql"), ("syntegra-db", "psql")):
        assert succeed(*psql, *query, cwd=folder) == "syntegra_user|f|003\n"
    assert f"PostgreSQL {version} stopped." in succeed("syntegra-db", "local", "stop", cwd=folder)
    assert "It was not running." in succeed("syntegra-db", "local", "stop", cwd=folder)
    assert run("syntegra-db", "local", "url", cwd=folder).returncode == 13


def test_data_after_restart_is_kept(folder: Path) -> None:
    succeed("syntegra-db", "local", "start", cwd=folder)
    succeed("syntegra-db", "upgrade", "001", cwd=folder)
    before = succeed("syntegra-db", "local", "url", cwd=folder)
    succeed("syntegra-db", "local", "start", cwd=folder)
    succeed("syntegra-db", "local", "stop", cwd=folder)
    succeed("syntegra-db", "local", "start", cwd=folder)
    assert succeed("syntegra-db", "local", "url", cwd=folder) == before
    assert succeed("syntegra-db", "psql", "-Atc", "SELECT * FROM alembic_version", cwd=folder) == "001\n"


def test_start_after_stop_in_same_process_succeeds(folder: Path) -> None:
    data = folder / "18"
    embedded.start_server(data)
    assert embedded.stop_server(data)
    with psycopg.connect(embedded.start_server(data)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert embedded.stop_server(data)


def test_concurrent_starts_both_succeed(folder: Path) -> None:
    with ThreadPoolExecutor() as together:
        starts = list(together.map(lambda _: run("syntegra-db", "local", "start", cwd=folder), range(2)))
    assert [start.returncode for start in starts] == [0, 0], [start.stderr for start in starts]


def test_start_with_configured_server_does_nothing(folder: Path) -> None:
    result = run(
        "syntegra-db", "local", "start", "--unless-configured", cwd=folder, environment={"POSTGRES_HOST": "elsewhere"}
    )
    assert (result.returncode, result.stdout) == (0, "")
    assert not (folder / ".postgres").exists()


def test_unknown_version_is_rejected(folder: Path) -> None:
    result = run("syntegra-db", "local", "start", "--version", "9", cwd=folder)
    assert result.returncode == 13
    assert result.stderr == "Error: There is no embedded PostgreSQL 9; choose 18 or 16.\n"


def test_server_that_cannot_start_names_its_log(folder: Path) -> None:
    succeed("syntegra-db", "local", "start", cwd=folder)
    succeed("syntegra-db", "local", "stop", cwd=folder)
    with (folder / ".postgres/18/postgresql.conf").open("a", encoding="utf-8") as configuration:
        configuration.write("shared_buffers = nonsense\n")
    result = run("syntegra-db", "local", "start", cwd=folder)
    assert result.returncode == 13
    assert str(folder / ".postgres/18/log") in result.stderr or ".postgres/18/log" in result.stderr
    assert "Traceback" not in result.stderr


def test_command_after_crash_names_start_command(folder: Path) -> None:
    succeed("syntegra-db", "local", "start", cwd=folder)
    os.kill(server_pid(folder / ".postgres/18"), signal.SIGKILL)
    result = run("syntegra-db", "upgrade", cwd=folder)
    assert result.returncode == 5
    assert "syntegra-db local start" in result.stderr
    succeed("syntegra-db", "local", "start", cwd=folder)
    succeed("syntegra-db", "upgrade", cwd=folder)


@pytest.mark.parametrize("version", embedded.VERSIONS)
def test_start_right_after_kill_recovers_server(folder: Path, version: int) -> None:
    data = folder / str(version)
    embedded.start_server(data, version)
    os.kill(server_pid(data), signal.SIGKILL)
    with psycopg.connect(embedded.start_server(data, version)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert embedded.stop_server(data, version)


def test_start_with_reused_pid_names_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder / "18"
    embedded.start_server(data)
    pid_file = data / "postmaster.pid"
    left_by_crash = pid_file.read_text(encoding="utf-8").replace(str(server_pid(data)), str(os.getpid()), 1)
    assert embedded.stop_server(data)
    pid_file.write_text(left_by_crash, encoding="utf-8")
    monkeypatch.setattr(embedded, "REAP_TIMEOUT_SECONDS", 0.3)
    with pytest.raises(EmbeddedServerError, match=rf"accepts no connections, but its process {os.getpid()} is still"):
        embedded.start_server(data)
    pid_file.unlink()


def server_pid(data: Path) -> int:
    return int((data / "postmaster.pid").read_text(encoding="utf-8").split(maxsplit=1)[0])
