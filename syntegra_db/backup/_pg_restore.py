"""Reading an archive of pg_dump through pg_restore: which tables are in it, and the rows of one as COPY sends them."""

from __future__ import annotations

import re
import subprocess
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from syntegra_db.client_programs import env_with_c_locale, find_program_for_server
from syntegra_db.errors import InvalidBackup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from syntegra_db.backup._footer import Backup, BackupMetadata
    from syntegra_db.client_programs import ClientProgram

CHUNK_BYTES = 1 << 20
COPY = re.compile(rb"COPY .+ \((?P<columns>.*)\) FROM stdin;\n")
COLUMN = re.compile(r'"((?:[^"]|"")+)"|([^", ]+)')
# In COPY's text format no row reads like this: in a value, a backslash is written twice.
END_OF_COPY = b"\n\\.\n"


class TableData(NamedTuple):
    """The columns of a table in an archive, and its rows as chunks of COPY's text format, ended by newlines."""

    columns: list[str]
    chunks: Iterator[bytes]


def find_pg_restore(contents: BackupMetadata) -> ClientProgram:
    """Return a pg_restore that can read a backup with these contents.

    Raises:
        ProgramMissing: there is none, or only older ones than the pg_dump that made it.
    """
    return find_program_for_server("pg_restore", contents.pg_dump)


def require_tables(program: ClientProgram, path: Path, contents: BackupMetadata) -> None:
    """Return if the archive's table of contents names the rows of each table of `contents`.

    Raises:
        BackupUnusable: it does not, or pg_restore cannot read it.
    """
    with path.open("rb") as archive:
        listed = subprocess.run(  # noqa: S603  pg_restore, found by its name
            [*program.command, "--list"],
            stdin=archive,
            capture_output=True,
            text=True,
            check=False,
            env=env_with_c_locale(),
        )
    if listed.returncode:
        raise _unreadable(path, listed.stderr)
    missing = [name for name in contents.tables if f" TABLE DATA {contents.schema} {name} " not in listed.stdout]
    if missing:
        raise InvalidBackup(f"{path} lacks the rows of {', '.join(missing)}. Take another backup.")


def count_archived_rows(program: ClientProgram, backup: Backup) -> dict[str, int]:
    """Return the rows of each table, counted by reading the whole archive.

    Raises:
        BackupUnusable: pg_restore cannot read it.
    """
    counts = {}
    for name in backup.contents.tables:
        with open_table_data(program, backup.path, name) as data:
            counts[name] = sum(chunk.count(b"\n") for chunk in data.chunks)
    return counts


@contextmanager
def open_table_data(program: ClientProgram, path: Path, table: str) -> Iterator[TableData]:
    """Give the rows of `table`; those that the block does not read are not decompressed.

    Raises:
        BackupUnusable: pg_restore cannot read them, or there are none of that table.
    """
    command = [*program.command, "--data-only", "--table", table, "--file", "-"]
    with path.open("rb") as archive, TemporaryFile() as complaints:
        with subprocess.Popen(  # noqa: S603  pg_restore, found by its name
            command, stdin=archive, stdout=subprocess.PIPE, stderr=complaints, env=env_with_c_locale()
        ) as process:
            try:
                output = cast("IO[bytes]", process.stdout)
                columns = _columns(output)
                if columns is not None:
                    yield TableData(columns, _rows(output))
                while output.read(CHUNK_BYTES):
                    pass
            except BaseException:
                process.kill()
                raise
        if process.returncode or columns is None:
            complaints.seek(0)
            raise _unreadable(path, complaints.read().decode(errors="replace"))


def first_error(said: str) -> str:
    """Return from what a program of PostgreSQL wrote on standard error the first error, without its prefix."""
    lines = [line for line in said.splitlines() if "error:" in line] or said.strip().splitlines() or ["no reason given"]
    return lines[0].partition("error: ")[2] or lines[0]


def _columns(output: IO[bytes]) -> list[str] | None:
    """Return the columns that the script copies to, with the script read up to its rows; None when it has none."""
    for line in output:
        if copy := COPY.fullmatch(line):
            return [quoted.replace('""', '"') or bare for quoted, bare in COLUMN.findall(copy["columns"].decode())]
    return None


def _rows(output: IO[bytes]) -> Iterator[bytes]:
    """Yield what stands before the end of the rows, cut behind newlines."""
    # The newline before the first row lets the end be found where there is no row.
    buffer = b"\n"
    while chunk := output.read(CHUNK_BYTES):
        buffer += chunk
        end = buffer.find(END_OF_COPY)
        if end >= 0:
            yield buffer[1 : end + 1]
            return
        last = buffer.rfind(b"\n")
        yield buffer[1 : last + 1]
        buffer = buffer[last:]


def _unreadable(path: Path, said: str) -> InvalidBackup:
    return InvalidBackup(f"pg_restore cannot read {path}: {first_error(said)}. Take another backup.")
