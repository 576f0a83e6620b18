"""The end of a backup's file: what it holds, and a checksum of every byte before.

A backup is an archive of pg_dump in its custom format, which pg_restore reads as it is; behind it stand a JSON object
and one line of fixed length with the name of this package, the object's length and the SHA-256 of all that precedes.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, BinaryIO

from syntegra_db.errors import InvalidBackup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOOTER = re.compile(rb"\nsyntegra_db backup 1 (\d{12}) ([0-9a-f]{64})\n")
DIGEST_CHARACTERS = 64
# The digest and the newline behind it are all that the digest does not cover.
DIGEST_LINE_BYTES = DIGEST_CHARACTERS + 1
FOOTER_BYTES = len("\nsyntegra_db backup 1 ") + 12 + 1 + DIGEST_LINE_BYTES
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class TableSummary:
    """The rows of a table, and the last number that the sequence of its ids gave out, if it gave any."""

    rows: int
    last_id: int | None


@dataclass(frozen=True)
class BackupMetadata:
    """What a backup holds, at one moment of the database; `made_at` is that moment in UTC, `pg_dump` a major version.

    `tables` stand in the order in which their rows can be inserted.
    """

    database: str
    schema: str
    revision: str
    made_at: str
    server_version: str
    pg_dump: int
    tables: dict[str, TableSummary]

    @property
    def rows(self) -> int:
        """The rows of all tables."""
        return sum(table.rows for table in self.tables.values())


@dataclass(frozen=True)
class Backup:
    """A file and what its seal says that it holds; `size` in bytes."""

    path: Path
    size: int
    contents: BackupMetadata


def write_footer(file: BinaryIO, contents: BackupMetadata) -> None:
    """Append the seal to the archive in `file`, open for reading and appending."""
    file.seek(0)
    digest = hashlib.sha256()
    for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
        digest.update(chunk)
    record = json.dumps(asdict(contents), ensure_ascii=False).encode()
    before_digest = record + b"\nsyntegra_db backup 1 %012d " % len(record)
    digest.update(before_digest)
    file.write(before_digest + digest.hexdigest().encode() + b"\n")


def read_metadata(path: Path) -> Backup:
    """Return what the file says that it holds, from its last bytes alone.

    Raises:
        BackupUnusable: it cannot be read, or has no seal: it was cut short, or another program made it.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - FOOTER_BYTES))
            footer = FOOTER.fullmatch(file.read())
            if footer is None:
                raise _missing_footer(path)
            length = int(footer[1])
            file.seek(max(0, size - FOOTER_BYTES - length))
            contents = _contents(file.read(length))
    except OSError as error:
        raise InvalidBackup(
            f"{path} cannot be read: {error.strerror}. Name a file that `syntegra-db backups` lists."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise corrupt_backup(path) from None
    return Backup(path, size, contents)


def verify_checksum(path: Path) -> Backup:
    """Return what the file holds, once each of its bytes has gone through the checksum.

    Raises:
        BackupUnusable: as `read_metadata`, or a byte of it is not what it was when it was made.
    """
    backup = read_metadata(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            for chunk in _chunks(file, backup.size - DIGEST_LINE_BYTES):
                digest.update(chunk)
            recorded = file.read(DIGEST_CHARACTERS)
    except OSError as error:
        raise InvalidBackup(f"{path} cannot be read to its end: {error.strerror}. Take another backup.") from None
    if recorded != digest.hexdigest().encode():
        raise corrupt_backup(path)
    return backup


def corrupt_backup(path: Path) -> InvalidBackup:
    """Return the error for a file whose bytes have changed."""
    return InvalidBackup(
        f"{path} is damaged: its checksum does not fit its bytes. Nothing was changed; take another backup, or another "
        "copy of this one."
    )


def _missing_footer(path: Path) -> InvalidBackup:
    return InvalidBackup(
        f"{path} does not end as a backup of syntegra-db does: it was cut short, or another program made it. Nothing "
        "was changed; take another backup, or, for a dump of pg_dump, see its pg_restore."
    )


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (chunk := file.read(min(CHUNK_BYTES, size))):
        size -= len(chunk)
        yield chunk


def _contents(record: bytes) -> BackupMetadata:
    fields = json.loads(record)
    fields["tables"] = {name: TableSummary(**table) for name, table in fields["tables"].items()}
    return BackupMetadata(**fields)
