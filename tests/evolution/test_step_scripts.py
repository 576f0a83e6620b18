"""The files for psql of revisions with steps: they continue after an interruption, also of the commands."""

from __future__ import annotations

import subprocess
from functools import partial
from typing import TYPE_CHECKING, LiteralString

import pytest

from support import psql
from support.evolutions import EVOLUTIONS
from support.processes import wait_for_rows
from support.revisions import AFTER_HEAD, HEAD
from support.sample_rows import load_rows, row_digests
from syntegra_db.client_programs import find_program
from syntegra_db.connections import conninfo

if TYPE_CHECKING:
    from pathlib import Path

    from support.checkouts import Checkout
    from support.servers import Database, Server

pytestmark = pytest.mark.long

BACKFILL = "NOT NULL column with values from others"
EXIT_PSQL_ERROR = 3
ROWS = 20_000
# A backfill of this many rows takes longer than the time until the test ends it.
MANY_ROWS = 300_000
# The revision that each leads to.
COMMANDS = {f"upgrade {AFTER_HEAD}": AFTER_HEAD, "downgrade -1": HEAD, "file": AFTER_HEAD}
UNIQUE_INDEX = (
    """
    op.add_column("kpi_summary", sa.Column("unit", sa.Text()))
    op.create_index_online("idx_unit", "kpi_summary", ["client_id"], unique=True)
    """,
    'op.drop_index_online("idx_unit", "kpi_summary")\nop.drop_column("kpi_summary", "unit")',
)
TWO_ROWS: LiteralString = """INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end)
    SELECT 1, 'k', 1, now(), now() FROM generate_series(1, 2)"""
# What lets the file fail, and what lets it succeed.
FAULTS: dict[str, tuple[LiteralString, LiteralString]] = {
    "check": ("UPDATE alembic_version SET version_num = '002'", f"UPDATE alembic_version SET version_num = '{HEAD}'"),
    "transaction": ("ALTER TABLE kpi_summary ADD unit int", "ALTER TABLE kpi_summary DROP unit"),
    "index": (TWO_ROWS, "DELETE FROM kpi_summary"),
}
SETTINGS = ("search_path", "lock_timeout", "idle_in_transaction_session_timeout", "client_min_messages")
LOCKS = "SELECT FROM pg_locks JOIN pg_database ON oid = database WHERE datname = current_database() AND objsubid = 1"
BACKFILL_RUNS = "SELECT FROM alembic_version_steps WHERE changed_rows BETWEEN 1000 AND 60000"


def script(checkout: Checkout, *options: str) -> str:
    result = checkout.run("syntegra-db", "sql", AFTER_HEAD, *options)
    assert result.returncode == 0, result.stderr
    return result.stdout


