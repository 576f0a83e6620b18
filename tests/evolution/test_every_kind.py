"""Every kind of evolution under the same conditions: `make test-evolution` has more rows and more interruptions."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, LiteralString

import pytest

from support.evolutions import EVOLUTIONS, INSERT_KPI, INVALID_INDEXES, UNFINISHED
from support.processes import blocking, kill_at_random, writing
from support.revisions import AFTER_HEAD, HEAD
from support.sample_rows import load_rows, row_digests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.checkouts import Checkout
    from support.servers import Database, Server

# The full form takes minutes.
pytestmark = pytest.mark.timeout(1800)

# What uses the connection itself has no steps: after an interruption inside its block, the author continues.
WITHOUT_STEPS = {"index after a query"}
REDUCED_ROWS = 4_000
BLOCKER_SECONDS, REDUCED_BLOCKER_SECONDS = 8, 1
# Of an upgrade that is interrupted.
SHORTEST_SECONDS, LONGEST_SECONDS = 0.5, 5
INSERT_ANOMALY: LiteralString = "INSERT INTO anomaly_log (client_id, kpi_name, value) VALUES (1, 'kpi_written', 1)"
DIGESTS: tuple[LiteralString, ...] = (
    "SELECT count(*), sum(hashtextextended(t::text, 0)) FROM kpi_summary AS t WHERE kpi_name <> 'kpi_written'",
    "SELECT count(*), sum(hashtextextended(t::text, 0)) FROM anomaly_log AS t WHERE kpi_name <> 'kpi_written'",
)
WRITTEN: tuple[LiteralString, ...] = (
    "SELECT count(*) FROM kpi_summary WHERE kpi_name = 'kpi_written'",
    "SELECT count(*) FROM anomaly_log WHERE kpi_name = 'kpi_written'",
)

SECOND = f"{int(HEAD) + 2:03}"
RENAME_METADATA = (
    """
    op.add_column("kpi_summary", sa.Column("details", postgresql.JSONB()))
    op.keep_alike("kpi_summary", "metadata", "details")
    """,
    """
    op.stop_keeping_alike("kpi_summary", "metadata", "details")
    op.drop_column("kpi_summary", "details")
    """,
)
DROP_METADATA = (
    """
    op.stop_keeping_alike("kpi_summary", "metadata", "details")
    op.drop_column("kpi_summary", "metadata")
    """,
    """
    comment = "Additional data about the value, such as its unit"
    op.add_column("kpi_summary", sa.Column("metadata", postgresql.JSONB(), comment=comment))
    op.keep_alike("kpi_summary", "metadata", "details")
    """,
)
# The dropped column comes back as the last one.
RENAMED_DIGEST: LiteralString = """
    SELECT count(*), count(details), sum(hashtextextended(concat_ws('|', id, kpi_value, details), 0))
    FROM kpi_summary WHERE kpi_name <> 'kpi_written'
