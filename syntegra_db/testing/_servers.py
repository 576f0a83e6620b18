"""The server of a run of tests: embedded, in a container, or the one of a URL."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from syntegra_db import embedded
from syntegra_db.connections import conninfo
from syntegra_db.errors import SettingsError, server_message
from syntegra_db.settings import describe_database, parse_url
from syntegra_db.testing._databases import claim, execute
from syntegra_db.testing._options import DOCKER, EMBEDDED, ENVIRONMENT_VARIABLE, OPTION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import URL

POSTGRES_IMAGE = "pgvector/pgvector:pg17"
# Data of a run of tests may be lost in a crash.
UNSAFE_AND_FAST = ("fsync = off", "synchronous_commit = off", "full_page_writes = off")
# The first with the column list of ON DELETE SET NULL.
OLDEST_VERSION = 15
# Each waits until its standard input ends: a line means that the server was removed, none that the tests were killed.
REMOVE_EMBEDDED = """
import sys
if not sys.stdin.readline():
    import shutil, pathlib
    from syntegra_db import embedded
    folder = pathlib.Path(sys.argv[1])
    embedded.stop_server(folder / "data", int(sys.argv[2]))
    shutil.rmtree(folder, ignore_errors=True)
"""
REMOVE_CONTAINER = """
import sys
if not sys.stdin.readline():
    import docker
    docker.from_env().containers.get(sys.argv[1]).remove(force=True, v=True)
"""
ADMINISTRATOR = """
    SELECT rolcreatedb OR rolsuper, current_setting('server_version_num')::integer / 10000,
           EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector')
    FROM pg_roles WHERE rolname = current_user
"""


@contextmanager
def chosen_server(choice: str, version: int | None) -> Iterator[URL]:
    """Yield the administrator's URL of the server of `--syntegra-server`.

    Raises:
        SyntegraDBError: there is no such server, or it cannot be used.
    """
    chosen: AbstractContextManager[URL]
    if choice == EMBEDDED:
        chosen = embedded_server(version)
    elif choice == DOCKER:
        chosen = docker_server()
    else:
        chosen = nullcontext(given_server(choice))
    with chosen as url, claim(url):
        yield url


@contextmanager
def embedded_server(version: int | None) -> Iterator[URL]:
    """Yield the administrator's URL of an embedded PostgreSQL in a temporary directory, by default of the newest."""
    version = version or embedded.DEFAULT_VERSION
    with embedded_data(version) as data:
        yield parse_url(embedded.start_server(data, version))


@contextmanager
def embedded_data(version: int, parent: Path | None = None) -> Iterator[Path]:
    """Yield the data folder of an embedded PostgreSQL that runs in a temporary directory, in `parent` if given.

    A crash of the machine may lose its data.
    """
    folder = Path(tempfile.mkdtemp(prefix="syntegra-db-", dir=parent))
    # If the server's user can enter it, `data_directory` and `hba_file` are paths that tests can use.
    folder.chmod(0o711)
    data = folder / "data"
    with _removed_after_kill(REMOVE_EMBEDDED, str(folder), str(version)):
        try:
            url = parse_url(embedded.start_server(data, version))
            for setting in UNSAFE_AND_FAST:
                execute(url, f"ALTER SYSTEM SET {setting}")
            execute(url, "SELECT pg_reload_conf()")
            yield data
        finally:
            embedded.stop_server(data, version)
            shutil.rmtree(folder)


@contextmanager
def docker_server() -> Iterator[URL]:
    """Yield the administrator's URL of a new container with PostgreSQL and pgvector.

    Raises:
        SettingsError: testcontainers is not installed, no Docker engine answers, or the container did not start.
    """
    try:
        from docker.errors import DockerException
        from testcontainers.community.postgres import PostgresContainer
        from testcontainers.core.config import testcontainers_config
        from testcontainers.core.exceptions import ContainerStartException
    except ImportError:
        raise SettingsError(
            f'{OPTION} docker needs the package testcontainers. Install it: pip install "syntegra-db[testing]"',
        ) from None
    # The container is removed here, so the reaper and its image are not needed.
    testcontainers_config.ryuk_disabled = True
    try:
        container = PostgresContainer(POSTGRES_IMAGE, driver=None)
        container.start()
    except (DockerException, ContainerStartException, TimeoutError, OSError) as error:
        raise SettingsError(
            f"{OPTION} docker cannot start {POSTGRES_IMAGE} ({_first_line(error)}). Start a Docker engine that has the "
            f"image, or choose another server: {OPTION} embedded",
        ) from None
    with _removed_after_kill(REMOVE_CONTAINER, container.get_wrapped_container().id):
        try:
            yield parse_url(container.get_connection_url())
        finally:
            container.stop()


def given_server(text: str) -> URL:
    """Return the administrator's URL that `text` is.

    Raises:
        SettingsError: it is not the URL of an administrator of a running PostgreSQL with pgvector.
    """
    try:
        url = parse_url(text)
    except SettingsError as error:
        raise SettingsError(str(error).replace("DATABASE_URL", f"The URL of {OPTION}")) from None
    _require_administrator(url)
    return url


def _require_administrator(url: URL) -> None:
    where = describe_database(url)
    try:
        with psycopg.connect(conninfo(url)) as connection:
            can_create, version, has_pgvector = connection.execute(ADMINISTRATOR).fetchone() or (False, 0, False)
    except psycopg.Error as error:
        reason = server_message(error)
        raise SettingsError(
            f"The server of {OPTION} cannot be used, because the connection to the {where} failed ({reason}). Correct "
            f"the URL in the environment variable {ENVIRONMENT_VARIABLE}, or choose another server: {OPTION} embedded",
        ) from None
    if version < OLDEST_VERSION:
        raise SettingsError(f"The {where} is PostgreSQL {version}, but {OLDEST_VERSION} or later is required.")
    if not can_create:
        raise SettingsError(
            f"The role of {OPTION} cannot create databases on the server of the {where}. Give the URL of an "
            f"administrator in the environment variable {ENVIRONMENT_VARIABLE}.",
        )
    if not has_pgvector:
        raise SettingsError(
            f"The server of the {where} does not have the extension pgvector. Install it there, or choose another "
            f"server: {OPTION} embedded",
        )


@contextmanager
def _removed_after_kill(program: str, *arguments: str) -> Iterator[None]:
    """Run `program` with `arguments` if this process ends inside the block without leaving it."""
    command = [sys.executable, "-c", program, *arguments]
    # A group apart, which the terminal's Ctrl-C does not reach.
    with subprocess.Popen(  # noqa: S603  the constants above
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as watcher:
        try:
            yield
        finally:
            watcher.communicate(b"removed\n")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
