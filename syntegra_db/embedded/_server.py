"""One server on one data folder: its files, its process and its end.

The server holds a lock on its data folder from its start until its last process ended, so the lock says whether one
runs. `postmaster.pid` cannot: after a crash it names a process ID that may be another program's, and it is copied with
its folder.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from syntegra_db.embedded._answers import (
    ANSWER_TIMEOUT_SECONDS,
    log_size,
    pid_file_lines,
    probe,
    reason_in_log,
    running_socket_directory,
)
from syntegra_db.embedded._folders import (
    POLL_SECONDS,
    PORT,
    PRIVATE_MODE,
    SOCKET,
    locked,
    make_private_directory,
    opened,
    os_errors_explained,
    path_for,
    socket_directory,
    try_lock,
    write_for,
)
from syntegra_db.embedded._programs import DEFAULT_VERSION, popen, run, server_programs, server_user
from syntegra_db.errors import EmbeddedServerError
from syntegra_db.interruption import report_if_interrupted
from syntegra_db.libpq_options import options_against_environment

if TYPE_CHECKING:
    import pwd
    import subprocess
    from collections.abc import Iterator

START_TIMEOUT_SECONDS = 120  # recovery after a crash
STOP_TIMEOUT_SECONDS = 10  # after the 60 s of pg_ctl


def start_server(data: Path, version: int = DEFAULT_VERSION) -> str:
    """Start PostgreSQL `version` on the data folder `data`, made if missing, and return its administrator's URI.

    The server accepts only this operating system user and root. A server that runs already is left running.

    Raises:
        EmbeddedServerError: the extra is not installed, there is no such version, or the server did not start.
    """
    with started_server(data, version) as uri:
        options = options_against_environment(conninfo_to_dict(uri)).items()
        return uri + "".join(f"&{name}={quote(value)}" for name, value in options)


@contextmanager
def started_server(data: Path, version: int = DEFAULT_VERSION) -> Iterator[str]:
    """Start the server like `start_server`; while the block runs, no other process starts or stops it.

    Raises:
        EmbeddedServerError: as `start_server`, or an `OSError` was raised in the block.
    """
    programs, user = server_programs(version), server_user()
    with os_errors_explained():
        data = data.resolve()
        # Others may enter it, as root's server does under another user, and not list it.
        data.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        with locked(data.parent) as lock:
            if not (data.exists() and any(data.iterdir())):
                _initialize(data, programs, user, lock)
            _require_usable(data, version, user)
            with opened(data) as descriptor:
                uri = _start_if_stopped(data, programs, user, descriptor)
            yield uri


def stop_server(data: Path, version: int = DEFAULT_VERSION) -> bool:
    """Stop the server on the data folder `data`, and return whether one was running.

    Raises:
        EmbeddedServerError: the extra is not installed, or the server did not stop.
    """
    with os_errors_explained():
        data = data.resolve()
        if not data.is_dir():
            return False
        with locked(data.parent):
            return stop_while_locked(data, version)


def stop_while_locked(data: Path, version: int) -> bool:
    """Stop the server like `stop_server`; the caller holds the lock on the folder above `data`."""
    if not data.is_dir():
        return False
    with opened(data) as descriptor:
        if try_lock(descriptor):
            return False
        user, sockets = server_user(), running_socket_directory(data)
        command = [str(server_programs(version) / "pg_ctl"), "stop", "-m", "fast", "-D", path_for(data)]
        with report_if_interrupted(lambda: f"The embedded PostgreSQL on {data} may still run; its data is kept."):
            reason = run(command, user, cwd=data)
            deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
            while not try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(f"The embedded PostgreSQL on {data} did not stop: {reason}.")
                time.sleep(POLL_SECONDS)
        if sockets not in {None, data}:
            with suppress(OSError):  # not empty
                sockets.rmdir()
        return True


def _initialize(data: Path, programs: Path, user: pwd.struct_passwd, lock: int) -> None:
    """Create the data folder; after an interruption it is missing, not incomplete."""
    new = data.with_name(f".{data.name}.initdb")
    if new.exists():
        shutil.rmtree(new)
    make_private_directory(new, user)
    with report_if_interrupted(lambda: f"No data was created in {data}."), _removed_after_error(new):
        command = [str(programs / "initdb"), "-U", "postgres", "--encoding=utf8", "--auth=reject", "-D", path_for(new)]
        # If this process is killed, initdb keeps the lock until it ended.
        if reason := run(command, user, cwd=new, pass_fds=(lock,)):
            raise EmbeddedServerError(f"The embedded PostgreSQL could not create {data}: {reason}.")
        new.rename(data)


@contextmanager
def _removed_after_error(directory: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(directory)
        raise


def _require_usable(data: Path, version: int, user: pwd.struct_passwd) -> None:
    """Raise `EmbeddedServerError` unless `data` contains data of `version` and belongs to the server's user."""
    owner = data.stat().st_uid
    if owner == 0 != user.pw_uid:
        raise EmbeddedServerError(
            f"The data belongs to root, but the server runs as {user.pw_name}. Give it to that user: "
            f"chown -R {user.pw_name} {shlex.quote(str(data))}"
        )
    if owner != user.pw_uid:
        raise EmbeddedServerError(
            f"The folder {data} belongs to the user {data.owner()}. Run the command as that user, or in another folder."
        )
    version_file = data / "PG_VERSION"
    found = version_file.read_text(encoding="utf-8", errors="replace").strip() if version_file.exists() else ""
    if found != str(version):
        contents = f"data of PostgreSQL {found}" if found.isdecimal() else "other files"
        raise EmbeddedServerError(
            f"The folder {data} contains {contents}, not data of PostgreSQL {version}. Move it to another place, then "
            "run the command again."
        )
    data.chmod(PRIVATE_MODE)


