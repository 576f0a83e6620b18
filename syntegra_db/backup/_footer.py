"""The footer of a backup file: metadata, and a checksum of all bytes before it.

A backup is a pg_dump archive in custom format, which pg_restore reads as it is, followed by a JSON object and one line
of fixed length with the name of this package, the length of the object and the SHA-256 of everything before it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, BinaryIO

from syntegra_db.errors import InvalidBackup

if TYPE_CHECKING:
    from pathlib import Path

FOOTER = re.compile(rb"\nsyntegra_db backup 1 (\d{12}) ([0-9a-f]{64})\n")
DIGEST_CHARACTERS = 64
# The digest does not cover itself and the newline after it.
DIGEST_LINE_BYTES = DIGEST_CHARACTERS + 1
FOOTER_BYTES = len("\nsyntegra_db backup 1 ") + 12 + 1 + DIGEST_LINE_BYTES
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class TableSummary:
    """The number of rows of a table, and the last value of its id sequence, None if the sequence was never used."""

    rows: int
    last_id: int | None


@dataclass(frozen=True)
class BackupMetadata:
    """What a backup contains; `made_at` is the time of its snapshot in UTC, `pg_dump` the program's major version.

    `tables` are in the order in which their rows can be inserted.
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
        """The number of rows of all tables."""
        return sum(table.rows for table in self.tables.values())


@dataclass(frozen=True)
class Backup:
    """A backup file with its size in bytes and the metadata of its footer."""

    path: Path
    size: int
    metadata: BackupMetadata


def write_footer(file: BinaryIO, metadata: BackupMetadata) -> None:
    """Append the footer to the archive in `file`, which is open for reading and appending."""
    size = file.seek(0, 2)
    file.seek(0)
    digest = _sha256(file, size)
    record = json.dumps(asdict(metadata), ensure_ascii=False).encode()
    before_digest = record + b"\nsyntegra_db backup 1 %012d " % len(record)
    digest.update(before_digest)
    file.write(before_digest + digest.hexdigest().encode() + b"\n")


def read_metadata(path: Path) -> Backup:
    """Return the backup in `path` with the metadata of its footer, without verifying the checksum.

    Raises:
        InvalidBackup: the file cannot be read, or has no footer: it was truncated or is not of this package.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - FOOTER_BYTES))
            footer = FOOTER.fullmatch(file.read())
            if footer is None:
                raise InvalidBackup(
                    f"{path} has no footer of syntegra-db: the file was truncated, or another program wrote it. "
                    "Nothing was changed. Use another backup; for a dump of pg_dump, use pg_restore."
                )
            length = int(footer[1])
            file.seek(max(0, size - FOOTER_BYTES - length))
            fields = json.loads(file.read(length))
        tables = {name: TableSummary(**table) for name, table in fields.pop("tables").items()}
        return Backup(path, size, BackupMetadata(tables=tables, **fields))
    except OSError as error:
        raise InvalidBackup(
            f"{path} cannot be read: {error.strerror}. Name a file that `syntegra-db backups` lists."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _corrupt_backup(path) from None


def verify_checksum(path: Path) -> Backup:
    """Return the backup in `path` after verifying the checksum of all its bytes.

    Raises:
        InvalidBackup: see `read_metadata`; or the checksum does not match.
    """
    backup = read_metadata(path)
    try:
        with path.open("rb") as file:
            digest = _sha256(file, backup.size - DIGEST_LINE_BYTES)
            recorded = file.read(DIGEST_CHARACTERS)
    except OSError as error:
        raise InvalidBackup(f"{path} cannot be read to its end: {error.strerror}. Use another backup.") from None
    if recorded != digest.hexdigest().encode():
        raise _corrupt_backup(path)
    return backup


def _corrupt_backup(path: Path) -> InvalidBackup:
    return InvalidBackup(
        f"{path} is damaged: its checksum does not match its bytes. Nothing was changed. Use another copy, or "
        "another backup."
    )


def _sha256(file: BinaryIO, size: int) -> hashlib._Hash:
    """Return the SHA-256 of the next `size` bytes of `file`."""
    digest = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(CHUNK_BYTES, size))):
        digest.update(chunk)
        size -= len(chunk)
    return digest
