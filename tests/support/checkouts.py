"""Copies of the checkout with sample revisions after the released ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from textwrap import dedent, indent
from typing import TYPE_CHECKING

from support.commands import ROOT
from support.revisions import HEAD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.servers import Database, Server

REVISION = '''\
"""A sample.

Why: it shows what a revision can do.
Locks: ACCESS EXCLUSIVE, SHARE ROW EXCLUSIVE, SHARE UPDATE EXCLUSIVE or ROW EXCLUSIVE on anomaly_log, clusters,
data_sources, kpi_summary, processed_data or text_summary.
Duration: grows with the rows of anomaly_log, clusters, kpi_summary, processed_data or text_summary.
If it fails: correct the cause, and run `syntegra-db upgrade` again.
Downgrade: reverts it.
"""

from __future__ import annotations

import pgvector.sqlalchemy
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "{revision}"
down_revision = "{before}"
phase = {phase!r}


def upgrade() -> None:
{upgrade}


def downgrade() -> None:
{downgrade}
'''

WRITE_MANIFESTS = """
from syntegra_db.catalog import MANIFESTS
from syntegra_db.migrations import write_manifests
from syntegra_db.settings import database_url
write_manifests(database_url(), MANIFESTS)
"""

WRITE_REVISION = """
import sys
from syntegra_db.migrations.authoring import write_revision
from syntegra_db.settings import database_url
new = write_revision(database_url(), sys.argv[1])
print(new.remarks, end="")
sys.exit(3 if new.is_empty else 0)
"""


class Checkout:
    """A copy of the package, its revisions and other `parts` of the checkout in `folder`."""

    def __init__(self, folder: Path, *parts: str) -> None:
        self.folder = folder
        folder.mkdir()
        ignored = shutil.ignore_patterns("__pycache__")
        for path in map(ROOT.joinpath, ("syntegra_db", "alembic", "alembic.ini", *parts)):
            if path.is_dir():
                shutil.copytree(path, folder / path.name, ignore=ignored)
            else:
                shutil.copy(path, folder)

    @property
    def manifests(self) -> Path:
        return self.folder / "syntegra_db/catalog/manifests"

    def add_revision(
        self, revision: str, upgrade: str, downgrade: str = "pass", *, before: str = HEAD, phase: str | None = None
    ) -> Path:
        """Write a revision whose functions have these bodies, and return its file."""
        path = self.folder / "alembic/versions" / f"{revision}_sample.py"
        bodies = {name: indent(dedent(body), "    ") for name, body in (("upgrade", upgrade), ("downgrade", downgrade))}
        path.write_text(REVISION.format(revision=revision, before=before, phase=phase, **bodies), encoding="utf-8")
        return path

    def change_model(self, table: str, old: str, new: str) -> None:
        """Replace `old`, which occurs once, in the model of `table`."""
        path = self.folder / "syntegra_db/models" / f"{table}.py"
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1
        path.write_text(text.replace(old, new), encoding="utf-8")

    def write_manifests(self, server: Server) -> None:
        """Do what `syntegra-db manifests` does, on a database of `server` instead of another server."""
        result = self._run_on(server, WRITE_MANIFESTS)
        assert result.returncode == 0, result.stderr

    def write_revision(self, server: Server, name: str) -> tuple[int, str]:
        """Do what `syntegra-db revision` does, in the same way; return 3 if it is empty, and what ruff reports."""
        result = self._run_on(server, WRITE_REVISION, name)
        assert result.returncode in {0, 3}, result.stderr
        return result.returncode, result.stdout

    def _run_on(self, server: Server, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        with server.database() as empty:
            return subprocess.run(
                [sys.executable, "-c", program, *arguments],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(self.folder), "DATABASE_URL": empty.environment_url},
                capture_output=True,
                text=True,
                check=False,
            )

    def migrate(self, server: Server, database: Database) -> None:
        """Write the manifests, and upgrade `database` to the newest revision."""
        self.write_manifests(server)
        result = self.run("syntegra-db", "upgrade", database=database)
        assert result.returncode == 0, result.stderr

    def run(self, program: str, *arguments: str, database: Database | None = None) -> subprocess.CompletedProcess[str]:
        """Run `syntegra-db`, `alembic` or a module of the copy, on `database` if given."""
        with self.running(program, *arguments, database=database) as process:
            output, errors = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    @contextmanager
    def running(
        self, program: str, *arguments: str, database: Database | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """Do the same at the same time as the block; kill the program if it has not ended."""
        module = {"syntegra-db": "syntegra_db", "alembic": "alembic.config"}.get(program, program)
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "NO_COLOR": "1", "COLUMNS": "200"}
        if database is not None:
            environment["DATABASE_URL"] = database.environment_url
        with subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def evaluate(self, program: str) -> str:
        """Run `program` in Python with the modules of the copy, and return its standard output."""
        result = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def succeed(self, *command: str, database: Database | None = None, status: int = 0) -> str:
        """Run a command, which exits with `status`, and return its standard output."""
        result = self.run(*command, database=database)
        assert result.returncode == status, result.stdout + result.stderr
        return result.stdout
