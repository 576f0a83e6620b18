"""`syntegra-db`: help, wrong usage, errors and interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from support.commands import PROGRAMS, ROOT, run, succeed

if TYPE_CHECKING:
    from support.servers import Database

WAITING_FOR_LOCK = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def test_help_lists_every_command() -> None:
    text = succeed("syntegra-db", "--help")
    tables = ("upgrade", "downgrade", "adopt", "status", "verify", "sql", "psql")
    for command in (*tables, "backup", "backups", "restore", "rollback", "vectors", "local"):
        assert f" {command} " in text


def test_wrong_usage_exits_2() -> None:
    assert run("syntegra-db", "sql").returncode == 2
    assert run("syntegra-db", "upgrade", "--lock-timeout", "-1").returncode == 2
    assert run("syntegra-db", "nonsense").returncode == 2


def test_unknown_revision_prints_one_line(database: Database) -> None:
    for command in (("upgrade", "777"), ("downgrade", "777"), ("sql", "777")):
        result = run("syntegra-db", *command, url=database.environment_url)
        assert (result.returncode, result.stderr.count("\n")) == (8, 1), result.stderr
        assert "777" in result.stderr


def test_revision_without_script_prints_one_line(database: Database) -> None:
    for command in (("upgrade", ""), ("downgrade", ""), ("sql", "base")):
        result = run("syntegra-db", *command, url=database.environment_url)
        assert (result.returncode, result.stderr.count("\n")) == (8, 1), result.stderr


def test_unknown_libpq_parameter_prints_one_line(database: Database) -> None:
    url = database.url.update_query_dict({"nonsense": "1"}).render_as_string(hide_password=False)
    for command in (("syntegra-db", "status"), ("alembic", "current")):
        result = run(*command, url=url)
        assert (result.returncode, result.stderr.count("\n")) == (3, 1), result.stderr
        assert "has an option that libpq does not know" in result.stderr
        assert "nonsense" not in result.stderr


def test_statement_timeout_prints_one_line(database: Database) -> None:
    url = database.url.update_query_dict({"options": "-c statement_timeout=200"}).render_as_string(hide_password=False)
    with database.connect() as holder:
        holder.autocommit = False
        holder.execute("LOCK TABLE clusters")
        result = run("syntegra-db", "status", url=url)
    assert (result.returncode, result.stderr.count("\n")) == (4, 1), result.stderr


def test_status_of_locked_table_exits_15(database: Database) -> None:
    with database.connect() as holder:
        holder.autocommit = False
        holder.execute("LOCK TABLE clusters")
        result = run("syntegra-db", "status", url=database.environment_url)
    assert (result.returncode, result.stderr.count("\n")) == (15, 1), result.stderr
    assert "clusters" in succeed("syntegra-db", "status", url=database.environment_url)


def test_cli_import_loads_no_database_library() -> None:
    program = (
        "import sys; from syntegra_db import cli;"
        "print([n for n in ('sqlalchemy', 'alembic', 'psycopg', 'pydantic_settings', 'numpy') if n in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"


@pytest.mark.parametrize("program", ["syntegra-db", "alembic"])
def test_interrupted_downgrade_exits_130_and_leaves_no_lock(database_003: Database, program: str) -> None:
    database = database_003
    with database.connect() as blocker:
        blocker.autocommit = False
        blocker.execute("INSERT INTO data_sources (client_id, name, type) VALUES (1, 'a', 'b')")
        process = subprocess.Popen(
            # Background jobs of a shell ignore SIGINT, and the tests inherit that.
            ["env", "--default-signal=INT", str(PROGRAMS / program), "downgrade", "002"],
            env={**os.environ, "DATABASE_URL": database.environment_url},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None and not database.query(WAITING_FOR_LOCK):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
    assert database.query("SELECT version_num FROM alembic_version") == [("003",)]
    assert database.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]
