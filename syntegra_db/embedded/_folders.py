"""The folders of embedded servers: their locks, their paths, and the private ones with the sockets."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from syntegra_db.errors import EmbeddedServerError
from syntegra_db.settings import socket_directory_name

if TYPE_CHECKING:
    import pwd
    from collections.abc import Iterator

PRIVATE_MODE = 0o700
LOCK_TIMEOUT_SECONDS = 130  # more than a start and a stop take
POLL_SECONDS = 0.02
PORT = 5432
SOCKET = f".s.PGSQL.{PORT}"
# macOS has the lowest limit for the path of a socket.
MAX_SOCKET_PATH_BYTES = 103
# Neither PostgreSQL's list of folders, a URL, nor libpq's list of hosts gives these characters a meaning.
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")
# The server keeps it as its working directory. Through this name, folders above it that its user cannot enter, and
# characters of its path, do not matter.
WORKING_DIRECTORY = Path("/proc/self/cwd")


@contextmanager
def os_errors_explained() -> Iterator[None]:
    """Raise the block's `OSError` as `EmbeddedServerError`."""
    try:
        yield
    except OSError as error:
        raise EmbeddedServerError(
            f"The embedded PostgreSQL cannot use {error.filename or 'its folder'}: {error.strerror}. Run the command "
            "in a folder that you can write to, as the user who created it."
        ) from error


@contextmanager
def opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def locked(directory: Path) -> Iterator[int]:
    """Hold the lock on `directory`, so one process at a time starts or stops the servers in it."""
    with opened(directory) as descriptor:
        deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
        while not try_lock(descriptor):
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"Another process has been starting or stopping the embedded PostgreSQL in {directory} for "
                    f"{LOCK_TIMEOUT_SECONDS} s. End it, then run the command again."
                )
            time.sleep(POLL_SECONDS)
        yield descriptor


def try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_reachable(path: Path) -> bool:
    """Return whether all users can enter the folders above `path`."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)


def path_for(directory: Path) -> str:
    """Return the path under which a program whose working directory is `directory` finds it."""
    is_usable = PLAIN_PATH.fullmatch(str(directory)) and (os.geteuid() != 0 or is_reachable(directory))
    return str(directory if is_usable or not WORKING_DIRECTORY.exists() else WORKING_DIRECTORY)


def make_private_directory(path: Path, user: pwd.struct_passwd) -> None:
    path.mkdir(mode=PRIVATE_MODE)
    if os.geteuid() == 0:
        os.chown(path, user.pw_uid, user.pw_gid)


def socket_directory(data: Path, user: pwd.struct_passwd) -> Path:
    """Return the data folder, or if clients could not connect there, a private folder that is named after it."""
    if _is_socket_directory(data):
        return data
    for parent in (Path(tempfile.gettempdir()).resolve(), Path("/tmp")):  # noqa: S108  the folder in it is checked
        sockets = parent / socket_directory_name(data)
        if _is_socket_directory(sockets) and (os.geteuid() != 0 or is_reachable(sockets)):
            break
    else:
        raise EmbeddedServerError(
            f"The path {data} cannot be used for a socket, because it is too long or has special characters, and "
            "neither can the temporary folder. Set TMPDIR to a short path."
        )
    with suppress(FileExistsError):
        make_private_directory(sockets, user)
    found = sockets.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user.pw_uid or stat.S_IMODE(found.st_mode) != PRIVATE_MODE:
        raise EmbeddedServerError(
            f"The folder {sockets} is not private: it belongs to another user, or others may enter it. Remove it, or "
            "set TMPDIR to another folder."
        )
    return sockets


def _is_socket_directory(path: Path) -> bool:
    socket = str(path / SOCKET)
    return len(socket) <= MAX_SOCKET_PATH_BYTES and PLAIN_PATH.fullmatch(socket) is not None


def write_for(path: Path, text: str, user: pwd.struct_passwd) -> None:
    """Write a configuration file; never through a link, because root writes into another user's folder."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(f"# syntegra-db writes this file at each start.\n{text}")
        if os.geteuid() == 0:
            os.fchown(file.fileno(), user.pw_uid, user.pw_gid)
