"""Backup files: their names, and files that get their name only when they are complete."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from syntegra_db.errors import BackupFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_DIRECTORY = Path("backups")
SUFFIX = ".dump"
PARTIAL_PATTERN = ".*.syntegra_db-unfinished"
PRIVATE_FILE_MODE = 0o600
PRIVATE_DIRECTORY_MODE = 0o700


def default_path(database: str, label: str, timestamp: datetime, suffix: str = SUFFIX) -> Path:
    """Return the path of a backup without a name, such as `backups/DATABASE-LABEL-20240116T093000Z.dump`."""
    name = re.sub(r"[^\w.-]", "_", database).lstrip(".-")
    return DEFAULT_DIRECTORY / f"{name}-{label}-{timestamp.astimezone(UTC):%Y%m%dT%H%M%SZ}{suffix}"


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield an empty file that only its owner can read; it is renamed to `path` if the block succeeds.

    Until then it has a hidden name in the same directory and is locked by this process. Partial files of killed
    processes are removed first. The bytes and the name are on the disk when this returns.

    Raises:
        BackupFailed: the directory or the file cannot be written, the disk is full, or `path` exists.
    """
    try:
        if path.parent == DEFAULT_DIRECTORY:
            DEFAULT_DIRECTORY.mkdir(mode=PRIVATE_DIRECTORY_MODE, exist_ok=True)
        _require_new(path)
        remove_partial_files(path.parent)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_PATTERN[2:]}")
        with open(partial, "x+b", opener=_open_private) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                _require_new(path)
                partial.rename(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        _sync_directory(path.parent)
    except OSError as error:
        raise BackupFailed(
            f"Cannot write the backup {path}: {error.strerror}. The database is unchanged. Free disk space, or name "
            "another file with --output."
        ) from None


def remove_partial_files(directory: Path) -> None:
    """Remove the partial files of `directory` that no running process writes."""
    for partial in directory.glob(PARTIAL_PATTERN):
        with suppress(OSError), partial.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_APPEND, PRIVATE_FILE_MODE)


def _require_new(path: Path) -> None:
    if path.exists():
        raise BackupFailed(f"{path} already exists, and a backup never overwrites a file. Name another file.")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
