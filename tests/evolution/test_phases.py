"""Expansions, on which services of the package before work, and contractions, which wait until they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support import psql
from support.commands import run
from support.evolutions import EVOLUTIONS
from support.revisions import AFTER_HEAD, HEAD, revision_of
from syntegra_db.errors import DatabaseAhead
from syntegra_db.migrations import require_head

if TYPE_CHECKING:
    from pathlib import Path

    from support.checkouts import Checkout
    from support.servers import Database, Server

SECOND = f"{int(HEAD) + 2:03}"
COMMENT = "SELECT obj_description('alembic_version'::regclass, 'pg_class')"
SUPPORTED = f"Services of revision {HEAD} and later work on revision {AFTER_HEAD}."


@pytest.fixture
def newer(checkout: Checkout, server: Server) -> Checkout:
    """A newer package, with an expansion and a contraction."""
    checkout.add_revision(
        AFTER_HEAD,
        'op.add_column("kpi_summary", sa.Column("unit", sa.Text()))',
        'op.drop_column("kpi_summary", "unit")',
        phase="expand",
    )
    checkout.add_revision(
        SECOND,
        *EVOLUTIONS["dropped column"],
        before=AFTER_HEAD,
        phase="contract",
    )
    checkout.write_manifests(server)
    return checkout


def test_upgrade_stops_before_contraction_until_it_is_asked_for(newer: Checkout, database: Database) -> None:
    for _ in range(2):
        result = newer.run("syntegra-db", "upgrade", database=database)
        assert result.returncode == 0, result.stderr
        assert f"Stopping before revision {SECOND}" in result.stderr
        assert revision_of(database) == AFTER_HEAD
    assert newer.run("syntegra-db", "verify", database=database).returncode == 0
    assert newer.run("syntegra-db", "upgrade", "--contract", database=database).returncode == 0
    assert revision_of(database) == SECOND
    assert newer.run("syntegra-db", "verify", database=database).returncode == 0


def test_alembic_stops_before_contraction_until_it_is_asked_for(newer: Checkout, database: Database) -> None:
    assert newer.run("alembic", "upgrade", "head", database=database).returncode == 0
    assert revision_of(database) == AFTER_HEAD
    assert newer.run("alembic", "-x", "contract=yes", "upgrade", "head", database=database).returncode == 0
    assert revision_of(database) == SECOND


def test_empty_database_is_upgraded_to_the_newest_revision(newer: Checkout, empty_database: Database) -> None:
    assert newer.run("syntegra-db", "upgrade", database=empty_database).returncode == 0
    assert revision_of(empty_database) == SECOND


def test_service_of_the_package_before_starts_on_expansion_only(newer: Checkout, database: Database) -> None:
    assert database.query(COMMENT) == [(None,)]
    assert newer.run("syntegra-db", "upgrade", AFTER_HEAD, database=database).returncode == 0
    assert database.query(COMMENT) == [(SUPPORTED,)]
    require_head(database.engine)
    status = run("syntegra-db", "status", url=database.environment_url)
    assert (status.returncode, status.stderr) == (0, "")
    assert "Services of this package work on this newer revision." in status.stdout
    backup = run("syntegra-db", "backup", url=database.environment_url)
    assert backup.returncode == DatabaseAhead.exit_status
    assert "Services of this package work on it, but its commands do not know it." in backup.stderr
    assert newer.run("syntegra-db", "upgrade", "--contract", database=database).returncode == 0
    assert database.query(COMMENT) == [(None,)]
    with pytest.raises(DatabaseAhead):
        require_head(database.engine)
    for revision, comment in ((AFTER_HEAD, SUPPORTED), (HEAD, None)):
        assert newer.run("syntegra-db", "downgrade", revision, database=database).returncode == 0
        assert database.query(COMMENT) == [(comment,)]
    assert run("syntegra-db", "verify", url=database.environment_url).returncode == 0


@pytest.mark.long
def test_comment_of_another_text_is_drift_and_does_not_let_services_start(newer: Checkout, database: Database) -> None:
    assert newer.run("syntegra-db", "upgrade", AFTER_HEAD, database=database).returncode == 0
    for comment in (
        "",
        f"Services of revision 999 and later work on revision {AFTER_HEAD}.",
        f"Services of revision {HEAD} and later work on revision {SECOND}.",
    ):
        database.execute(f"COMMENT ON TABLE alembic_version IS '{comment}'")
        with pytest.raises(DatabaseAhead):
            require_head(database.engine)
        assert newer.run("syntegra-db", "verify", database=database).returncode == 1


def test_files_write_the_same_comment(newer: Checkout, database: Database, tmp_path: Path) -> None:
    for revision, options, comment in ((AFTER_HEAD, (), SUPPORTED), (AFTER_HEAD, ("--rollback",), None)):
        script = newer.run("syntegra-db", "sql", revision, *options).stdout
        assert psql.feed(database.url, script, tmp_path).returncode == 0
        assert database.query(COMMENT) == [(comment,)]
