"""The embedded server through its commands."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import NullPool, text

from support.commands import PROGRAMS, run, succeed
from support.revisions import HEAD
from syntegra_db import embedded
from syntegra_db.database import create_engine
from syntegra_db.embedded import _answers, _folders, _programs, _server
from syntegra_db.errors import EmbeddedServerError
from syntegra_db.libpq_options import GIVEN_OPTIONS, known_options

SERVICE = """
import asyncio, os, sys
from sqlalchemy import NullPool, text
from syntegra_db.database import create_async_engine, create_engine

async def read():
    async with create_async_engine().connect() as connection:
        return await connection.scalar(text("SELECT 1"))

with create_engine().connect() as connection:
    print(connection.scalar(text("SELECT 1")), asyncio.run(read()), os.environ[sys.argv[1]])
"""

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
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
        assert succeed(*psql, *query, cwd=folder) == f"syntegra_user|f|{HEAD}\n"
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


@pytest.mark.long
@pytest.mark.parametrize("has_createdb", [True, False])
@pytest.mark.parametrize("database", ["kpi nuevos", "syntegra_test"])
def test_missing_database_on_embedded_server_is_created_as_printed(
    folder: Path, tmp_path: Path, database: str, *, has_createdb: bool
) -> None:
    succeed("syntegra-db", "local", "start", cwd=folder)
    url = succeed("syntegra-db", "local", "url", cwd=folder).strip().replace("/syntegra_db?", f"/{quote(database)}?")
    (tmp_path / "sh").symlink_to("/bin/sh")
    directories = [tmp_path, PROGRAMS, *([embedded.bin_directory()] if has_createdb else [])]
    path = {"PATH": os.pathsep.join(map(str, directories))}
    missing = run("syntegra-db", "status", url=url, cwd=folder, environment=path)
    assert missing.returncode == 7
    command = re.search(r"`(.*)`\)", missing.stderr)
    assert command is not None
    subprocess.run(["sh", "-c", command[1]], env={**path, "DATABASE_URL": url}, cwd=folder, check=True)
    succeed("syntegra-db", "upgrade", "002", url=url, cwd=folder)


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


@pytest.mark.long
def test_variables_of_libpq_do_not_lead_elsewhere(folder: Path) -> None:
    together = {
        variable: "nonsense"
        for name, (variable, _) in known_options().items()
        if variable and name not in {*GIVEN_OPTIONS, "service", "hostaddr"}
    }
    together |= dict.fromkeys(("PGTZ", "PGDATESTYLE", "PGGEQO", "PGCLIENTENCODING", "PGCONNECT_TIMEOUT"), "nonsense")
    together |= {"PGPORT": "5433", "PGOPTIONS": "-c search_path=nowhere"}
    assert {"PGSSLMODE", "PGTARGETSESSIONATTRS", "PGREQUIREPEER"} < together.keys()
    for command in ("local start", "upgrade", "backup --output rows.dump", "restore rows.dump --replace"):
        result = run("syntegra-db", *command.split(), cwd=folder, environment=together)
        assert result.returncode == 0, (command, result.stderr)
    for environment in (together, {"PGPORT": "5433"}, {}):
        result = run("syntegra-db", "psql", "-Atc", "SHOW search_path", cwd=folder, environment=environment)
        assert result.stdout == '"$user", public\n', result.stderr


@pytest.mark.long
def test_variables_of_libpq_do_not_lead_a_service_elsewhere(folder: Path) -> None:
    succeed("syntegra-db", "local", "start", cwd=folder)
    for variable, value in (("PGOPTIONS", "-c x"), ("PGPORT", "1"), ("PGTARGETSESSIONATTRS", "standby")):
        result = run("python", "-c", SERVICE, variable, cwd=folder, environment={variable: value})
        assert result.stdout == f"1 1 {value}\n", result.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGTZ", "Nowhere/Bad"),
        ("PGTZ", "Europe/Madrid"),
        ("PGDATESTYLE", "nonsense"),
        ("PGGEQO", "nonsense"),
        ("PGCLIENTENCODING", "nonsense"),
    ],
)
def test_variables_that_libpq_sends_do_not_change_sessions_of_the_embedded_server(
    folder: Path, variable: str, value: str
) -> None:
    environment = {variable: value}
    succeed("syntegra-db", "local", "start", cwd=folder, environment={**environment, "POSTGRES_HOST": "elsewhere"})
    settings = ("-Atc", "SELECT name FROM pg_settings WHERE source = 'client' ORDER BY name")
    shown = succeed("syntegra-db", "psql", *settings, cwd=folder, environment=environment)
    assert shown.split() == ["application_name", "client_encoding"]


@pytest.mark.parametrize(("variable", "value"), [("PGTZ", "Nowhere/Bad"), ("PGDATESTYLE", "x"), ("PGGEQO", "x")])
def test_start_in_process_with_a_rejected_variable_names_it_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    started = time.monotonic()
    with monkeypatch.context() as environment:
        environment.setenv(variable, value)
        with pytest.raises(EmbeddedServerError, match=rf"rejects connections: .*\(unset {variable}\)\.$"):
            embedded.start(folder)
        assert os.environ[variable] == value
    assert time.monotonic() - started < _answers.ANSWER_TIMEOUT_SECONDS
    embedded.start(folder)
    assert embedded.stop(folder) == [18]


@pytest.mark.long
@pytest.mark.parametrize(("variable", "value"), [("PGSERVICE", "analytics"), ("PGHOSTADDR", "192.0.2.1")])
def test_variable_that_leads_to_another_server_is_rejected(folder: Path, variable: str, value: str) -> None:
    for command in ("local start", "status", "psql"):
        if command != "local start":
            succeed("syntegra-db", "local", "start", cwd=folder)
        result = run("syntegra-db", *command.split(), cwd=folder, environment={variable: value})
        assert result.returncode == 3
        assert f"unset {variable}" in result.stderr


@pytest.mark.parametrize("variable", ["PGREQUIREPEER", "PGPORT", "PGSSLMODE"])
def test_url_of_server_resists_variables_of_libpq(folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    data = folder / "a b" / "18"
    monkeypatch.setenv(variable, {"PGPORT": "5433", "PGSSLMODE": "verify-full"}.get(variable, "mallory"))
    with psycopg.connect(embedded.start_server(data)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    url = embedded.start(data.parent)
    assert url.query["requirepeer"] == data.owner()
    with create_engine(url, poolclass=NullPool).connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    assert embedded.stop(data.parent) == [18]


def test_database_that_cannot_be_created_is_explained(folder: Path) -> None:
    data = folder / ".postgres" / "18"
    with psycopg.connect(embedded.start_server(data), autocommit=True) as connection:
        connection.execute("CREATE DATABASE syntegra_db CONNECTION LIMIT 0")
        connection.execute("CREATE ROLE syntegra_user LOGIN")
        connection.execute("UPDATE pg_database SET datallowconn = false WHERE datname = 'syntegra_db'")
    result = run("syntegra-db", "local", "start", cwd=folder)
    assert (result.returncode, result.stderr.count("\n")) == (13, 1), result.stderr
    assert "could not be created: " in result.stderr
    assert "not currently accepting connections" in result.stderr


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


@pytest.mark.long
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


@pytest.mark.parametrize("left_behind", ["", "\n\n", "nonsense\n", "0\n", "-1\n", "reused", f"{2**31}\n" * 9])
def test_start_with_useless_pid_files_succeeds(folder: Path, left_behind: str) -> None:
    """An empty file is what a crash of the machine leaves; after a restart, its process ID is another program's."""
    data = folder / "18"
    embedded.start_server(data)
    pid_file = data / "postmaster.pid"
    reused = pid_file.read_text(encoding="utf-8").replace(str(server_pid(data)), str(os.getpid()), 1)
    assert embedded.stop_server(data)
    for file in (pid_file, data / ".s.PGSQL.5432.lock"):
        file.write_text(left_behind if left_behind != "reused" else reused, encoding="utf-8")
    assert not embedded.stop_server(data)
    with psycopg.connect(embedded.start_server(data)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert embedded.stop_server(data)


def test_damaged_pid_file_of_running_server_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_server, "ANSWER_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(_server, "STOP_TIMEOUT_SECONDS", 0.3)
    data = folder / "18"
    embedded.start_server(data)
    pid_file = data / "postmaster.pid"
    contents = pid_file.read_text(encoding="utf-8")
    pid_file.write_text("", encoding="utf-8")
    with pytest.raises(EmbeddedServerError, match="runs, but accepts no connections"):
        embedded.start_server(data)
    with pytest.raises(EmbeddedServerError, match="did not stop"):
        embedded.stop_server(data)
    pid_file.write_text(contents, encoding="utf-8")
    assert embedded.stop_server(data)


def test_stop_after_kill_reports_that_no_server_runs(folder: Path) -> None:
    succeed("syntegra-db", "local", "start", cwd=folder)
    os.kill(server_pid(folder / ".postgres/18"), signal.SIGKILL)
    output = succeed("syntegra-db", "local", "stop", cwd=folder)
    assert "stopped" in output or "It was not running." in output
    assert "It was not running." in succeed("syntegra-db", "local", "stop", cwd=folder)
    succeed("syntegra-db", "local", "start", cwd=folder)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("phase", [".18.initdb", ".18.initdb/base/4/2608", "18/postmaster.pid"])
def test_interrupted_start_leaves_no_server_or_usable_one(folder: Path, how: signal.Signals, phase: str) -> None:
    with subprocess.Popen(
        [PROGRAMS / "syntegra-db", "local", "start"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as start:
        wait_until((folder / ".postgres" / phase).exists)
        start.send_signal(how)
    succeed("syntegra-db", "local", "start", cwd=folder)
    assert succeed("syntegra-db", "psql", "-Atc", "SELECT 1", cwd=folder) == "1\n"
    assert {path.name for path in (folder / ".postgres").iterdir()} == {"18", "url"}


@pytest.mark.long
def test_copy_of_running_folder_gets_its_own_server(folder: Path) -> None:
    original, copy = folder / "original", folder / "copy"
    original.mkdir()
    succeed("syntegra-db", "local", "start", cwd=original)
    shutil.copytree(original, copy, ignore=shutil.ignore_patterns(".s.PGSQL.5432"), copy_function=shutil.copy2)
    give_to_owner_of(original / ".postgres/18", copy / ".postgres/18")
    refused = run("syntegra-db", "status", cwd=copy)
    assert refused.returncode == 3
    assert "copied, moved or changed. Correct it: syntegra-db local start" in refused.stderr
    assert "It was not running." in succeed("syntegra-db", "local", "stop", cwd=copy)
    succeed("syntegra-db", "local", "start", cwd=copy)
    succeed("syntegra-db", "upgrade", "001", cwd=copy)
    assert "no revision" in run("syntegra-db", "status", cwd=original).stdout
    for path in (original, copy):
        assert "PostgreSQL 18 stopped." in succeed("syntegra-db", "local", "stop", cwd=path)


@pytest.mark.long
@pytest.mark.parametrize("parent", ["plain", "it's"])
def test_moved_folder_of_running_server_is_used_again(folder: Path, parent: str) -> None:
    before, after = folder / parent / "before", folder / parent / "after"
    before.mkdir(parents=True)
    succeed("syntegra-db", "local", "start", cwd=before)
    succeed("syntegra-db", "upgrade", "001", cwd=before)
    before.rename(after)
    succeed("syntegra-db", "local", "start", cwd=after)
    assert succeed("syntegra-db", "psql", "-Atc", "SELECT * FROM alembic_version", cwd=after) == "001\n"
    assert "PostgreSQL 18 stopped." in succeed("syntegra-db", "local", "stop", cwd=after)


def test_data_of_other_version_is_rejected(folder: Path) -> None:
    succeed("syntegra-db", "local", "start", "--version", "16", cwd=folder)
    succeed("syntegra-db", "local", "stop", cwd=folder)
    (folder / ".postgres/16").rename(folder / ".postgres/18")
    result = run("syntegra-db", "local", "start", cwd=folder)
    assert result.returncode == 13
    assert "contains data of PostgreSQL 16, not data of PostgreSQL 18" in result.stderr


@pytest.mark.parametrize("name", ["notes.txt", "PG_VERSION"])
def test_folder_with_other_files_is_rejected_and_kept(folder: Path, name: str) -> None:
    data = folder / "18"
    data.mkdir()
    (data / name).write_text("mine", encoding="utf-8")
    shutil.chown(data, _programs.server_user().pw_uid)
    with pytest.raises(EmbeddedServerError, match="contains other files"):
        embedded.start_server(data)
    assert (data / name).read_text(encoding="utf-8") == "mine"
    assert list(folder.iterdir()) == [data]


def test_server_started_by_another_program_is_rejected(folder: Path) -> None:
    """An embedded server holds a lock; this one is started without it, as pg_ctl or an older version does."""
    data = folder / "18"
    embedded.start_server(data)
    assert embedded.stop_server(data)
    command = [str(embedded.bin_directory() / "postgres"), "-D", _folders.path_for(data), "-k", ".", "-h", ""]
    with _programs.popen(command, _programs.server_user(), cwd=data, stderr=subprocess.DEVNULL) as other:
        wait_until((data / ".s.PGSQL.5432").exists)
        with pytest.raises(EmbeddedServerError, match=f"Stop it first: kill -INT {other.pid}"):
            embedded.start_server(data)
        os.kill(other.pid, signal.SIGINT)
    embedded.start_server(data)
    assert embedded.stop_server(data)


@pytest.mark.long
def test_start_while_stopping_waits(folder: Path) -> None:
    succeed("syntegra-db", "local", "start", cwd=folder)
    commands = ["stop", "start"] * 5
    with ThreadPoolExecutor(len(commands)) as together:
        results = list(together.map(lambda command: run("syntegra-db", "local", command, cwd=folder), commands))
    assert [result.returncode for result in results] == [0] * 10, [result.stderr for result in results]
    was_running = embedded.stop_server(folder / ".postgres/18")
    assert was_running == (folder / ".postgres/url").exists()
    succeed("syntegra-db", "local", "start", cwd=folder)
    succeed("syntegra-db", "upgrade", cwd=folder)


def test_failed_start_leaves_no_process(folder: Path) -> None:
    data = folder / "18"
    embedded.start_server(data)
    assert embedded.stop_server(data)
    (data / "postgresql.conf").write_text("shared_preload_libraries = 'missing'\n", encoding="utf-8")
    with pytest.raises(EmbeddedServerError, match='did not start: could not access file "missing"'):
        embedded.start_server(data)
    assert not embedded.stop_server(data)


def test_failed_initdb_names_reason_and_leaves_nothing(folder: Path) -> None:
    result = run("syntegra-db", "local", "start", cwd=folder, environment={"LC_ALL": "xx_XX.UTF-8"})
    assert result.returncode == 13
    assert "invalid locale" in result.stderr
    assert list((folder / ".postgres").iterdir()) == []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def give_to_owner_of(model: Path, copy: Path) -> None:
    owner = model.stat().st_uid
    for path in (copy, *copy.rglob("*")):
        shutil.chown(path, owner)


def server_pid(data: Path) -> int:
    return int((data / "postmaster.pid").read_text(encoding="utf-8").split(maxsplit=1)[0])
