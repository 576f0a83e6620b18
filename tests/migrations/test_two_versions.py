"""Two versions of the package, each a wheel in an environment: services of the older one during a deployment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from typing import TYPE_CHECKING, NamedTuple

import pytest

from support.checkouts import Checkout
from support.commands import ROOT
from support.evolutions import EVOLUTIONS
from support.revisions import AFTER_HEAD, HEAD
from syntegra_db.settings import describe_database

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database, Server

# Two wheels are built, and each command is a process.
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]

SECOND = f"{int(HEAD) + 2:03}"
PACKAGING = ("pyproject.toml", "README.md", "LICENSE")
REQUIRE = """
import sys
from syntegra_db.database import create_engine
from syntegra_db.errors import SyntegraDBError
from syntegra_db.migrations import require_head, require_revision

engine = create_engine()
checks = {"head": require_head, **{at_least: lambda bind, at_least=at_least: require_revision(bind, at_least=at_least)
                                   for at_least in sys.argv[1:]}}
for name, check in checks.items():
    try:
        check(engine)
    except SyntegraDBError as error:
        print(name, type(error).__name__, error)
    else:
        print(name, "passes")
"""


class Environment(NamedTuple):
    """A virtual environment with one version of the package."""

    folder: Path

    def run(self, database: Database, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = command
        return subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            cwd=self.folder,
            env={**os.environ, "DATABASE_URL": database.environment_url, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def checks(self, database: Database) -> dict[str, str]:
        """Return what `require_head`, and `require_revision` of 002 and of the newest one before, say."""
        result = self.run(database, "python", "-c", REQUIRE, "002", HEAD)
        assert result.returncode == 0, result.stderr
        return dict(line.split(" ", 1) for line in result.stdout.splitlines())


def install(source: Path, folder: Path) -> Environment:
    """Build the wheel of `source`, and install it into a new environment with the dependencies of this one."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder / "dist"), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    venv.create(folder / "venv")
    (site_packages,) = (folder / "venv").glob("lib/python*/site-packages")
    # Their .pth files, such as the one of an editable package, are not read.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")
    python = str(folder / "venv/bin/python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    return Environment(folder / "venv")


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return install(ROOT, tmp_path_factory.mktemp("older"))


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Environment:
    """A version with an expansion and, after it, a contraction."""
    folder = tmp_path_factory.mktemp("newer")
    checkout = Checkout(folder / "checkout", *PACKAGING)
    checkout.add_revision(AFTER_HEAD, *EVOLUTIONS["nullable column"], phase="expand")
    checkout.add_revision(SECOND, *EVOLUTIONS["dropped column"], before=AFTER_HEAD, phase="contract")
    checkout.write_manifests(server)
    return install(checkout.folder, folder)


def test_services_of_the_older_version_run_until_the_contraction(
    older: Environment, newer: Environment, database: Database
) -> None:
    def status(environment: Environment, *command: str) -> int:
        return environment.run(database, "syntegra-db", *command).returncode

    passing = {"head": "passes", "002": "passes", HEAD: "passes"}
    assert older.checks(database) == passing
    # The newer services that need the expansion wait for it; others start before it.
    assert newer.checks(database) == {
        **passing,
        "head": f"DatabaseBehind The {describe_database(database.url)} is at revision {HEAD}, but revision {SECOND} is "
        "required. Run `syntegra-db upgrade head`.",
    }
    assert status(newer, "status", "--check") == 9
    plan = json.loads(newer.run(database, "syntegra-db", "upgrade", "--dry-run", "--json").stdout)
    assert [plan[key][0]["revision"] for key in ("revisions", "held_back")] == [AFTER_HEAD, SECOND]
    assert [plan[key][0]["phase"] for key in ("revisions", "held_back")] == ["expand", "contract"]
    assert plan["target"] == AFTER_HEAD

    assert status(newer, "upgrade") == 0
    assert older.checks(database) == passing
    assert status(older, "status", "--check") == 0
    assert status(older, "wait", "--for-head", "--timeout", "0") == 0
    result = older.run(database, "python", "-m", "support.services", PYTHONPATH=str(ROOT / "tests"))
    assert result.returncode == 0, result.stderr

    plan = json.loads(newer.run(database, "syntegra-db", "upgrade", "--dry-run", "--json", "--contract").stdout)
    assert [planned["revision"] for planned in plan["revisions"]] == [SECOND]
    assert [lost["what"] for lost in plan["lost"]] == ["kpi_summary.metadata"]
    assert status(newer, "upgrade", "--contract") == 0
    rejected = f"DatabaseAhead The database is at revision {SECOND}, which this package does not know"
    for check in older.checks(database).values():
        assert check.startswith(rejected)
        assert f"Services of this package do not work on it: after {HEAD} is a contraction" in check
    for command in (("status", "--check"), ("wait", "--for-head"), ("upgrade", "--dry-run")):
        assert status(older, *command) == 10
    assert newer.checks(database) == passing
    assert status(newer, "status", "--check") == 0
