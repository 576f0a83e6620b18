"""Migration processes that start fast enough to run at the same time."""

from __future__ import annotations

import multiprocessing
import os
import sys
from typing import TYPE_CHECKING

from support.commands import ROOT

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess
    from pathlib import Path

    from support.servers import Database

_processes = multiprocessing.get_context("forkserver")
# The fork server imports the slow modules once.
_processes.set_forkserver_preload(["alembic.command", "syntegra_db.migrations._env", "syntegra_db.models"])


class MigrationProcess:
    """A process that runs `alembic ARGUMENTS` on a database; its output goes to a file."""

    def __init__(self, database: Database, output: Path, *arguments: str, **environment: str) -> None:
        self.output = output
        environment["DATABASE_URL"] = database.environment_url
        self.process: ForkServerProcess = _processes.Process(
            target=_alembic, args=(environment, str(output), arguments)
        )

    def start(self) -> MigrationProcess:
        self.process.start()
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def wait(self, seconds: float = 90) -> int | None:
        """Return the exit status, or None if it still runs after `seconds`."""
        self.process.join(seconds)
        return self.process.exitcode

    @property
    def output_text(self) -> str:
        return self.output.read_text(encoding="utf-8") if self.output.exists() else ""


def _alembic(environment: dict[str, str], output: str, arguments: tuple[str, ...]) -> None:
    from alembic.config import main

    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    main(["-c", str(ROOT / "alembic.ini"), *arguments])