# What a revision does that uses the connection itself is known only while it runs.
@pytest.mark.parametrize("kind", [kind for kind in EVOLUTIONS if kind != "index after a query"])
def test_files_upgrade_and_revert_without_drift(
    checkout: Checkout, server: Server, database: Database, kind: str, tmp_path: Path
) -> None:
    load_rows(database, ROWS)
    before = row_digests(database)
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS[kind])
    checkout.write_manifests(server)
    for options, revision in (((), AFTER_HEAD), (("--rollback",), HEAD), ((), AFTER_HEAD)):
        result = psql.feed(database.url, script(checkout, *options), tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
        assert database.query("SELECT version_num FROM alembic_version") == [(revision,)]
        verified = checkout.run("syntegra-db", "verify", database=database)
        assert verified.returncode == 0, verified.stdout
        if revision == HEAD and kind != "dropped column":
            assert row_digests(database) == before


@pytest.mark.parametrize("commands", COMMANDS)
def test_interrupted_file_is_finished_or_undone_by_file_and_command(
    checkout: Checkout, server: Server, database: Database, commands: str, tmp_path: Path
) -> None:
    load_rows(database, MANY_ROWS)
    before = row_digests(database)
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS[BACKFILL])
    checkout.write_manifests(server)
    with subprocess.Popen(
        [find_program("psql"), conninfo(database.url)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write(script(checkout))
        process.stdin.close()
        wait_for_rows(database, "SELECT FROM pg_class WHERE relname = 'alembic_version_steps'")
        wait_for_rows(database, BACKFILL_RUNS)
        process.kill()
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO $batches$%'")
    status = checkout.run("syntegra-db", "status", database=database).stdout
    assert "step 2 of 5, backfill kpi_summary.label" in status
    rejected = psql.feed(database.url, script(checkout, "--rollback"), tmp_path)
    assert rejected.returncode == EXIT_PSQL_ERROR
    assert f"the upgrade of revision {AFTER_HEAD} is unfinished" in rejected.stderr
    assert f"syntegra-db downgrade {HEAD}" in rejected.stderr
    if commands == "file":
        result = psql.feed(database.url, script(checkout), tmp_path)
    else:
        result = checkout.run("syntegra-db", *commands.split(), database=database)
    assert result.returncode == 0, result.stderr
    expected = COMMANDS[commands]
    assert database.query("SELECT version_num FROM alembic_version") == [(expected,)]
    verified = checkout.run("syntegra-db", "verify", database=database)
    assert verified.returncode == 0, verified.stdout
    if expected == HEAD:
        assert row_digests(database) == before
    else:
        assert database.query("SELECT count(*) FROM kpi_summary WHERE label <> upper(kpi_name)") == [(0,)]


def test_file_of_another_revision_is_rejected_while_one_is_unfinished(
    checkout: Checkout, server: Server, database: Database, tmp_path: Path
) -> None:
    load_rows(database, ROWS)
    checkout.add_revision(
        AFTER_HEAD, 'op.create_index_online("idx_kpi_summary_name", "kpi_summary", ["kpi_name"], unique=True)'
    )
    checkout.write_manifests(server)
    assert psql.feed(database.url, script(checkout), tmp_path).returncode == EXIT_PSQL_ERROR
    rollback = checkout.run("syntegra-db", "sql", HEAD, "--rollback").stdout
    result = psql.feed(database.url, rollback, tmp_path)
    assert result.returncode == EXIT_PSQL_ERROR
    assert f"revision {AFTER_HEAD} is unfinished" in result.stderr
    assert database.query("SELECT count(*) FROM kpi_summary") == [(ROWS // 4,)]


@pytest.mark.parametrize("end", ["file", "command"])
def test_file_during_unfinished_downgrade_prints_what_finishes_and_undoes_it(
    checkout: Checkout, server: Server, database: Database, end: str
) -> None:
    checkout.add_revision(AFTER_HEAD, *UNIQUE_INDEX)
    checkout.write_manifests(server)
    feed = partial(psql.feed, database.url, home=checkout.folder)
    upgrade, rollback = script(checkout), script(checkout, "--rollback")
    assert feed(upgrade).returncode == 0
    database.execute("CREATE VIEW reader AS SELECT unit FROM kpi_summary; DELETE FROM kpi_summary")
    result = feed(rollback)
    assert "cannot drop column unit" in result.stderr
    result = feed(upgrade)
    assert result.returncode == EXIT_PSQL_ERROR
    assert f"the downgrade of revision {AFTER_HEAD} is unfinished" in result.stderr
    assert "Finish it with the rollback file of the revision" in result.stderr
    undo = f"syntegra-db upgrade {AFTER_HEAD}"
    assert f"or undo it: {undo}\n" in result.stderr
    database.execute("DROP VIEW reader")
    if end == "file":
        assert feed(rollback).stderr == ""
    else:
        assert checkout.run(*undo.split(), database=database).returncode == 0
    expected = HEAD if end == "file" else AFTER_HEAD
    assert database.query("SELECT version_num FROM alembic_version") == [(expected,)]
    verified = checkout.run("syntegra-db", "verify", database=database)
    assert verified.returncode == 0, verified.stdout


@pytest.mark.parametrize("fault", FAULTS)
def test_interactive_session_that_repeats_a_failed_file_keeps_no_lock_and_no_setting(
    checkout: Checkout, server: Server, database: Database, tmp_path: Path, fault: str
) -> None:
    checkout.add_revision(AFTER_HEAD, *UNIQUE_INDEX)
    checkout.write_manifests(server)
    file = tmp_path / "upgrade.sql"
    file.write_text(script(checkout), encoding="utf-8")
    cause, correction = FAULTS[fault]
    with psql.interactive(database.url, tmp_path) as enter:

        def settings() -> str:
            values = ", ".join(f"current_setting('{name}')" for name in SETTINGS)
            enter(f"SELECT concat_ws(' ', {values}) AS settings \\gset")
            return enter("\\warn :settings")

        enter("SET search_path = public, pg_temp; SET lock_timeout = '7s'; SET client_min_messages = 'log';")
        before = settings()
        assert before == "public, pg_temp 7s 0 log\n"
        database.execute(cause)
        for _ in range(2):
            assert "ERROR" in enter(f"\\i {file}")
        if fault == "check":
            assert database.query(LOCKS) == []
        database.execute(correction)
        assert "ERROR" not in enter(f"\\i {file}")
        assert database.query("SELECT version_num FROM alembic_version") == [(AFTER_HEAD,)]
        assert settings() == before
        assert database.query(LOCKS) == []
        result = checkout.run("syntegra-db", "downgrade", "-1", database=database)
        assert result.returncode == 0, result.stderr


def test_percent_sign_of_a_revision_without_steps_is_not_doubled(checkout: Checkout) -> None:
    checkout.add_revision(
        AFTER_HEAD, """op.create_check_constraint("ck_name", "kpi_summary", "kpi_name LIKE 'kpi%'")"""
    )
    assert "LIKE 'kpi%')" in script(checkout)
