"""A backup file is not trusted: its footer is validated, it is read through one descriptor and never overwritten."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from support.commands import PROGRAMS, run
from support.revisions import AFTER_HEAD, HEAD
from support.sample_rows import load_rows, row_digests
from syntegra_db.backup import ExistingRows, RowProgress, create_backup, read_metadata, restore
from syntegra_db.backup._files import atomic_file
from syntegra_db.backup._pg_restore import END_OF_COPY, _read_rows
from syntegra_db.connections import conninfo
from syntegra_db.embedded import bin_directory
from syntegra_db.errors import BackupFailed, BackupRevisionMismatch, InvalidBackup

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.servers import Database

METADATA: dict[str, Any] = {
    "database": "shop",
    "schema": "public",
    "revision": HEAD,
    "made_at": "2024-01-16T09:30:00+00:00",
    "server_version": "18.1 (Debian 18.1-1.pgdg120+1)",
    "pg_dump": 18,
    "tables": {"clusters": {"rows": 2, "last_id": 7}},
}
LARGEST_BIGINT = 2**63 - 1


def craft(path: Path, archive: bytes, record: bytes, length: int | None = None) -> Path:
    """Write a backup with a correct checksum of any archive and footer."""
    covered = archive + record + b"\nsyntegra_db backup 1 %012d " % (len(record) if length is None else length)
    path.write_bytes(covered + hashlib.sha256(covered).hexdigest().encode() + b"\n")
    return path


def with_fields(**changes: Any) -> bytes:
    return json.dumps({**METADATA, **changes}).encode()


def with_table(name: str = "clusters", **summary: Any) -> bytes:
    return with_fields(tables={name: {"rows": 2, "last_id": 7, **summary}})


VALID_RECORDS = {
    "as written": with_fields(),
    "unused sequence": with_table(last_id=None),
    "largest sequence": with_table(last_id=2**62),
    "no rows": with_table(rows=0),
    "schema with quotes": with_fields(schema='Our "data"\n%'),
    "tables of a newer revision": with_fields(revision=AFTER_HEAD, tables={"users": {"rows": 1, "last_id": 1}}),
}
INVALID_RECORDS = {
    "application table": with_table("users"),
    "version table": with_table("alembic_version"),
    "table of a later revision": with_fields(revision="002"),
    "qualified table": with_table("public.clusters"),
    "table with newline": with_fields(revision=AFTER_HEAD, tables={"a\nb": {"rows": 1, "last_id": 1}}),
    "exhausted sequence": with_table(last_id=LARGEST_BIGINT),
    "last id above the limit": with_table(last_id=2**62 + 1),
    "last id zero": with_table(last_id=0),
    "negative last id": with_table(last_id=-1),
    "boolean last id": with_table(last_id=True),
    "text as last id": with_table(last_id="7"),
    "negative rows": with_table(rows=-1),
    "rows beyond bigint": with_table(rows=2**63),
    "fraction of a row": with_table(rows=1.5),
    "whole float": with_table(rows=2.0),
    "no number of rows": with_table(rows=None),
    "NaN": with_table(rows=float("nan")),
    "infinity": with_table(rows=float("inf")),
    "5,000 digits": with_table(rows=0).replace(b'"rows": 0', b'"rows": ' + b"9" * 5_000),
    "unknown summary": with_table(size=1),
    "missing summary": with_fields(tables={"clusters": {"rows": 1}}),
    "list of tables": with_fields(tables=["clusters"]),
    "tables null": with_fields(tables=None),
    "unknown field": with_fields(path="/etc/passwd"),
    "missing field": json.dumps({"tables": {}}).encode(),
    "revision with newline": with_fields(revision=f"{HEAD}\n"),
    "revision as path": with_fields(revision=f"../{HEAD}"),
    "numeric revision": with_fields(revision=3),
    "empty schema": with_fields(schema=""),
    "long schema": with_fields(schema="s" * 64),
    "schema with NUL": with_fields(schema="a\0b"),
    "lone surrogate": with_fields(database="\ud83d"),
    "escape sequence": with_fields(server_version="\x1b[2J"),
    "no timestamp": with_fields(made_at="yesterday"),
    "pg_dump of the future": with_fields(pg_dump=10**9),
    "pg_dump as text": with_fields(pg_dump="18"),
    "duplicate field": with_fields()[:-1] + b', "revision": "001"}',
    "duplicate table": with_fields().replace(b'{"clusters"', b'{"clusters": {"rows": 1, "last_id": 1}, "clusters"'),
    "Latin-1": with_fields(database="n").replace(b'"n"', b'"\xf1"'),
    "UTF-16": with_fields().decode().encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + with_fields(),
    "deep lists": b"[" * 60_000,
    "deep objects": b'{"tables":' * 6_000 + b"1" + b"}" * 6_000,
    "deep value": with_fields().replace(b'"rows": 2', b'"rows": ' + b"[" * 20_000 + b"]" * 20_000),
    "empty": b"",
    "null": b"null",
    "text after the end": with_fields() + b"{}",
    "65 KB": with_fields() + b" " * 65_536,
}


@pytest.mark.parametrize("record", VALID_RECORDS.values(), ids=VALID_RECORDS)
def test_valid_footer_is_read(tmp_path: Path, record: bytes) -> None:
    metadata = read_metadata(craft(tmp_path / "x.dump", b"archive", record)).metadata
    assert metadata.revision in {HEAD, AFTER_HEAD}


@pytest.mark.parametrize("record", INVALID_RECORDS.values(), ids=INVALID_RECORDS)
def test_invalid_footer_is_rejected_in_one_line(tmp_path: Path, record: bytes) -> None:
    with pytest.raises(InvalidBackup, match="has a footer that is not valid") as raised:
        read_metadata(craft(tmp_path / "x.dump", b"archive", record))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("length", [999_999_999_999, 2**31, 66_000, 9_000])
def test_length_beyond_file_or_limit_is_rejected(tmp_path: Path, length: int) -> None:
    with pytest.raises(InvalidBackup, match="has a footer that is not valid"):
        read_metadata(craft(tmp_path / "x.dump", b"archive", with_fields(), length))


def dump_with_application_table(database: Database) -> bytes:
    """Return an archive of `clusters` and of a table `users` with rows of an attacker."""
    database.execute(
        "CREATE TABLE users (id bigserial PRIMARY KEY, name text); INSERT INTO users (name) VALUES ('evil')"
    )
    command = [str(bin_directory(18) / "pg_dump"), "-Fc", "-a", "-t", "users", "-t", "clusters", conninfo(database.url)]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    database.execute("UPDATE users SET name = 'good'")
    return archive


@pytest.mark.parametrize("existing_rows", ExistingRows)
@pytest.mark.parametrize("revision", ["001", HEAD, AFTER_HEAD])
def test_restore_of_crafted_backup_keeps_application_table(
    database: Database, tmp_path: Path, revision: str, existing_rows: ExistingRows
) -> None:
    archive = dump_with_application_table(database)
    record = with_fields(revision=revision, tables={"users": {"rows": 1, "last_id": 1}})
    with pytest.raises((InvalidBackup, BackupRevisionMismatch)):
        restore(craft(tmp_path / "x.dump", archive, record), database.engine, existing_rows)
    assert database.query("SELECT name FROM users") == [("good",)]


def test_restore_with_odd_column_name_of_crafted_archive_fails(database: Database, tmp_path: Path) -> None:
    database.execute("INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (1, 1, '{}')")
    saved = create_backup(database.engine).path
    record = json.dumps({**METADATA, "tables": {"clusters": {"rows": 1, "last_id": 1}}}).encode()
    archive = saved.read_bytes().replace(b"COPY public.clusters (id", b"COPY public.clusters (\xff\xfe")
    with pytest.raises(Exception, match="columns that table clusters of this database does not have"):
        restore(craft(tmp_path / "x.dump", archive, record), database.engine, ExistingRows.REPLACE)
    assert database.query("SELECT count(*) FROM clusters") == [(1,)]


@pytest.mark.parametrize("row_id", [2**62 + 1, LARGEST_BIGINT - 1, LARGEST_BIGINT])
def test_restored_row_with_huge_id_does_not_exhaust_sequence(
    database: Database, empty_database: Database, row_id: int
) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO clusters (id, client_id, cluster_id, features_json) VALUES (%s, 1, 1, '{}')", [row_id]
        )
    database.execute("INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (2, 1, '{}')")
    restore(create_backup(database.engine).path, empty_database.engine)
    empty_database.execute("INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (3, 1, '{}')")
    assert empty_database.query("SELECT id FROM clusters WHERE client_id = 3") == [(2,)]


def test_backup_with_exhausted_sequence_fails(database: Database) -> None:
    database.execute("SELECT setval('clusters_id_seq', 9223372036854775807)")
    with pytest.raises(BackupFailed, match="sequence of clusters is at 9223372036854775807"):
        create_backup(database.engine)
    database.execute(f"SELECT setval('clusters_id_seq', {2**62})")
    assert create_backup(database.engine).metadata.tables["clusters"].last_id == 2**62


def test_backups_command_lists_valid_file_after_damaged_ones(database: Database, tmp_path: Path) -> None:
    directory = tmp_path / "kept"
    directory.mkdir()
    craft(directory / "a.dump", b"", INVALID_RECORDS["deep lists"])
    craft(directory / "b.dump", b"", with_fields(), 999_999_999_999)
    craft(directory / "c.dump", b"", INVALID_RECORDS["application table"])
    os.mkfifo(directory / "d.dump")
    (directory / "e.dump").mkdir()
    (directory / "f.dump").symlink_to("missing")
    (directory / "g.dump").symlink_to("/dev/zero")
    create_backup(database.engine, directory / "z.dump")
    result = run("syntegra-db", "backups", str(directory), cwd=tmp_path)
    assert (result.returncode, result.stderr) == (18, "")
    assert result.stdout.count("none: ") == 7
    assert HEAD in result.stdout.split("z.dump")[1]
    assert "valid" in result.stdout.split("z.dump")[1]


def test_backups_command_with_valid_files_exits_0(database: Database, tmp_path: Path) -> None:
    create_backup(database.engine)
    assert run("syntegra-db", "backups", cwd=tmp_path).returncode == 0


def replace_with_file(path: Path, other: Path) -> None:
    other.replace(path)


def replace_with_symlink(path: Path, other: Path) -> None:
    path.unlink()
    path.symlink_to(other)


def replace_with_fifo(path: Path, other: Path) -> None:
    other.unlink()
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("replace", [replace_with_file, replace_with_symlink, replace_with_fifo])
def test_file_swapped_during_restore_is_not_read(
    database: Database, empty_database: Database, tmp_path: Path, replace: Callable[[Path, Path], None]
) -> None:
    load_rows(database, 2_000)
    saved = create_backup(database.engine, tmp_path / "x.dump").path
    expected = row_digests(database)
    database.execute("UPDATE kpi_summary SET kpi_value = 666; UPDATE anomaly_log SET value = 666")
    other = create_backup(database.engine, tmp_path / "other.dump").path
    reports: list[RowProgress] = []

    def swap(progress: RowProgress) -> None:
        if not reports:
            replace(saved, other)
        reports.append(progress)

    restore(saved, empty_database.engine, report=swap)
    assert reports
    assert row_digests(empty_database) == expected


def create_file(path: Path) -> None:
    path.write_text("mine")


def create_dangling_symlink(path: Path) -> None:
    path.symlink_to("missing")


def create_backup_of_other_process(path: Path) -> None:
    with atomic_file(path) as file:
        file.write(b"mine")


@pytest.mark.parametrize("create", [create_file, create_dangling_symlink, create_backup_of_other_process])
def test_name_created_during_backup_is_not_overwritten(tmp_path: Path, create: Callable[[Path], None]) -> None:
    path = tmp_path / "x.dump"
    with pytest.raises(BackupFailed, match="already exists"), atomic_file(path):
        create(path)
    assert path.is_symlink() or path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.long
def test_one_of_simultaneous_backups_gets_the_name(database: Database, tmp_path: Path) -> None:
    load_rows(database, 20_000)
    processes = [
        subprocess.Popen(
            [str(PROGRAMS / "syntegra-db"), "backup", "--output", "x.dump"],
            env={**os.environ, "DATABASE_URL": database.environment_url},
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 17, 17], errors
    assert sum("already exists" in error for error in errors) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["x.dump"]


def test_huge_row_of_backup_is_not_kept_in_memory(database: Database) -> None:
    size = 64 << 20
    with database.connect() as session:
        insert = "INSERT INTO text_summary (client_id, text_field) VALUES (1, repeat('\\.' || chr(10), %s))"
        session.execute(insert, (size // 3,))
    expected = row_digests(database, "text_summary")
    saved = create_backup(database.engine).path
    tracemalloc.start()
    restore(saved, database.engine, existing_rows=ExistingRows.REPLACE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 4
    assert row_digests(database, "text_summary")["text_summary"][:2] == expected["text_summary"][:2]


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 4, 5, 7, 100])
@pytest.mark.parametrize("rows", [b"", b"a\n", b"a\\\\.\n\\\\.\n", b"\n\n\n", b"a\tb\n" * 20])
def test_rows_end_where_copy_ends_for_any_chunk_size(
    monkeypatch: pytest.MonkeyPatch, rows: bytes, chunk_bytes: int
) -> None:
    monkeypatch.setattr("syntegra_db.backup._pg_restore.CHUNK_BYTES", chunk_bytes)
    assert b"".join(_read_rows(io.BytesIO(rows + b"\\.\n\nSELECT 1;\n"))) == rows


class PipeOutput(io.BytesIO):
    """The output of a pg_restore: no call returns more than a pipe holds, and `read` would wait for more."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read1(min(65536 if size is None or size < 0 else size, 65536))

    def read(self, size: int | None = -1, /) -> bytes:
        raise AssertionError(f"waits for {size} bytes")


@pytest.mark.parametrize(
    "unit", [b"a", b"\\n", b"\\\\.", b"\\\\.\\n", b"\\\\", b".", b"\t\\N", b"\xc3\xb1", b"b\n", b"\\\\.\n"]
)
def test_large_rows_are_passed_on_as_they_arrive(unit: bytes) -> None:
    rows = unit * (3_000_000 // len(unit)) + b"\n"
    chunks = list(_read_rows(PipeOutput(rows + b"\\.\n\n--\n-- PostgreSQL database dump complete\n--\n")))
    assert b"".join(chunks) == rows
    assert max(map(len, chunks)) <= 65536 + len(END_OF_COPY)