def _start_if_stopped(data: Path, programs: Path, user: pwd.struct_passwd, descriptor: int) -> str:
    """Return the URI of the server on `data` as soon as it accepts connections; start it unless it runs."""
    deadline = time.monotonic() + ANSWER_TIMEOUT_SECONDS
    while not try_lock(descriptor):
        uri, problem = probe(data)
        if problem is None:
            return uri
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"The embedded PostgreSQL on {data} runs, but accepts no connections: {problem}. Stop it "
                "(syntegra-db local stop), then start it again."
            )
        time.sleep(POLL_SECONDS)
    log_offset = log_size(data)
    process = _launch(data, programs, user, descriptor)
    with report_if_interrupted(lambda: f"The embedded PostgreSQL on {data} was stopped again; its data is kept."):
        try:
            return _wait_until_ready(data, process, log_offset)
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise


def _wait_until_ready(data: Path, process: subprocess.Popen[Any], log_offset: int) -> str:
    """Return the server's URI as soon as it accepts connections; `log_offset` was the size of its log before it."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        uri, problem = probe(data)
        if problem is None:
            return uri
        if process.poll() is not None:
            problem = reason_in_log(data, log_offset)
        if process.poll() is not None or time.monotonic() > deadline:
            raise EmbeddedServerError(f"The embedded PostgreSQL did not start: {problem}. Its log is {data / 'log'}.")
        time.sleep(POLL_SECONDS)


def _launch(data: Path, programs: Path, user: pwd.struct_passwd, lock: int) -> subprocess.Popen[Any]:
    """Start the server's process, which keeps `lock`."""
    _require_no_other_server(data)
    sockets = socket_directory(data, user)
    # After a crash they can block a start: they may be empty, or name a process ID that another program has now.
    for file in (data / "postmaster.pid", sockets / f"{SOCKET}.lock"):
        file.unlink(missing_ok=True)
    write_for(data / "pg_hba.conf", "local all all peer map=syntegra_db\n", user)
    accounts = sorted({"root", user.pw_name})
    write_for(data / "pg_ident.conf", "".join(f'syntegra_db "{account}" all\n' for account in accounts), user)
    settings = {
        "listen_addresses": "",
        "port": PORT,
        "unix_socket_directories": "." if sockets == data else sockets,
        "unix_socket_permissions": "0700",
    }
    command = [
        str(programs / "postgres"),
        "-D",
        path_for(data),
        *(f"--{key}={value}" for key, value in settings.items()),
    ]
    log = os.open(data / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        if os.geteuid() == 0:
            os.fchown(log, user.pw_uid, user.pw_gid)
        process = popen(command, user, cwd=data, stdout=log, stderr=log, pass_fds=(lock,))
    finally:
        os.close(log)
    # Otherwise it would remain in the process table after its end.
    threading.Thread(target=process.wait, daemon=True).start()
    return process


def _require_no_other_server(data: Path) -> None:
    """Raise `EmbeddedServerError` if a server that does not hold the lock runs on `data` (noticed on Linux only)."""
    pid = pid_file_lines(data)[0]
    with suppress(OSError):
        if pid.isdecimal() and Path(f"/proc/{pid}/cwd").samefile(data):
            raise EmbeddedServerError(
                f"The process {pid}, which another program started, runs PostgreSQL on {data}. Stop it first: "
                f"kill -INT {pid}"
            )
