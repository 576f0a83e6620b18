"""The wheel, installed in an empty environment without a checkout."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from typing import TYPE_CHECKING

import pytest

from support.commands import ROOT
from support.revisions import HEAD

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


def test_wheel_contains_revisions_and_package_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    revisions = {file.name for file in (ROOT / "alembic/versions").glob("*.py")}
    assert {f"syntegra_db/migrations/alembic/versions/{name}" for name in revisions} <= names
    assert {"syntegra_db/py.typed", "syntegra_db/migrations/alembic/env.py"} <= names
    assert {f"syntegra_db/catalog/manifests/{HEAD}.json", "syntegra_db/migrations/templates/script.sql"} <= names
    unexpected = {name for name in names if not name.startswith(("syntegra_db/", "syntegra_db-"))}
    assert unexpected == set()


def test_wheel_migrates_without_checkout(wheel: Path, empty_database: Database, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    # pip cannot verify the hash of the new wheel, so it gets the versions without hashes.
    versions = tmp_path / "versions.txt"
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    versions.write_text(re.sub(r" \\\n +--hash=\S+", "", pinned), encoding="utf-8")
    pip = [str(environment / "bin/pip"), "install", "--quiet", "-c", str(versions), str(wheel)]
    subprocess.run(pip, check=True, cwd=tmp_path)
    directory = tmp_path / "directory"
    directory.mkdir()

    def run(*arguments: str) -> str:
        return subprocess.run(
            [str(environment / "bin/syntegra-db"), *arguments],
            cwd=directory,
            env={"DATABASE_URL": empty_database.environment_url, "PATH": "/usr/bin:/bin"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    assert f"is at revision {HEAD}" in run("upgrade", "head")
    run("verify")
    assert "is at revision 002" in run("downgrade", "002")
    assert empty_database.query("SELECT version_num FROM alembic_version") == [("002",)]
    assert "CREATE TABLE kpi_summary" in run("sql", "003")
