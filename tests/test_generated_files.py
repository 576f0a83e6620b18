"""Every generated file of the repository is what `make generate` writes today."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.commands import ROOT
from syntegra_db.catalog import MANIFESTS
from syntegra_db.migrations import write_manifests
from syntegra_db.migrations._sql_scripts import SqlScript, render_sql_scripts
from syntegra_db.revisions import all_revisions
from tools.generate import RENDERERS
from tools.sections import with_section

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Server

SQL_SCRIPTS = list(render_sql_scripts())


@pytest.fixture(scope="module")
def manifests(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the manifests of today's revisions."""
    folder = tmp_path_factory.mktemp("manifests")
    with server.database() as database:
        write_manifests(database.url, folder)
    return folder


@pytest.mark.parametrize("path", RENDERERS)
def test_file_from_code_is_current(path: str) -> None:
    require_current(ROOT / path, RENDERERS[path]())


@pytest.mark.parametrize("script", SQL_SCRIPTS, ids=lambda script: script.name)
def test_sql_script_is_current(script: SqlScript) -> None:
    require_current(ROOT / "migrations" / script.name, script.text)


@pytest.mark.parametrize("revision", all_revisions())
def test_manifest_is_current(revision: str, manifests: Path) -> None:
    generated = manifests / f"{revision}.json"
    require_current(MANIFESTS / generated.name, generated.read_text(encoding="utf-8"))


def test_folders_of_generated_files_contain_nothing_else() -> None:
    assert {file.name for file in (ROOT / "migrations").iterdir()} == {script.name for script in SQL_SCRIPTS}
    assert {file.name for file in MANIFESTS.iterdir()} == {f"{revision}.json" for revision in all_revisions()}


def test_page_without_markers_raises() -> None:
    with pytest.raises(ValueError, match=r"CHANGELOG\.md must contain these two lines once"):
        with_section("CHANGELOG.md", "exit statuses", "a table")


def require_current(file: Path, generated: str) -> None:
    stored = file.read_text(encoding="utf-8") if file.is_file() else None
    assert stored == generated, f"{file.relative_to(ROOT)} is stale: run `make generate` and read the difference"
