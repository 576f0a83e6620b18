"""Full devices, closed pipes, hostile names and events on the server end a command with one line, not a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import pytest
from psycopg import sql

from support.commands import PROGRAMS, run
from support.processes import running, wait_for_rows
from support.texts import load_texts
from syntegra_db.pgvector_support import VECTOR_INDEX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server

pytestmark = pytest.mark.long

COMMANDS = ["status", "status --json", "verify", "verify --json", "backup", "backups", "vectors status --seconds 1"]
ENCODINGS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1:strict"},
    {"LC_ALL": "C"},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]
# A list as long as this is deeper than Python's parser allows.
DEEP = 100_000
CALIBRATION = {"rows": 10, "filenode": 1, "table_filenode": 1, "recall": 0.9, "exact_milliseconds": 1.0, "points": []}
POINT = {"setting": 1, "recall": [1, 1], "milliseconds": 1}
COMMENTS = [
    "[" * DEEP,
    '{"syntegra_db": ' + '{"a":' * DEEP,
    *(
        json.dumps({"syntegra_db": {**CALIBRATION, **change}})
        for change in (
            {"rows": float("inf")},
            {"rows": 0},
            {"recall": float("nan")},
            {"exact_milliseconds": float("inf")},
            {"points": [{**POINT, "setting": 1e300}]},
            {"points": [{**POINT, "milliseconds": 0}]},
            {"points": [{**POINT, "recall": [2, 2]}]},
        )
    ),
    '{"syntegra_db": {"rows": ' + "9" * 5_000 + "}}",
    "\x1b[31m[/x]\n",
]
SCHEMAS = ["a%s", "a%(x)s", "line\nbreak", "[/x]", 'qu"ote', "\x1b[31m", "A B"]


def assert_one_line(result: subprocess.CompletedProcess[str], status: int) -> None:
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    assert [line.startswith("Error: ") for line in result.stderr.splitlines() if " INFO " not in line] == [True]


@pytest.mark.parametrize("command", [*COMMANDS, "sql 003", "--help", "status --help"])
def test_output_to_full_device_exits_28_with_one_line(database: Database, command: str) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        result = subprocess.run(
            [PROGRAMS / "syntegra-db", *command.split()],
            env={**os.environ, "DATABASE_URL": database.environment_url},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert_one_line(result, 28)
    assert "No space left on device" in result.stderr


@pytest.mark.parametrize("program", ["syntegra-db", "alembic"])
def test_error_to_full_device_keeps_its_status(program: str) -> None:
    command = {"syntegra-db": ("status",), "alembic": ("current",)}[program]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        result = subprocess.run(
            [PROGRAMS / program, *command],
            env={**os.environ, "DATABASE_URL": "postgresql://user@localhost:1/none"},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.DEVNULL,
            stderr=full,
            check=False,
        )
    assert result.returncode == 5


@pytest.mark.parametrize("command", ["status", "verify --json", "sql 003"])
def test_output_to_closed_pipe_exits_141_without_message(database: Database, command: str) -> None:
    with running(database, "syntegra-db", *command.split()) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_closed_output_does_not_change_the_status(database: Database) -> None:
    closed = 'exec syntegra-db "$@" >&-'
    for command in ("status", "backup"):
        with running(database, "bash", "-c", closed, "bash", *command.split()) as process:
            assert process.wait(60) == 0


@pytest.mark.parametrize(("closed", "status"), [("<&-", 22), ("<&- >&-", 22), (">&- 2>/dev/full </dev/null", 28)])
def test_question_with_closed_streams_ends_with_its_status(database: Database, closed: str, status: int) -> None:
    command = f"exec syntegra-db rollback 002 --no-backup {closed}"
    with running(database, "bash", "-c", command) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert "Traceback" not in errors


@pytest.fixture
def awkward(server: Server, migrated_template: str) -> Iterator[Database]:
    with server.database(migrated_template, name="ñandú [/x] \x1b[31m") as database:
        yield database


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda variables: next(iter(variables.values())))
def test_awkward_database_name_is_printed_in_every_encoding(awkward: Database, encoding: dict[str, str]) -> None:
    every_command = (*COMMANDS, "rollback 002", "upgrade")
    for command in every_command if encoding == ENCODINGS[0] else ("status", "verify --json", "backup"):
        result = subprocess.run(
            [PROGRAMS / "syntegra-db", *command.split()],
            env={**os.environ, "DATABASE_URL": awkward.environment_url, **encoding},
            capture_output=True,
            check=False,
        )
        assert result.returncode == 0, (command, result.stderr)
        assert b"\x1b" not in result.stdout + result.stderr
        if "--json" in command:
            text = result.stdout.decode("latin-1" if "latin-1" in str(encoding) else "utf-8")
            assert json.loads(text).get("database", awkward.name) == awkward.name


@pytest.mark.parametrize("name", ["odd[/x].dump", "[bold].dump", "\x1b[31m.dump", "two\nlines.dump", "ñ.dump"])
def test_backups_prints_awkward_file_name_uncut(database: Database, tmp_path: Path, name: str) -> None:
    path = tmp_path / "saved" / name
    path.parent.mkdir(parents=True)
    plain = path.with_name("plain.dump")
    result = run("syntegra-db", "backup", "--output", str(plain), url=database.environment_url)
    assert result.returncode == 0, result.stderr
    # `--output` accepts no control characters.
    plain.rename(path)
    escaped = name.replace("\x1b", "\\u001b").replace("\n", "\\u000a")
    result = run("syntegra-db", "backups", str(path.parent), environment={"COLUMNS": "40"})
    assert (result.returncode, result.stderr) == (0, "")
    assert escaped in result.stdout
    path.write_bytes(b"damaged")
    result = run("syntegra-db", "backups", str(path.parent))
    assert result.returncode == 18
    assert escaped in result.stdout
    result = run("syntegra-db", "restore", str(path), url=database.environment_url)
    assert result.returncode == 18
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize(
    ("port", "command"),
    [
        *((port, "status") for port in ("x", "0", "99999999999", "5432,")),
        *(("x", command) for command in ("backup", "vectors status", "upgrade", "rollback 002", "psql")),
    ],
)
def test_invalid_port_exits_3_with_one_line(port: str, command: str) -> None:
    assert_one_line(run("syntegra-db", *command.split(), url=f"postgresql://u@localhost/d?port={port}"), 3)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_commands_work_in_awkwardly_named_schema(database: Database, schema: str) -> None:
    with database.connect() as connection:
        name = sql.Identifier(schema)
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
        statement = sql.SQL("ALTER DATABASE {} SET search_path = {}, public")
        connection.execute(statement.format(sql.Identifier(database.name), name))
    second_set = ("upgrade", "--schema", schema)
    commands = (
        (*COMMANDS, "rollback 002", "downgrade base") if schema in SCHEMAS[:2] else ("status", "verify", "backup")
    )
    for command in (second_set, *(command.split() for command in commands)):
        result = run("syntegra-db", *command, url=database.environment_url)
        assert result.returncode == 0, (command, result.stderr)
        assert "\x1b" not in result.stdout + result.stderr


@pytest.mark.parametrize("comment", COMMENTS, ids=lambda comment: comment[:50])
def test_index_comment_that_no_rebuild_wrote_is_ignored(database: Database, comment: str) -> None:
    with database.connect() as connection:
        statement = sql.SQL("COMMENT ON INDEX {} IS {}").format(sql.Identifier(VECTOR_INDEX), comment)
        connection.execute(statement)
    for command in ("status --json", "vectors status --seconds 1"):
        result = run("syntegra-db", *command.split(), url=database.environment_url)
        assert (result.returncode, result.stderr) == (0, "")


def test_rebuild_with_rows_deleted_during_build_exits_26(database: Database) -> None:
    load_texts(database, 2_000, {})
    with running(database, "syntegra-db", "vectors", "rebuild") as process:
        assert process.stderr is not None
        while "Building" not in process.stderr.readline():
            assert process.poll() is None
        database.execute("DELETE FROM text_summary")
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 26, errors
    assert "All embeddings were deleted during the rebuild" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("command", "state"), [("vectors rebuild", "idle$"), ("vectors rebuild", ""), ("vectors status --seconds 60", "")]
)
def test_measurement_whose_session_is_ended_exits_4(database: Database, command: str, state: LiteralString) -> None:
    load_texts(database, 2_000, {})
    measuring: LiteralString = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query ~ 'text_summary' "
        "AND state ~ 'active|in transaction' AND pid <> pg_backend_pid()"
    )
    with running(database, "syntegra-db", *command.split()) as process:
        assert process.stderr is not None
        if command == "vectors rebuild":
            while "calibrating" not in process.stderr.readline():
                assert process.poll() is None
        wait_for_rows(database, measuring)
        # Between two statements a session is replaced without an error, so once may not be enough.
        while process.poll() is None:
            database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE datname = current_database() AND pid <> pg_backend_pid() AND state ~ '^{state}'"
            )
            time.sleep(0.05)
        _, errors = process.communicate()
    assert "Traceback" not in errors
    assert process.returncode == 4, errors


def test_status_alongside_restores_never_ends_with_traceback(database: Database) -> None:
    saved = run("syntegra-db", "backup", "--output", "saved.dump", url=database.environment_url, cwd=Path.cwd())
    assert saved.returncode == 0, saved.stderr
    loop = "for n in $(seq 15); do syntegra-db restore saved.dump --replace || exit; done"
    with running(database, "bash", "-c", loop) as restores:
        while restores.poll() is None:
            result = run("syntegra-db", "status", url=database.environment_url)
            assert result.returncode in {0, 15}, result.stderr
            assert "Traceback" not in result.stderr
        assert restores.returncode == 0, restores.communicate()
