"""What the files and the socket of a server say: whether it accepts connections, and why not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from syntegra_db.errors import EmbeddedServerError
from syntegra_db.libpq_options import advise_on_variable, options_against_environment

if TYPE_CHECKING:
    from pathlib import Path

ANSWER_TIMEOUT_SECONDS = 10
# Of postmaster.pid.
SOCKET_DIRECTORY_LINE = 4
STATUS_LINE = 7
READY = "ready   "
LOG_REASON = re.compile(r"(?:FATAL|PANIC): +(.+)")


def probe(data: Path) -> tuple[str, str | None]:
    """Return the URI of the server on `data`, and why it accepts no connection, or None."""
    sockets = running_socket_directory(data)
    uri = f"postgresql://postgres@/postgres?host={quote(str(sockets), safe='/')}"
    if sockets is None:
        return uri, "its postmaster.pid does not say that it is ready"
    if sockets != data:
        # After a crash, another user can create the folder again and imitate the server.
        uri += f"&requirepeer={quote(data.owner())}"
    try:
        connect(uri).close()
    except psycopg.OperationalError as error:
        problem = str(error).splitlines()[0]
        if advice := advise_on_variable(problem, ["options"]):
            raise EmbeddedServerError(f"The embedded PostgreSQL rejects connections: {problem}.{advice}") from None
        return uri, problem
    return uri, None


def connect(uri: str, **options: Any) -> psycopg.Connection:
    """Connect to an embedded server whatever libpq's environment variables say."""
    limits = {"connect_timeout": ANSWER_TIMEOUT_SECONDS, "client_encoding": "utf8"}
    return psycopg.connect(uri, **{**options_against_environment(conninfo_to_dict(uri)), **limits, **options})


def running_socket_directory(data: Path) -> Path | None:
    """Return where the server on `data` listens, or None if `postmaster.pid` does not say that it is ready."""
    lines = pid_file_lines(data)
    if lines[STATUS_LINE:] != [READY]:
        return None
    return data / lines[SOCKET_DIRECTORY_LINE]


def pid_file_lines(data: Path) -> list[str]:
    """Return the lines of `postmaster.pid`, at least one."""
    file = data / "postmaster.pid"
    return (file.read_text(encoding="utf-8", errors="replace") if file.exists() else "").splitlines() or [""]


def log_size(data: Path) -> int:
    """Return the size of the log in bytes, 0 if there is none."""
    log = data / "log"
    return log.stat().st_size if log.exists() else 0


def reason_in_log(data: Path, offset: int) -> str:
    """Return the last fatal error that the log contains after `offset`."""
    text = (data / "log").read_bytes()[offset:].decode(errors="replace")
    reasons = LOG_REASON.findall(text) or text.splitlines() or ["no reason given"]
    return str(reasons[-1]).rstrip(".")
