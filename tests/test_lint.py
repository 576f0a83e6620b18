"""The checks of `make lint` that this project configures itself fail on what they are made for."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.commands import PROGRAMS, ROOT, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

PRIVATE_WORD = (ROOT / ".codespell/private-words.txt").read_text(encoding="utf-8").partition("->")[0]
PLAIN_TEXT = "The revision was reverted.\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with the project's configuration and one page."""
    shutil.copytree(ROOT / ".codespell", tmp_path / ".codespell")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "page.md").write_text(PLAIN_TEXT, encoding="utf-8")
    for arguments in (("init", "--quiet"), ("add", ".")):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    return tmp_path


def make(target: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", target, f"VENV={PROGRAMS.parent}"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_words_with_plain_text_pass(checkout: Path) -> None:
    result = make("words", checkout)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("planted", "reported"),
    [
        (f"Then {PRIVATE_WORD} it.", f"page.md:2: {PRIVATE_WORD} ==>"),
        (f"def {PRIVATE_WORD}_rows():", f"page.md:2: {PRIVATE_WORD} ==>"),
        (f"Each {'re' + 'cieved'} row.", "==> received"),
        (f"It was taken {'back'}.", "page.md:2:It was taken"),
    ],
    ids=["private word", "name with a private word", "spelling", "private phrase"],
)
def test_words_with_planted_text_fail(checkout: Path, planted: str, reported: str) -> None:
    (checkout / "page.md").write_text(f"{PLAIN_TEXT}{planted}\n", encoding="utf-8")
    result = make("words", checkout)
    assert result.returncode == 2
    assert reported in result.stdout


@pytest.mark.parametrize(
    ("module", "statement", "reported"),
    [
        (
            "catalog/_status.py",
            "import syntegra_db.backup",
            "syntegra_db.catalog is not allowed to import syntegra_db.backup",
        ),
        ("settings.py", "import syntegra_db.cli", "syntegra_db.settings is not allowed to import syntegra_db.cli"),
        ("__init__.py", "import syntegra_db.cli", "syntegra_db -> syntegra_db.cli"),
        (
            "models/types.py",
            "import syntegra_db.errors",
            "syntegra_db.models is not allowed to import syntegra_db.errors",
        ),
        ("vectors/_search.py", "import syntegra_db.catalog", "syntegra_db.vectors._search -> syntegra_db.catalog"),
        (
            "backup/_files.py",
            "import syntegra_db.catalog._introspection",
            "syntegra_db.backup._files -> syntegra_db.catalog._introspection",
        ),
        ("catalog/_schema.py", "import syntegra_db.catalog._drift", "._schema -> ._drift"),
        ("new.py", "", "syntegra_db.new"),
    ],
    ids=["upwards", "command line", "command line from the root", "models", "search", "internal", "cycle", "no layer"],
)
def test_imports_with_planted_import_fail(tmp_path: Path, module: str, statement: str, reported: str) -> None:
    shutil.copytree(ROOT / "syntegra_db", tmp_path / "syntegra_db")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    path = tmp_path / "syntegra_db" / module
    assert path.exists() is (module != "new.py")
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{statement}\n")
    result = make("imports", tmp_path)
    assert result.returncode == 2
    assert reported in " ".join(result.stdout.split())


def test_ruff_with_revision_that_imports_the_package_fails(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    passing = run("ruff", "check", cwd=tmp_path)
    assert passing.returncode == 0, passing.stdout
    with (tmp_path / "alembic/versions/001_create_data_sources.py").open("a", encoding="utf-8") as file:
        file.write("from syntegra_db.models import Base\n")
    failing = run("ruff", "check", cwd=tmp_path)
    assert failing.returncode == 1
    assert "`syntegra_db` is banned" in failing.stdout
