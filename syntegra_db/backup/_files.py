"""Backup files: their names, and files that get their name only when they are complete."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import secrets
import stat
import sys
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from syntegra_db.errors import BackupFailed
from syntegra_db.interruption import report_if_interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_DIRECTORY = Path("backups")
"""The folder of backups, in the current directory."""
SUFFIX = ".dump"
"""The end of the name of a file with a backup of the rows."""
PARTIAL_SUFFIX = ".syntegra_db-unfinished"
PRIVATE_FILE_MODE = 0o600
PRIVATE_DIRECTORY_MODE = 0o700


def default_path(database: str, label: str, timestamp: datetime, suffix: str = SUFFIX) -> Path:
    """Return the path of a backup without a name, such as `backups/DATABASE-LABEL-20240116T093000Z.dump`.

    A second one of the same second ends with `-2`.
    """
    encoding = sys.getfilesystemencoding()
    encodable = database.encode(encoding, "replace").decode(encoding)
    name = re.sub(r"[^\w.-]", "_", encodable).lstrip(".-")
    stem = f"{name}-{label}-{timestamp.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    names = (f"{stem}{f'-{number}' if number > 1 else ''}{suffix}" for number in itertools.count(1))
    return next(path for path in map(DEFAULT_DIRECTORY.joinpath, names) if not os.path.lexists(path))


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield an empty, unbuffered file that only its owner can read; it is renamed to `path` if the block succeeds.

    Until then it has a hidden name in the same directory and is locked by this process. Partial files of killed
    processes are removed first. The bytes and the name are on the disk when this returns. Everything is done through
    the descriptor of the directory, so another directory that gets its name is not used.

    Raises:
        BackupFailed: the directory or the file cannot be written, the disk is full, `path` exists, or another user can
            change the directory.
    """
    try:
        if path.parent == DEFAULT_DIRECTORY:
            DEFAULT_DIRECTORY.mkdir(mode=PRIVATE_DIRECTORY_MODE, exist_ok=True)
        with _open_directory(path.parent) as directory:
            _require_new(path, directory)
            _remove_partial_files(directory)
            with _create_partial_file(path, directory) as file:
                try:
                    with report_if_interrupted(lambda: f"No backup was written to {path}."):
                        yield file
                        os.fsync(file.fileno())
                    with report_if_interrupted(lambda: f"If {path} exists, the backup is complete."):
                        _rename_to_new(file, path, directory)
                        os.fsync(directory)
                except BaseException:
                    with suppress(FileNotFoundError):
                        os.unlink(Path(file.name).name, dir_fd=directory)
                    raise
    except OSError as error:
        raise BackupFailed(
            f"Cannot write the backup {path}: {error.strerror}. The database is unchanged. {_remedy(error, path)} "
            "another file with --output."
        ) from None


def _remedy(error: OSError, path: Path) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "Free disk space, or name"
    return f"Create the directory {path.parent}, or name" if error.errno == errno.ENOENT else "Name"


@contextmanager
def _open_directory(path: Path) -> Iterator[int]:
    """Yield a descriptor of the directory `path`.

    Raises:
        BackupFailed: it belongs to another user than this process or root, or its group or others can write to it and
            it is not sticky. In a sticky directory, such as /tmp, only their owner can rename or remove files.
    """
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        status = os.fstat(directory)
        writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        if writable or status.st_uid not in {0, os.geteuid()}:
            raise BackupFailed(
                f"Other users can change the files of the directory {path}, so no backup is written to it. The "
                "database is unchanged. Take the directory over (chown, chmod go-w), or name a file in a directory "
                "that only you can write to."
            )
        yield directory
    finally:
        os.close(directory)


def _create_partial_file(path: Path, directory: int) -> BinaryIO:
    """Return a new, locked partial file of `path` in `directory`."""
    while True:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
        file = open(  # noqa: SIM115  the caller closes it
            partial, "x+b", buffering=0, opener=lambda name, flags: _open_private(name, flags, directory)
        )
        fcntl.flock(file, fcntl.LOCK_EX)
        # Before it was locked, another process may have removed it as the file of a killed process.
        if _is_file_at(partial.name, directory, file):
            return file
        file.close()


def _open_private(path: str, flags: int, directory: int) -> int:
    return os.open(Path(path).name, flags | os.O_NOFOLLOW, mode=PRIVATE_FILE_MODE, dir_fd=directory)


def _remove_partial_files(directory: int) -> None:
    """Remove the partial files of `directory` that are of this user and that no running process writes."""
    for name in os.listdir(directory):
        if not (name.startswith(".") and name.endswith(PARTIAL_SUFFIX)):
            continue
        with suppress(OSError):
            # Without O_NONBLOCK, opening a FIFO waits for a writer.
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
            try:
                status = os.fstat(descriptor)
                if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(name, dir_fd=directory)
            finally:
                os.close(descriptor)


def _require_new(path: Path, directory: int) -> None:
    # Also a symbolic link to a missing file exists.
    with suppress(FileNotFoundError):
        os.stat(path.name, dir_fd=directory, follow_symlinks=False)
        raise _already_exists(path)


def _rename_to_new(file: BinaryIO, path: Path, directory: int) -> None:
    """Rename the partial `file` to the name of `path`, unless another process created a file of that name."""
    partial = Path(file.name).name
    try:
        # Unlike rename, link does not overwrite.
        os.link(partial, path.name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        raise _already_exists(path) from None
    os.unlink(partial, dir_fd=directory)
    if not _is_file_at(path.name, directory, file):
        raise BackupFailed(
            f"Another process replaced {path} while it was written. The database is unchanged. Run this again."
        )


def _is_file_at(name: str, directory: int, file: BinaryIO) -> bool:
    """Return whether `name` in `directory` is the open `file`, and not a symbolic link to it."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(status, os.fstat(file.fileno()))


def _already_exists(path: Path) -> BackupFailed:
    return BackupFailed(
        f"{path} already exists, and a backup never overwrites a file. The database is unchanged. Name "
        "another file with --output, or run this again without --output."
    )
