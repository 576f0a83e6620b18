"""Run plain psql, without settings, and without flags that change what a file does."""

from __future__ import annotations

import os
import pty
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from syntegra_db.client_programs import find_program
from syntegra_db.connections import conninfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy.engine import URL


def feed(url: URL, script: str, home: Path, *, search_path: str = "public") -> subprocess.CompletedProcess[str]:
    """Run `cat script | psql` without flags; the user's own psql settings do not apply, because HOME is `home`."""
    environment = {**os.environ, "HOME": str(home), "PGOPTIONS": f"-c search_path={search_path}"}
    command = [str(find_program("psql")), conninfo(url)]
    return subprocess.run(
        command, input=script, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@contextmanager
def interactive(url: URL, home: Path) -> Iterator[Callable[[str], str]]:
    """Run psql on a terminal; yield a function that enters a line and returns what it wrote to stderr."""
    terminal, end = pty.openpty()
    environment = {**os.environ, "HOME": str(home), "PGOPTIONS": "-c search_path=public"}
    with subprocess.Popen(
        [find_program("psql"), "--no-readline", conninfo(url)],
        stdin=end,
        stdout=end,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        os.close(end)
        assert process.stderr is not None
        errors = iter(process.stderr.readline, "")

        def enter(line: str) -> str:
            os.write(terminal, f"{line}\n\\warn end of the line\n".encode())
            return "".join(iter(lambda: next(errors), "end of the line\n"))

        try:
            yield enter
        finally:
            process.kill()
            os.close(terminal)
