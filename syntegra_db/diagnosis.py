"""The diagnosis of a connection that could not be opened.

libpq gives no SQLSTATE for it, and a server's messages may be in any language, so it is read from libpq's trace.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import sys
import time
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.errors import ConnectionTimeout

from syntegra_db.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    DatabaseNotFound,
    ServerUnreachable,
    SettingsError,
    server_message,
)
from syntegra_db.libpq_options import NO_DEMANDS, advise_on_variable, known_options
from syntegra_db.network import LIBPQ_LIMITS
from syntegra_db.settings import describe_database, libpq_parameters
from syntegra_db.sql import qualify_calls, quote
from syntegra_db.wording import shell_quote

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

SQLSTATE = re.compile(rb'\tErrorResponse\t.*? C "([0-9A-Z]{5})"')
CANNOT_CONNECT_NOW = "57P03"
INVALID_CATALOG_NAME = "3D000"
AUTHORIZATION_CLASS = "28"
RESOURCES_CLASS = "53"
MAINTENANCE_DATABASES = ("postgres", "template1")
# The role that connects, and one that can create a database for it: itself, or else the oldest superuser.
CREATOR = qualify_calls("""
    SELECT session_user, rolname FROM pg_roles
    WHERE rolcanlogin AND (rolsuper OR rolcreatedb AND rolname = session_user)
    ORDER BY rolname = session_user DESC, oid
