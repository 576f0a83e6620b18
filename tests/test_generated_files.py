"""Every generated file of the repository is what `make generate` writes today."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from support.commands import ROOT
from syntegra_db.catalog import MANIFESTS
from syntegra_db.migrations import write_manifests
from syntegra_db.migrations._sql_scripts import SqlScript, render_sql_scripts
from syntegra_db.revisions import all_revisions
from tools.api_docs import MODULES, describe, public_names
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


@pytest.mark.parametrize("name", MODULES)
def test_public_name_has_a_description(name: str) -> None:
    module = import_module(f"syntegra_db.{name}")
    assert all(describe(module, public) for public, _ in public_names(module))


UNDESCRIBED = {
    "constant": "LIMIT = 3",
    "annotated constant": "LIMIT: int = 3",
    "constant before another string": "LIMIT = 3\nOTHER = 4\n'''Of the other.'''",
    "imported constant": "from syntegra_db.pgvector_support import VECTOR_INDEX as LIMIT",
    "function": "def LIMIT(): pass",
    "class that inherits one": "class LIMIT(ValueError): pass",
}


@pytest.mark.parametrize("source", UNDESCRIBED)
def test_public_name_without_a_description_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    (tmp_path / "undescribed.py").write_text(UNDESCRIBED[source], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "undescribed", raising=False)
    with pytest.raises(ValueError, match=r"undescribed\.LIMIT is public and has no description"):
        describe(import_module("undescribed"), "LIMIT")


def require_current(file: Path, generated: str) -> None:
    stored = file.read_text(encoding="utf-8") if file.is_file() else None
    assert stored == generated, f"{file.relative_to(ROOT)} is stale: run `make generate` and read the difference"
