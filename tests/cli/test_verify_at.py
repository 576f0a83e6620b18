"""`syntegra-db verify --at`: the schema is compared with a revision that the database need not be at."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from support.drift import run
from support.revisions import BEFORE_HEAD, HEAD
from syntegra_db import migrations
from syntegra_db.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.servers import Database

    Verify = Callable[[Database, str], tuple[int, dict[str, Any]]]

REVISION = "revision of the database"
UPGRADE = f"-- Run `syntegra-db upgrade {HEAD}`."


@pytest.fixture
def verify_at(monkeypatch: pytest.MonkeyPatch) -> Verify:
    """A function that returns the exit status, and the report, of `verify --at`."""

    def verify(database: Database, revision: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setenv("DATABASE_URL", database.environment_url)
        result = CliRunner().invoke(app, ["verify", "--at", revision, "--json"])
        return result.exit_code, json.loads(result.stdout or "{}")

    return verify


def test_database_at_the_revision_is_clean(verify_at: Verify, database: Database) -> None:
    for name in ("head", HEAD):
        status, report = verify_at(database, name)
        assert (status, report["revision"], report["compared_with"]) == (0, HEAD, HEAD)
        assert report["findings"] == []


def test_database_behind_is_drift_that_the_upgrade_fixes(verify_at: Verify, database_003: Database) -> None:
    migrations.downgrade("002", database_003.url)
    run(database_003, "DROP INDEX idx_data_sources_client_id")
    status, report = verify_at(database_003, "head")
    assert (status, report["revision"], report["compared_with"]) == (1, "002", HEAD)
    fixes = {finding["object"]: finding["fix"] for finding in report["findings"]}
    found = {finding["object"]: finding["found"] for finding in report["findings"]}
    assert found[REVISION] == "the database is at revision 002"
    assert fixes.pop("index idx_data_sources_client_id").startswith("CREATE INDEX CONCURRENTLY")
    assert {"table clusters", "type trend_status"} < fixes.keys()
    assert set(fixes.values()) == {UPGRADE}
    run(database_003, "CREATE INDEX idx_data_sources_client_id ON data_sources (client_id)")
    migrations.upgrade(url=database_003.url)
    assert verify_at(database_003, "head")[0] == 0


def test_database_ahead_is_drift_that_the_rollback_fixes(verify_at: Verify, database_003: Database) -> None:
    status, report = verify_at(database_003, "002")
    assert (status, report["revision"], report["compared_with"]) == (1, migrations.head_revision(), "002")
    assert {finding["fix"] for finding in report["findings"]} == {
        "-- Run `syntegra-db rollback 002`, which first saves the rows that it deletes."
    }


def test_tables_of_the_revision_with_another_stamp_need_only_the_stamp(verify_at: Verify, database: Database) -> None:
    run(database, f"UPDATE alembic_version SET version_num = '{BEFORE_HEAD}'")
    status, report = verify_at(database, "head")
    assert (status, [finding["object"] for finding in report["findings"]]) == (1, [REVISION])
    run(database, report["findings"][0]["fix"])
    assert verify_at(database, "head")[0] == 0


def test_empty_database_differs_from_every_revision(verify_at: Verify, empty_database: Database) -> None:
    status, report = verify_at(empty_database, "head")
    assert (status, report["findings"][0]["found"]) == (1, "the database is at no revision")
    assert verify_at(empty_database, "base")[0] == 0


@pytest.mark.parametrize("revision", ["777", "", "head+1"])
def test_unknown_revision_exits_2(verify_at: Verify, database: Database, revision: str) -> None:
    assert verify_at(database, revision) == (2, {})