"""

every_kind = pytest.mark.parametrize("evolved", sorted(EVOLUTIONS.keys() - WITHOUT_STEPS), indirect=True)


@pytest.fixture
def evolved(request: pytest.FixtureRequest, checkout: Checkout, server: Server) -> Checkout:
    """A checkout with a revision of one kind."""
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS[request.param])
    checkout.write_manifests(server)
    return checkout


@pytest.fixture(scope="module")
def loaded_template(request: pytest.FixtureRequest, server: Server, migrated_template: str) -> Iterator[str]:
    """The name of a database with as many rows as the options say."""
    with server.database(migrated_template, "syntegra_test_loaded") as database:
        load_rows(database, request.config.getoption("--rows") or REDUCED_ROWS)
        yield database.name


@pytest.fixture
def loaded(server: Server, loaded_template: str) -> Iterator[Database]:
    """A copy of it."""
    with server.database(loaded_template) as database:
        yield database


def finish_after_kills(request: pytest.FixtureRequest, checkout: Checkout, database: Database, *revisions: str) -> None:
    """Upgrade from the first revision to the second with interruptions, next to writers and a transaction, and back."""

    def run(*command: str) -> str:
        return checkout.succeed("syntegra-db", *command, database=database)

    before, after = revisions
    is_full = request.config.getoption("--rows") is not None
    with (
        blocking(database, BLOCKER_SECONDS if is_full else REDUCED_BLOCKER_SECONDS, INSERT_KPI, INSERT_ANOMALY),
        writing(database, INSERT_KPI) as kpis,
        writing(database, INSERT_ANOMALY) as anomalies,
    ):
        for _ in range(int(request.config.getoption("--kills"))):
            with checkout.running("syntegra-db", "upgrade", "--contract", database=database) as process:
                kill_at_random(process, SHORTEST_SECONDS, LONGEST_SECONDS)
            if process.returncode == 0:
                # The next one is interrupted from the beginning again.
                run("downgrade", before)
            run("verify")
        run("upgrade", "--contract")
    assert not database.query(INVALID_INDEXES)
    assert not database.query(UNFINISHED)
    assert f"revision {after}: no drift" in run("verify")
    run("downgrade", before)
    assert f"revision {before}: no drift" in run("verify")
    # With the row of the blocking transaction.
    assert [database.query(query) for query in WRITTEN] == [[(len(kpis) + 1,)], [(len(anomalies) + 1,)]]


@every_kind
def test_killed_and_blocked_evolution_is_finished_and_loses_nothing(
    request: pytest.FixtureRequest, evolved: Checkout, loaded: Database
) -> None:
    before = [loaded.query(query) for query in DIGESTS]
    finish_after_kills(request, evolved, loaded, HEAD, AFTER_HEAD)
    assert [loaded.query(query) for query in DIGESTS] == before


@pytest.mark.long
def test_killed_and_blocked_contraction_is_finished_and_loses_nothing(
    request: pytest.FixtureRequest, checkout: Checkout, server: Server, loaded: Database
) -> None:
    checkout.add_revision(AFTER_HEAD, *RENAME_METADATA, phase="expand")
    checkout.add_revision(SECOND, *DROP_METADATA, before=AFTER_HEAD, phase="contract")
    checkout.write_manifests(server)
    checkout.succeed("syntegra-db", "upgrade", AFTER_HEAD, database=loaded)
    before = loaded.query(RENAMED_DIGEST)
    finish_after_kills(request, checkout, loaded, AFTER_HEAD, SECOND)
    assert loaded.query(RENAMED_DIGEST) == before


def contents(database: Database) -> dict[str, tuple[int, int]]:
    """Return the number and a checksum of the rows by table; the state of a sequence has two forms for one value."""
    return {table: digest[:2] for table, digest in row_digests(database).items()}


@every_kind
def test_evolution_is_backed_up_restored_rolled_back_and_adopted(
    evolved: Checkout, loaded: Database, empty_database: Database
) -> None:
    def run(*command: str, on: Database = loaded) -> str:
        return evolved.succeed("syntegra-db", *command, database=on)

    before = contents(loaded)
    run("upgrade")
    upgraded = contents(loaded)
    file = run("backup").splitlines()[-1].split(": ")[-1]
    run("restore", file, on=empty_database)
    assert contents(empty_database) == upgraded
    assert f"revision {AFTER_HEAD}: no drift" in run("verify", on=empty_database)
    printed = run("rollback", HEAD).splitlines()[-1]
    assert contents(loaded) == before
    run(*shlex.split(printed)[1:])
    assert contents(loaded) == upgraded
    loaded.execute("DROP TABLE alembic_version")
    assert f"closest to revision {AFTER_HEAD}" in run("adopt")
    run("adopt", "--apply", "--no-backup", "--yes")
    assert f"revision {AFTER_HEAD}: no drift" in run("verify")
    assert contents(loaded) == upgraded
