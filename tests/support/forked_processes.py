"""Processes of alembic and syntegra-db that start fast, because the modules are already imported."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from support.commands import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import ForkServerProcess

    from support.servers import Database

_processes = multiprocessing.get_context("forkserver")
# The fork server imports the slow modules once.
_processes.set_forkserver_preload(
    ["alembic.command", "syntegra_db.migrations._env", "syntegra_db.adoption", "syntegra_db.cli"]
)


class ForkedProcess:
    """A process that calls `main` with `arguments`; its output goes to a file."""

    def __init__(
        self, main: Callable[[list[str]], object], url: str, output: Path, *arguments: str, **environment: str
    ) -> None:
        self.output = output
        environment["DATABASE_URL"] = url
        self.process: ForkServerProcess = _processes.Process(
            target=_run, args=(main, Path.cwd(), environment, output, arguments)
        )

    def start(self) -> Self:
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


class MigrationProcess(ForkedProcess):
    """A process that runs `alembic ARGUMENTS` on a database."""

    def __init__(self, database: Database, output: Path, *arguments: str, **environment: str) -> None:
        super().__init__(alembic, database.environment_url, output, *arguments, **environment)


def alembic(arguments: list[str]) -> None:
    """Run `alembic` in this process."""
    from alembic.config import main

    main(["-c", str(ROOT / "alembic.ini"), *arguments])


def syntegra_db(arguments: list[str]) -> None:
    """Run `syntegra-db` in this process."""
    from syntegra_db.cli import main

    sys.argv = ["syntegra-db", *arguments]
    main()


def _run(
    main: Callable[[list[str]], object],
    directory: Path,
    environment: dict[str, str],
    output: Path,
    arguments: tuple[str, ...],
) -> None:
    os.chdir(directory)
    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    main(list(arguments))
