"""Read pg_dump archives through pg_restore: their list of tables, and the rows of one table in COPY format."""

from __future__ import annotations

import fcntl
import re
import sys
from contextlib import contextmanager, suppress
from subprocess import PIPE
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple, cast

from syntegra_db.client_programs import ClientProgramFailed
from syntegra_db.errors import InvalidBackup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedIOBase

    from syntegra_db.backup._footer import BackupMetadata
    from syntegra_db.client_programs import ClientProgram

CHUNK_BYTES = 1 << 20
# A line before the rows, and the table of contents; both take some kilobytes.
MAX_SCRIPT_BYTES = 1 << 20
# The second form is the end of a statement that names a schema with a line break.
COPY = re.compile(rb'(?:COPY .+|.*"\.\w+) \((?P<columns>.*)\) FROM stdin;\n')
COLUMN = re.compile(r'"((?:[^"]|"")+)"|([^", ]+)')
# No row in COPY's text format looks like this, because a backslash in a value is doubled.
END_OF_COPY = b"\n\\.\n"


class TableData(NamedTuple):
    """The columns of a table in an archive, and its rows in COPY's text format, in chunks that may end inside a row."""

    columns: list[str]
    chunks: Iterator[bytes]


def list_archive(program: ClientProgram, archive: BinaryIO) -> str:
    """Return the table of contents of `archive`.

    Raises:
        InvalidBackup: pg_restore cannot read it, or it has more than 1 MiB.
    """
    with _reading(program, archive, "--list") as output:
        contents = output.read(MAX_SCRIPT_BYTES + 1)
        if len(contents) > MAX_SCRIPT_BYTES:
            raise _unreadable(archive, "its table of contents has more than 1 MiB")
        return contents.decode(errors="replace")


def require_tables(program: ClientProgram, archive: BinaryIO, metadata: BackupMetadata) -> None:
    """Raise `InvalidBackup` unless pg_restore lists the rows of each table of `metadata`."""
    listed = list_archive(program, archive)
    # pg_restore prints a line break in a name as a space.
    schema = _on_one_line(metadata.schema)
    missing = [
        name
        for table in metadata.tables
        for name in metadata.archived_tables(table)
        if f" TABLE DATA {schema} {_on_one_line(name)} " not in listed
    ]
    if missing:
        raise InvalidBackup(f"{archive.name} does not contain the rows of {', '.join(missing)}. Use another backup.")


def _on_one_line(name: str) -> str:
    return name.replace("\n", " ").replace("\r", " ")


def count_archived_rows(program: ClientProgram, archive: BinaryIO, metadata: BackupMetadata) -> dict[str, int]:
    """Return the number of rows by table, counted by reading the whole archive.

    Raises:
        InvalidBackup: pg_restore cannot read it.
    """
    counts = dict.fromkeys(metadata.tables, 0)
    for table in metadata.tables:
        for name in metadata.archived_tables(table):
            with open_table_data(program, archive, name) as data:
                counts[table] += sum(chunk.count(b"\n") for chunk in data.chunks)
    return counts


@contextmanager
def open_table_data(program: ClientProgram, archive: BinaryIO, table: str) -> Iterator[TableData]:
    """Yield the rows of `table`; rows that the block does not read are skipped.

    Raises:
        InvalidBackup: pg_restore cannot read them, or the archive has no rows of that table.
    """
    with _reading(program, archive, "--data-only", "--table", table, "--file", "-") as output:
        columns = _read_columns(output, archive)
        if columns is not None:
            yield TableData(columns, _read_rows(output))
        while output.read(CHUNK_BYTES):
            pass
    if columns is None:
        raise _unreadable(archive, f"no rows of {table}")


@contextmanager
def _reading(program: ClientProgram, archive: BinaryIO, *arguments: str) -> Iterator[BufferedIOBase]:
    """Yield the output of pg_restore, which reads `archive` from its beginning, one run at a time."""
    # pg_restore shares the position of the descriptor; the file has no buffer, so this moves it.
    archive.seek(0)
    try:
        with program.running(*arguments, stdin=archive, stdout=PIPE) as process:
            _enlarge(process.stdout)
            yield cast("BufferedIOBase", process.stdout)
    except ClientProgramFailed as error:
        raise _unreadable(archive, error) from None


def _enlarge(pipe: IO[bytes] | None) -> None:
    """Let pg_restore write a chunk ahead, instead of 64 kB, where the system and the user's limits allow it."""
    if pipe is not None and sys.platform == "linux":
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, CHUNK_BYTES)


def _read_columns(output: BufferedIOBase, archive: BinaryIO) -> list[str] | None:
    """Read the script up to its rows and return the columns that it copies to, or None if it copies nothing."""
    while line := output.readline(MAX_SCRIPT_BYTES):
        if len(line) == MAX_SCRIPT_BYTES:
            raise _unreadable(archive, "a line before the rows has more than 1 MiB")
        if copy := COPY.fullmatch(line):
            columns = copy["columns"].decode(errors="replace")
            return [quoted.replace('""', '"') or bare for quoted, bare in COLUMN.findall(columns)]
    return None


def _read_rows(output: BufferedIOBase) -> Iterator[bytes]:
    """Yield the rows up to their end; a row can be larger than the memory, so no more than a chunk is kept."""
    # With a newline before the first row, the end is also found if the table is empty.
    buffer, start = b"\n", 1
    # The end can be split between two chunks.
    kept = len(END_OF_COPY) - 1
    # What pg_restore has written is sent while it writes the next part: `read` would wait for a whole chunk.
    while chunk := output.read1(CHUNK_BYTES):
        buffer += chunk
        # The search for one byte is faster, and a large row has few newlines.
        end = buffer.find(END_OF_COPY) if b"\n" in buffer else -1
        if end >= 0:
            yield buffer[start : end + 1]
            return
        yield buffer[start:-kept]
        sent = max(0, len(buffer) - kept)
        buffer, start = buffer[sent:], max(0, start - sent)


def _unreadable(archive: BinaryIO, reason: object) -> InvalidBackup:
    return InvalidBackup(f"pg_restore cannot read {archive.name}: {reason}. Use another backup.")
