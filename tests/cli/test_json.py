"""`--json`: standard output is one document, and it has the documented type."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from support.legacy_databases import create_legacy_database
from support.revisions import BEFORE_HEAD, HEAD
from support.texts import load_texts
from syntegra_db import embedded
from syntegra_db.cli import app
from tools.json_schemas import RESULTS, result_adapter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database

# They print SQL, files or another program's output.
WITHOUT_JSON = {"sql", "psql", "local psql", "manifests", "revision"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, for backups and the embedded server."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(command: str, *arguments: str, status: int = 0) -> Any:
    """Run `command` with `--json`, validate what it prints, and return it."""
    result = CliRunner().invoke(app, [*command.split(), *arguments, "--json"])
    assert result.exit_code == status, result.output
    document = json.loads(result.stdout)
    adapter = result_adapter(command)
    # What is validated and written again is the same, so the type has all fields and no others.
    assert adapter.dump_python(adapter.validate_json(result.stdout), mode="json") == utc(document)
    return document


def utc(value: Any) -> Any:
    """Return a document with its times as pydantic writes them."""
    if isinstance(value, dict):
        return {key: utc(item) for key, item in value.items()}
    if isinstance(value, list):
        return [utc(item) for item in value]
    return value.replace("+00:00", "Z") if isinstance(value, str) and value.endswith("+00:00") else value


def names(group: Any, *outer: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from names(command, *outer, name)
        else:
            yield " ".join((*outer, name))


def test_every_command_that_prints_results_has_json_and_a_type() -> None:
    every = set(names(typer.main.get_command(app))) - WITHOUT_JSON
    assert every == {command.partition(" --")[0] for command in RESULTS}
    for command in every:
        assert "--json" in CliRunner().invoke(app, [*command.split(), "--help"]).stdout, command


def test_migrations_status_and_verify(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database.environment_url)
    assert printed("upgrade --dry-run")["target"] == HEAD
    assert printed("upgrade", BEFORE_HEAD)["pending"] == [HEAD]
    for _ in ("changes", "nothing to do"):
        assert printed("upgrade")["revision"] == HEAD
    empty_database.execute("ANALYZE clusters")
    (analyzed,) = [table["last_analyze"] for table in printed("status")["tables"] if table["name"] == "clusters"]
    assert analyzed.endswith("+00:00")
    assert "T" in analyzed
    assert printed("verify")["findings"] == []
    empty_database.execute("DROP INDEX idx_clusters_client_id")
    assert printed("verify", status=1)["findings"][0]["is_drift"] is True
    assert printed("partitions list") == printed("partitions create") == {"tables": []}
    assert printed("downgrade --dry-run", "base")["lost"][0]["rows"] == 0
    assert printed("downgrade", "base")["revision"] is None


def test_backups(database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database.environment_url)
    database.execute("INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (1, 1, '{}')")
    assert printed("backups") == {"directory": "backups", "backups": []}
    saved = printed("backup")
    assert saved["tables"]["clusters"] == 1
    assert Path(saved["path"]).stat().st_size == saved["bytes"]
    (folder / "backups" / "no.dump").write_bytes(b"no backup")
    listed = {file["state"]: file["backup"] for file in printed("backups", status=18)["backups"]}
    assert listed == {"valid": saved, "unreadable": None}
    rolled_back = printed("rollback", "002")
    assert rolled_back["revision"] == "002"
    restored = printed("restore", rolled_back["backup"]["path"], "--keep")
    assert restored["loaded"]["clusters"] == 1
    assert printed("rollback", "002", "--no-backup", "--yes")["backup"] is None


def test_restored_columns(database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database.environment_url)
    database.execute("INSERT INTO data_sources (client_id, name, type) VALUES (1, 'a', 'simple_csv')")
    path = printed("backup")["path"]
    database.execute("UPDATE data_sources SET name = 'b'")
    restored = printed("restore", path, "--keep", "--replace-column", "data_sources.name")
    assert restored["columns"] == [{"table": "data_sources", "columns": ["name"], "rows": 1, "changed_rows": 0}]
    assert list(folder.iterdir()) == [folder / "backups"]


@pytest.mark.parametrize("name", ["shared", "first_two"])
def test_adoption(empty_database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database.environment_url)
    create_legacy_database(empty_database, name)
    plan = printed("adopt", status=0 if name == "shared" else 24)
    if plan["open_questions"]:
        return
    result = printed("adopt --apply")
    assert (folder / result["backup"]).exists()
    assert printed("adopt --apply")["rows"] == {}


def test_vectors(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database.environment_url)
    (index,) = printed("vectors status", "--seconds", "1")["indexes"]
    assert index["measurement"] is None
    load_texts(database, 500, {})
    monkeypatch.setattr("syntegra_db.vectors.maintenance._rebuild.CALIBRATION_SECONDS", 1)
    rebuilt = printed("vectors rebuild")
    assert (rebuilt["spec"]["method"], rebuilt["rows"]) == ("ivfflat", 500)


def test_tenancy(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database.environment_url)
    prefix = f"syntegra_json_{os.getpid()}_"
    login = f"{prefix}login"
    assert printed("tenancy status")["is_enabled"] is False
    administrator = database.environment_url
    monkeypatch.setenv("DATABASE_URL", administrator)
    database.execute(f'CREATE ROLE "{login}" LOGIN')
    try:
        assert printed("tenancy enable", "--prefix", prefix)["prefix"] == prefix
        assert printed("tenancy bind", login, "7") == {"login": login, "client_id": 7, "is_attached": True}
        assert printed("tenancy status")["bindings"][0]["login"] == login
        assert printed("tenancy unbind", login) == {"login": login}
        assert printed("tenancy disable", "--yes")["kept_roles"] == {}
    finally:
        database.execute(f'DROP ROLE "{login}"')


@pytest.mark.embedded
def test_local(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user@localhost:1/none")
    assert printed("local start", "--unless-configured") == {"version": None, "target": None}
    monkeypatch.delenv("DATABASE_URL")
    try:
        assert printed("local start")["version"] == embedded.DEFAULT_VERSION
        assert printed("local url")["url"].startswith("postgresql://")
    finally:
        assert printed("local stop") == {"stopped": [embedded.DEFAULT_VERSION]}
    assert printed("local stop") == {"stopped": []}
    assert list(folder.iterdir()) == [folder / ".postgres"]


@pytest.mark.parametrize("command", ["upgrade 777", "restore missing.dump", "rollback base", "vectors status"])
def test_error_prints_no_document(empty_database: Database, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database.environment_url)
    result = CliRunner().invoke(app, [*command.split(), "--json"])
    assert (result.exit_code > 2, result.stdout, result.stderr.count("\n")) == (True, "", 1)
