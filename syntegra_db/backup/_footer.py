"""The footer of a backup file: metadata, and a checksum of all bytes before it.

A backup is a pg_dump archive in custom format, which pg_restore reads as it is, followed by a JSON object and one line
of fixed length with the name of this package, the length of the object and the SHA-256 of everything before it.

The checksum detects damage, not forgery. Every value of the footer is therefore validated before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

from pydantic import ConfigDict, Field, TypeAdapter

from syntegra_db.backup._session import tables_at_revision
from syntegra_db.errors import InvalidBackup
from syntegra_db.revisions import all_revisions

if TYPE_CHECKING:
    from pathlib import Path

FOOTER = re.compile(rb"\nsyntegra_db backup 1 (\d{12}) ([0-9a-f]{64})\n")
DIGEST_CHARACTERS = 64
# The digest does not cover itself and the newline after it.
DIGEST_LINE_BYTES = DIGEST_CHARACTERS + 1
FOOTER_BYTES = len("\nsyntegra_db backup 1 ") + 12 + 1 + DIGEST_LINE_BYTES
CHUNK_BYTES = 1 << 20
# Some thousand partitions have names of 63 bytes.
MAX_METADATA_BYTES = 1 << 20
# A sequence that a restore advances has half of its values left.
MAX_LAST_ID = 1 << 62
MAX_ROWS = (1 << 63) - 1
IDENTIFIER_BYTES = 63
FORBID_EXTRA_FIELDS = ConfigDict(extra="forbid")

Rows = Annotated[int, Field(ge=0, le=MAX_ROWS)]
LastId = Annotated[int, Field(ge=1, le=MAX_LAST_ID)]
Name = Annotated[str, Field(min_length=1, max_length=IDENTIFIER_BYTES, pattern=r"^[^\x00]+$")]
TableName = Annotated[str, Field(pattern=rf"^[a-z][a-z0-9_]{{0,{IDENTIFIER_BYTES - 1}}}$")]
Revision = Annotated[str, Field(pattern=r"^[0-9A-Za-z_]{1,32}$")]
Timestamp = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\+00:00$")]
ServerVersion = Annotated[str, Field(pattern=r"^[ -~]{1,200}$")]
MajorVersion = Annotated[int, Field(ge=1, le=999)]


@dataclass(frozen=True)
class TableSummary:
    """The number of rows of a table, and the last value of its id sequence, None if the sequence was never used.

    `partitions` are the tables of the archive with the rows of a partitioned table; it is None for other tables.
    """

    __pydantic_config__ = FORBID_EXTRA_FIELDS

    rows: Rows
    last_id: LastId | None
    partitions: list[Name] | None = None


@dataclass(frozen=True)
class BackupMetadata:
    """What a backup contains; `made_at` is the time of its snapshot in UTC, `pg_dump` the program's major version.

    `tables` are in the order in which their rows can be inserted.
    """

    __pydantic_config__ = FORBID_EXTRA_FIELDS

    database: Name
    schema: Name
    revision: Revision
    made_at: Timestamp
    server_version: ServerVersion
    pg_dump: MajorVersion
    tables: dict[TableName, TableSummary]

    @property
    def rows(self) -> int:
        """The number of rows of all tables."""
        return sum(table.rows for table in self.tables.values())

    def archived_tables(self, table: str) -> list[str]:
        """Return the tables of the archive with the rows of `table`: its partitions, or itself."""
        partitions = self.tables[table].partitions
        return [table] if partitions is None else partitions


@dataclass(frozen=True)
class Backup:
    """A backup file with its size in bytes and the metadata of its footer."""

    path: Path
    size: int
    metadata: BackupMetadata


METADATA = TypeAdapter(BackupMetadata)


def write_footer(file: BinaryIO, metadata: BackupMetadata) -> None:
    """Append the footer to the archive in `file`, which is open for reading and appending."""
    size = file.seek(0, 2)
    file.seek(0)
    digest = _sha256(file, size)
    record = json.dumps(asdict(metadata, dict_factory=_without_none_partitions), ensure_ascii=False).encode()
    before_digest = record + b"\nsyntegra_db backup 1 %012d " % len(record)
    digest.update(before_digest)
    footer = memoryview(before_digest + digest.hexdigest().encode() + b"\n")
    # A file without a buffer can write a part.
    while footer:
        footer = footer[file.write(footer) :]


def _without_none_partitions(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a record, as versions without partitioned tables read them."""
    return {name: value for name, value in items if name != "partitions" or value is not None}