""")
UNREACHABLE_HINT = (
    "Start it (`make up`, or `syntegra-db local start`), or correct DATABASE_URL or POSTGRES_HOST and POSTGRES_PORT in "
    "the environment or .env."
)


def diagnose_connection_failure(
    url: URL, conninfo: str, error: BaseException | None
) -> ConnectionFailed | SettingsError:
    """Return the error for a connection to `url` that could not be opened with libpq's string `conninfo`.

    A second attempt reads the server's SQLSTATE. Without one, libpq itself ended the attempt, and one without the
    demands of the URL tells whether a server answers at all.
    """
    where, reply = describe_database(url), server_message(error)
    if isinstance(error, ConnectionTimeout):
        return ServerUnreachable(f"No PostgreSQL server answers for {where} ({reply}). {UNREACHABLE_HINT}")
    # Without a network: only the options are read.
    if pq.PGconn.ping(make_conninfo(conninfo, host="/", hostaddr="", port="").encode()) == pq.Ping.NO_ATTEMPT:
        return SettingsError(f"The URL of the {where} is wrong: {reply}.")
    is_answering, sqlstate = _attempt(conninfo)
    if sqlstate is not None:
        return _rejected(url, conninfo, reply, sqlstate)
    if getattr(getattr(error, "pgconn", None), "needs_password", False):
        return _rejected(url, conninfo, reply, AUTHORIZATION_CLASS)
    if not is_answering:
        is_answering, _ = _attempt(_without_demands(conninfo))
    if is_answering:
        return ConnectionFailed(
            f"The connection to {where} was ended by the client: {reply}. Correct the option in the URL or in "
            "its environment variable, or the server."
        )
    return ServerUnreachable(f"No PostgreSQL server answers for {where} ({reply}). {UNREACHABLE_HINT}")


def _without_demands(conninfo: str) -> str:
    """Return `conninfo` without its demands, and without the password, which they protect."""
    undemanding = {name: value for name, value in NO_DEMANDS.items() if name in known_options()}
    return make_conninfo(conninfo, **undemanding, password="", passfile=f"{os.devnull}/none")


def _rejected(url: URL, conninfo: str, reply: str, sqlstate: str) -> ConnectionFailed:
    where, parameters = describe_database(url), libpq_parameters(url)
    user = parameters.get("user")
    if sqlstate == CANNOT_CONNECT_NOW:
        return ServerUnreachable(
            f"The server of {where} does not accept connections yet ({reply}); try again in a few seconds."
        )
    if sqlstate == INVALID_CATALOG_NAME:
        return DatabaseNotFound(
            f"The server has no {where} ({reply}). Create it (`{_creation_command(url, conninfo)}`), or correct "
            "DATABASE_URL or POSTGRES_DB in the environment or .env."
        )
    if sqlstate.startswith(AUTHORIZATION_CLASS):
        tls = " If the server requires TLS, remove sslmode." if parameters.get("sslmode") == "disable" else ""
        rejection = f"The server rejected user {user}" if user else "The server rejected the user"
        return AuthenticationFailed(
            f"{rejection} for {where} ({reply}). If the user or the "
            "password is wrong, correct it in DATABASE_URL, or in POSTGRES_USER and POSTGRES_PASSWORD, in the "
            f"environment or .env.{tls}"
        )
    if sqlstate.startswith(RESOURCES_CLASS):
        return ConnectionFailed(
            f"The server did not open {where}: {reply}. Close other connections, or raise the limit that it names."
        )
    return ConnectionFailed(f"The server did not open {where}: {reply}.{advise_on_variable(reply, url.query)}")


def _creation_command(url: URL, conninfo: str) -> str:
    """Return the command that creates the database of `url` for its user, as a role that can create it."""
    attempt = pq.PGconn.connect_start(conninfo.encode())
    # As libpq resolved them, from the URL, the environment and a service file.
    host, port, user, name = (value.decode() for value in (attempt.host, attempt.port, attempt.user, attempt.db))
    attempt.finish()
    owner, creator = _read_creator(conninfo) or (user, "postgres")
    options = [*(["-h", host] if host else []), "-p", port, "-U", creator]
    if shutil.which("createdb"):
        options += ["-O", owner] if owner != creator else []
        return " ".join(map(shell_quote, ["createdb", *options, *(["--"] if name.startswith("-") else []), name]))
    # Not with the password of the URL, which is another role's.
    options += ["--password"] if "password" in libpq_parameters(url) and owner != creator else []
    statement = f"CREATE DATABASE {quote(name)} OWNER {quote(owner)}"
    return " ".join(map(shell_quote, ["syntegra-db", "psql", *options, "-d", "postgres", "-c", statement]))


def _read_creator(conninfo: str) -> tuple[str, str] | None:
    """Return the row of `CREATOR`, or None if the role may not connect to ask for it."""
    for database in MAINTENANCE_DATABASES:
        try:
            with psycopg.connect(conninfo, dbname=database, autocommit=True) as connection:
                return connection.execute(CREATOR.encode()).fetchone()
        except psycopg.OperationalError:
            continue
    return None


def _attempt(conninfo: str) -> tuple[bool, str | None]:
    """Try to connect, and return whether a server answered, and with which SQLSTATE.

    Only Linux has a trace; elsewhere there is no SQLSTATE.
    """
    if sys.platform != "linux":
        return pq.PGconn.ping(conninfo.encode()) in {pq.Ping.OK, pq.Ping.REJECT}, None
    # In memory only, because the trace contains the password.
    with os.fdopen(os.memfd_create("trace"), "rb") as trace:
        attempt = pq.PGconn.connect_start(conninfo.encode())
        attempt.trace(trace.fileno())
        _finish(attempt)
        # libpq does not trace the request for a password that it does not have.
        asks_for_password = attempt.needs_password
        attempt.untrace()
        attempt.finish()
        trace.seek(0)
        messages = trace.read()
    found = SQLSTATE.findall(messages)
    return asks_for_password or b"\tB\t" in messages, found[-1].decode() if found else None


def _finish(attempt: pq.abc.PGconn) -> None:
    deadline = time.monotonic() + LIBPQ_LIMITS["connect_timeout"]
    while attempt.status != pq.ConnStatus.BAD and time.monotonic() < deadline:
        status = attempt.connect_poll()
        if status not in {pq.PollingStatus.READING, pq.PollingStatus.WRITING}:
            return
        reading = [attempt.socket] if status == pq.PollingStatus.READING else []
        writing = [] if reading else [attempt.socket]
        select.select(reading, writing, [], max(0, deadline - time.monotonic()))
