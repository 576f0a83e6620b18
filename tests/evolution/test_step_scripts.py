"""The files for psql of revisions with steps: they continue after an interruption, also of the commands."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

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

BACKFILL = "NOT NULL column with values from others"
EXIT_PSQL_ERROR = 3
ROWS = 20_000
# A backfill of this many rows takes longer than the time until the test ends it.
MANY_ROWS = 300_000
# The revision that each leads to.
COMMANDS = {f"upgrade {AFTER_HEAD}": AFTER_HEAD, "downgrade -1": HEAD, "file": AFTER_HEAD, "file that reverts": HEAD}
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
    if commands.startswith("file"):
        options = ("--rollback",) if commands == "file that reverts" else ()
        result = psql.feed(database.url, script(checkout, *options), tmp_path)
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


def test_percent_sign_of_a_revision_without_steps_is_not_doubled(checkout: Checkout) -> None:
    checkout.add_revision(
        AFTER_HEAD, """op.create_check_constraint("ck_name", "kpi_summary", "kpi_name LIKE 'kpi%'")"""
    )
    assert "LIKE 'kpi%')" in script(checkout)
