"""Files that have their name only once they are complete, and the folder that backups are kept in."""

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
OWNER_ONLY = 0o600
OWNER_ONLY_FOLDER = 0o700


def default_path(database: str, revision: str, moment: datetime) -> Path:
    """Return where a backup goes that nobody has named: `backups/DATABASE-REVISION-20240116T093000Z.dump`."""
    name = re.sub(r"[^\w.-]", "_", database).lstrip(".-")
    return DEFAULT_DIRECTORY / f"{name}-{revision}-{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}{SUFFIX}"


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Give an empty file, readable by its owner only, that gets the name `path` when the block ends well.

    Until then it stands in the same folder under a name that begins with a dot, locked by this process; what
    processes that were killed left there is removed first. By then its bytes are on the disk, and so is its name.

    Raises:
        BackupFailed: the folder or the file cannot be written, the disk is full, or `path` is there already.
    """
    try:
        if path.parent == DEFAULT_DIRECTORY:
            DEFAULT_DIRECTORY.mkdir(mode=OWNER_ONLY_FOLDER, exist_ok=True)
        _refuse_existing(path)
        remove_partial_files(path.parent)
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_PATTERN[2:]}")
        with _locked(unfinished) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                _refuse_existing(path)
                unfinished.rename(path)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
        _sync_folder(path.parent)
    except OSError as error:
        raise BackupFailed(
            f"No backup in {path}: {error.strerror}. The database is untouched; make room there, or name another "
            "place with --output."
        ) from None


def remove_partial_files(folder: Path) -> None:
    """Remove the unfinished files of `folder` that no process is writing any more."""
    for left in folder.glob(PARTIAL_PATTERN):
        with suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    with open(path, "x+b", opener=_open_private) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_APPEND, OWNER_ONLY)


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise BackupFailed(f"{path} is there already, and a backup is never written over; name another file.")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
