"""The backup before an adoption: the whole database, since its tables do not have the shape of a revision yet."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from syntegra_db.settings import describe_database

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Not that of the backups of rows, which are restored another way.
SUFFIX = ".pgdump"
ERROR_LINE = re.compile(r"error: (.+)")


def dump_database(connection: Connection) -> Path:
    """Let pg_dump write the whole database, compressed, to a new file in `backups/`, and return its path.

    Raises:
        BackupFailed: pg_dump made none, or what it made cannot be read; nothing is left of it.
        ProgramMissing: there is no pg_dump that is as new as the server.
    """
    from syntegra_db.backup._files import DEFAULT_DIRECTORY, atomic_file
    from syntegra_db.backup._session import server_version
    from syntegra_db.client_programs import find_program_for_server

    url = connection.engine.url
    version = server_version(connection)
    program = find_program_for_server("pg_dump", version, for_url=url)
    name = re.sub(r"[^\w.-]", "_", url.database or "").lstrip(".-")
    path = DEFAULT_DIRECTORY / f"{name}-before-adoption-{datetime.now(UTC):%Y%m%dT%H%M%SZ}{SUFFIX}"
    with atomic_file(path) as file:
        archive = Path(file.name)
        _run(
            [*program.command, "--format=custom", "--no-sync", f"--dbname={program.conninfo(url)}"], connection, archive
        )
        reader = find_program_for_server("pg_restore", program.version)
        _run([*reader.command, "--list"], connection, None, read=archive)
    return path


def _run(command: list[str], connection: Connection, write: Path | None, read: Path | None = None) -> None:
    from syntegra_db.client_programs import env_with_c_locale, env_with_password
    from syntegra_db.errors import BackupFailed

    url = connection.engine.url
    with TemporaryFile() as nothing, TemporaryFile() as complaints:
        target = write.open("wb") if write else nothing
        source = read.open("rb") if read else nothing
        with target, source:
            ended = subprocess.run(  # noqa: S603  a program of PostgreSQL, found by its name
                command,
                stdin=source,
                stdout=target,
                stderr=complaints,
                env=env_with_password(env_with_c_locale(), url),
                check=False,
            )
        if ended.returncode:
            complaints.seek(0)
            said = complaints.read().decode(errors="replace")
            found = ERROR_LINE.search(said)
            raise BackupFailed(
                f"No backup of the {describe_database(url)}: {found[1] if found else said.strip()}. The database is "
                f"untouched, and nothing is left of the file."
            )