def open_backup(path: Path) -> BinaryIO:
    """Return the regular file `path`, open for reading without a buffer.

    All readers of a restore share this descriptor, so another file that gets the name later is not read.

    Raises:
        InvalidBackup: it cannot be opened, or is a directory, a FIFO or a device.
    """
    try:
        file = open(path, "rb", buffering=0, opener=_open_nonblocking)  # noqa: SIM115  the caller closes it
    except OSError as error:
        raise InvalidBackup(
            f"{path} cannot be read: {error.strerror}. Name a file that `syntegra-db backups` lists."
        ) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InvalidBackup(f"{path} is not a regular file. Name a file that `syntegra-db backups` lists.")
    return file


def read_metadata(path: Path) -> Backup:
    """Return the backup in `path` with the metadata of its footer, without verifying the checksum.

    Raises:
        InvalidBackup: the file cannot be read, or its footer is missing or not valid: it was truncated or damaged, or
            is not of this package.
    """
    with open_backup(path) as file:
        return parse_footer(file, path)


def verify_checksum(path: Path) -> Backup:
    """Return the backup in `path` after verifying the checksum of all its bytes.

    Raises:
        InvalidBackup: see `read_metadata`; or the checksum does not match.
    """
    with open_backup(path) as file:
        return verify_file(file, path)


def parse_footer(file: BinaryIO, path: Path) -> Backup:
    """Return the backup in `file`, which has the name `path`, with the metadata of its footer.

    Raises:
        InvalidBackup: see `read_metadata`.
    """
    size = file.seek(0, os.SEEK_END)
    footer = FOOTER.fullmatch(_read(file, path, max(0, size - FOOTER_BYTES), FOOTER_BYTES))
    if footer is None:
        raise InvalidBackup(
            f"{path} has no footer of syntegra-db: the file was truncated, or another program wrote it. "
            "Nothing was changed. Use another backup; for a dump of pg_dump, use pg_restore."
        )
    length = int(footer[1])
    if length > min(MAX_METADATA_BYTES, size - FOOTER_BYTES):
        raise _invalid_footer(path)
    try:
        metadata = _parse_metadata(_read(file, path, size - FOOTER_BYTES - length, length))
    except (ValueError, RecursionError):
        raise _invalid_footer(path) from None
    return Backup(path, size, metadata)


def verify_file(file: BinaryIO, path: Path) -> Backup:
    """Return the backup in `file`, which has the name `path`, after verifying the checksum of all its bytes.

    Raises:
        InvalidBackup: see `verify_checksum`.
    """
    backup = parse_footer(file, path)
    file.seek(0)
    try:
        digest = _sha256(file, backup.size - DIGEST_LINE_BYTES)
        recorded = file.read(DIGEST_CHARACTERS)
    except OSError as error:
        raise InvalidBackup(f"{path} cannot be read to its end: {error.strerror}. Use another backup.") from None
    if recorded != digest.hexdigest().encode():
        raise InvalidBackup(
            f"{path} is damaged: its checksum does not match its bytes. Nothing was changed. Use another copy, or "
            "another backup."
        )
    return backup


def _open_nonblocking(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a FIFO waits for a writer.
    return os.open(path, flags | os.O_NONBLOCK)


def _read(file: BinaryIO, path: Path, position: int, size: int) -> bytes:
    try:
        file.seek(position)
        return file.read(size)
    except OSError as error:
        raise InvalidBackup(f"{path} cannot be read: {error.strerror}. Use another backup.") from None


def _parse_metadata(record: bytes) -> BackupMetadata:
    """Return the metadata; a `ValueError` or `RecursionError` means that a field is not valid.

    The tables must be tables of the revision. Those of an unknown revision are not checked; `restore` rejects it.
    """
    json.loads(record.decode(), object_pairs_hook=_reject_duplicates)
    metadata = METADATA.validate_json(record, strict=True)
    revision = metadata.revision
    if revision in all_revisions() and metadata.tables.keys() - set(tables_at_revision(revision)):
        raise ValueError(revision)
    return metadata


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(names)


def _invalid_footer(path: Path) -> InvalidBackup:
    return InvalidBackup(
        f"{path} has a footer that is not valid: the file was damaged, or syntegra-db did not write it. Nothing was "
        "changed. Use another copy, or another backup."
    )


def _sha256(file: BinaryIO, size: int) -> hashlib._Hash:
    """Return the SHA-256 of the next `size` bytes of `file`."""
    digest = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(CHUNK_BYTES, size))):
        digest.update(chunk)
        size -= len(chunk)
    return digest
