"""`syntegra-db verify` and `manifests`: output and exit status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner, Result

from support.drift import run
from support.revisions import HEAD
from syntegra_db.catalog import MANIFESTS
from syntegra_db.cli.verify import manifests, verify

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(verify)
app.command(hidden=True)(manifests)


@pytest.fixture
def command(database: Database, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("DATABASE_URL", database.environment_url)
    return CliRunner()


def invoke(command: CliRunner, *arguments: str) -> Result:
    return command.invoke(app, ["verify", *arguments])


def test_verify_of_clean_database_exits_0(command: CliRunner) -> None:
    result = invoke(command)
    assert result.exit_code == 0
    assert result.output.endswith(f"is at revision {HEAD}: no drift.\n")


def test_verify_with_drift_exits_1_and_prints_fixes(command: CliRunner, database: Database) -> None:
    run(database, "DROP INDEX idx_clusters_client_id")
    run(database, "ALTER TABLE trend_signals DROP CONSTRAINT ck_trend_signals_period_order")
    result = invoke(command)
    assert result.exit_code == 1
    assert f"is at revision {HEAD}: 2 differences." in result.output
    lines = [line.strip() for line in result.output.splitlines()]
    assert "index idx_clusters_client_id" in lines
    assert "fix       CREATE INDEX CONCURRENTLY idx_clusters_client_id ON clusters USING btree (client_id);" in lines
    assert "ALTER TABLE trend_signals VALIDATE CONSTRAINT ck_trend_signals_period_order;" in lines


def test_verify_with_notes_exits_0(command: CliRunner, database: Database) -> None:
    run(database, "ALTER TABLE clusters ADD colour text")
    result = invoke(command)
    assert result.exit_code == 0
    assert "column clusters.colour" in result.output


def test_verify_json_has_findings_and_notes(command: CliRunner, database: Database) -> None:
    run(database, "DROP INDEX idx_clusters_client_id", "ALTER TABLE clusters ADD colour text")
    result = invoke(command, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["revision"] == HEAD
    assert [finding["object"] for finding in report["findings"]] == ["index idx_clusters_client_id"]
    assert report["findings"][0]["fix"].startswith("CREATE INDEX CONCURRENTLY")
    assert [note["object"] for note in report["notes"]] == ["column clusters.colour"]


def test_verify_without_server_exits_2_and_hides_password(command: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone:s3cret@127.0.0.1:9/syntegra_db")
    result = invoke(command, "--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: No PostgreSQL server answers")
    assert "s3cret" not in result.output


def test_verify_with_unknown_revision_exits_2(command: CliRunner, database: Database) -> None:
    run(database, "UPDATE alembic_version SET version_num = '999'")
    result = invoke(command)
    assert result.exit_code == 2
    assert "revision 999, which this package does not know" in result.stderr


def test_verify_with_unreadable_version_table_exits_2(command: CliRunner, database: Database) -> None:
    run(database, "ALTER TABLE alembic_version RENAME version_num TO version")
    result = invoke(command)
    assert result.exit_code == 2
    assert "public.alembic_version has no column version_num" in result.stderr


def test_manifests_command_writes_packaged_manifests(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["manifests", str(tmp_path)])
    assert result.exit_code == 0, result.output
    for path in MANIFESTS.iterdir():
        assert (tmp_path / path.name).read_text(encoding="utf-8") == path.read_text(encoding="utf-8")
