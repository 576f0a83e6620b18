"""Failures of backup and restore: a clear error, nothing changed, no partial file under a final name."""

from __future__ import annotations

import os
import random
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.commands import PROGRAMS, run
from support.revisions import AFTER_HEAD
from support.sample_rows import load_rows, row_digests
from syntegra_db import client_programs, embedded
from syntegra_db.backup import (
    ExistingRows,
    RowProgress,
    create_backup,
    dump_database,
    read_metadata,
    restore,
    verify_checksum,
)
from syntegra_db.backup._footer import FOOTER_BYTES, write_footer
from syntegra_db.connections import connect, conninfo, unpooled_engine
from syntegra_db.errors import BackupFailed, BackupRevisionMismatch, ClientProgramNotFound, InvalidBackup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database

ROWS = 20_000
EMBEDDED = embedded.bin_directory(18)
BACKUP_SESSIONS = "SELECT FROM pg_stat_activity WHERE application_name ~ '^syntegra_db (backup|restore)'"


@pytest.fixture
def filled(database: Database) -> Database:
    load_rows(database, ROWS)
    return database


@pytest.fixture
def saved(filled: Database) -> Path:
    return create_backup(filled.engine).path


def wait_until_alone(database: Database) -> None:
    deadline = time.monotonic() + 60
    while database.query(BACKUP_SESSIONS):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a tmpfs")


@needs_root
def test_backup_on_full_disk_leaves_no_file(filled: Database, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=1m") as folder:
        with pytest.raises(BackupFailed, match="No space left on device"):
            create_backup(filled.engine, folder / "x.dump")
        assert list(folder.iterdir()) == []


@needs_root
def test_backup_on_disk_full_at_footer_leaves_no_file(database: Database, tmp_path: Path) -> None:
    size = create_backup(database.engine).size
    with tmpfs(tmp_path / "small", "size=64k") as folder:
        (folder / "ballast").write_bytes(bytes(65536 - (size - 200) // 4096 * 4096))
        with pytest.raises(BackupFailed, match="No space left on device"):
            create_backup(database.engine, folder / "x.dump")
        assert [file.name for file in folder.iterdir()] == ["ballast"]


@needs_root
def test_backup_in_read_only_directory_fails(filled: Database, tmp_path: Path) -> None:
    read_only = pytest.raises(BackupFailed, match=r"Read-only file system.*--output")
    with tmpfs(tmp_path / "fixed", "ro") as folder, read_only:
        create_backup(filled.engine, folder / "x.dump")


def test_backup_in_missing_directory_fails(filled: Database) -> None:
    with pytest.raises(BackupFailed, match="No such file or directory"):
        create_backup(filled.engine, Path("nowhere/x.dump"))


@pytest.mark.long
@pytest.mark.slow
def test_killed_backup_leaves_no_named_file_and_next_cleans_up(filled: Database) -> None:
    generator = random.Random(1)
    partial = 0
    for _ in range(8):
        before = partial_files()
        process = subprocess.Popen(
            [str(PROGRAMS / "syntegra-db"), "backup"],
            env={**os.environ, "DATABASE_URL": filled.environment_url},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not partial_files() - before:
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.2))
        process.kill()
        process.wait()
        partial += len(partial_files())
        for complete in Path("backups").glob("*.dump"):
            verify_checksum(complete)
    wait_until_alone(filled)
    create_backup(filled.engine, Path("backups/last.dump"))
    assert partial
    assert not partial_files()


def partial_files() -> set[Path]:
    return set(Path("backups").glob(".*"))


def test_partial_file_of_running_backup_is_kept(filled: Database) -> None:
    from syntegra_db.backup._files import atomic_file

    with atomic_file(Path("backups/slow.dump")) as file:
        create_backup(filled.engine)
        assert Path(file.name).exists()
    assert Path("backups/slow.dump").exists()


@pytest.mark.slow
def test_killed_restore_leaves_old_or_new_rows(filled: Database, saved: Path) -> None:
    new = row_digests(filled)
    filled.execute("DELETE FROM clusters WHERE id > 5; UPDATE kpi_summary SET kpi_value = 1")
    old = row_digests(filled)
    generator = random.Random(2)
    killed = 0
    for _ in range(8):
        process = subprocess.Popen(
            [str(PROGRAMS / "syntegra-db"), "restore", str(saved), "--replace"],
            env={**os.environ, "DATABASE_URL": filled.environment_url},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not filled.query(BACKUP_SESSIONS):
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.3))
        process.kill()
        killed += process.wait() == -9
        wait_until_alone(filled)
        assert row_digests(filled) in (old, new)
    assert killed
    restore(saved, filled.engine, ExistingRows.REPLACE)
    assert row_digests(filled) == new


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_restore_of_truncated_file_changes_nothing(filled: Database, saved: Path, share: float) -> None:
    before = row_digests(filled)
    os.truncate(saved, int(saved.stat().st_size * share))
    with pytest.raises(InvalidBackup, match="was truncated, or another program wrote it"):
        restore(saved, filled.engine, ExistingRows.REPLACE)
    assert row_digests(filled) == before


def test_restore_with_one_flipped_bit_fails(filled: Database, saved: Path) -> None:
    before = row_digests(filled)
    whole = saved.read_bytes()
    generator = random.Random(3)
    ends = [*range(1, FOOTER_BYTES + 1), *(FOOTER_BYTES + generator.randrange(400) for _ in range(20))]
    places = [0, 4, 11, *(generator.randrange(len(whole)) for _ in range(20)), *(len(whole) - end for end in ends)]
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << generator.randrange(8)
        saved.write_bytes(flipped)
        with pytest.raises(InvalidBackup):
            restore(saved, filled.engine, ExistingRows.REPLACE)
    assert row_digests(filled) == before


def test_restore_of_foreign_dump_fails(filled: Database, tmp_path: Path) -> None:
    dump = tmp_path / "foreign.dump"
    subprocess.run([str(EMBEDDED / "pg_dump"), "-Fc", "-f", str(dump), conninfo(filled.url)], check=True)
    with pytest.raises(InvalidBackup, match="another program wrote it"):
        restore(dump, filled.engine, ExistingRows.REPLACE)


def test_restore_of_newer_revision_fails(filled: Database, saved: Path, tmp_path: Path) -> None:
    newer = with_new_footer(saved, tmp_path / "newer.dump", revision=AFTER_HEAD)
    with pytest.raises(BackupRevisionMismatch, match=f"is of revision {AFTER_HEAD}, which this package does not know"):
        restore(newer, filled.engine, ExistingRows.REPLACE)


def test_restore_with_wrong_row_count_changes_nothing(filled: Database, saved: Path, tmp_path: Path) -> None:
    before = row_digests(filled)
    tables = read_metadata(saved).metadata.tables
    wrong = {**tables, "clusters": replace(tables["clusters"], rows=7)}
    with pytest.raises(Exception, match="rows of clusters instead of 7"):
        restore(with_new_footer(saved, tmp_path / "wrong.dump", tables=wrong), filled.engine, ExistingRows.REPLACE)
    assert row_digests(filled) == before


def with_new_footer(saved: Path, path: Path, **changes: Any) -> Path:
    """Copy a backup with changed metadata in its footer."""
    backup = read_metadata(saved)
    whole = saved.read_bytes()
    length = int(whole[-FOOTER_BYTES:].split()[3])
    path.write_bytes(whole[: -FOOTER_BYTES - length])
    with path.open("r+b") as file:
        write_footer(file, replace(backup.metadata, **changes))
    return path


def use_only(monkeypatch: pytest.MonkeyPatch, *directories: Path) -> None:
    """Search PostgreSQL's client programs in these directories only."""
    monkeypatch.setattr(
        client_programs, "_candidate_paths", lambda name: (directory / name for directory in directories)
    )
    monkeypatch.setattr(client_programs, "COMPOSE", ())


def test_backup_without_pg_dump_fails(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    use_only(monkeypatch)
    with pytest.raises(ClientProgramNotFound, match=r"pg_dump of PostgreSQL .* none was found.*apt-get install"):
        create_backup(filled.engine)
    assert not Path("backups").exists()


def test_backup_with_older_pg_dump_fails(filled: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with filled.connect() as connection:
        server = connection.info.server_version // 10_000
    older = embedded.bin_directory(16)
    if server <= 16:
        older = tmp_path
        (older / "pg_dump").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 15.9'")
        (older / "pg_dump").chmod(0o755)
    use_only(monkeypatch, older)
    with pytest.raises(
        ClientProgramNotFound, match=rf"PostgreSQL {server} or newer is required, but the .* older: 1[56] \("
    ):
        create_backup(filled.engine)
    assert not Path("backups").exists()


def test_restore_with_older_pg_restore_fails(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    use_only(monkeypatch, embedded.bin_directory(18))
    saved = create_backup(filled.engine).path
    use_only(monkeypatch, embedded.bin_directory(16))
    with pytest.raises(ClientProgramNotFound, match="pg_restore of PostgreSQL 18 or newer"):
        restore(saved, filled.engine, ExistingRows.REPLACE)


def test_backup_without_read_privilege_fails(server_role: str, filled: Database) -> None:
    with pytest.raises(BackupFailed, match="permission denied for table"):
        create_backup(unpooled_engine(filled.url_as(server_role)))
    assert not Path("backups").exists() or not list(Path("backups").iterdir())


def test_full_dump_failure_gives_whole_reason_of_pg_dump(server_role: str, filled: Database) -> None:
    with (
        connect(unpooled_engine(filled.url_as(server_role))) as connection,
        pytest.raises(
            BackupFailed, match=r"permission denied for table \w+; detail: Query was: LOCK TABLE .*unchanged"
        ),
    ):
        dump_database(connection)
    assert list(Path("backups").iterdir()) == []


def test_backup_with_failing_report_ends_pg_dump_and_leaves_no_file(filled: Database) -> None:
    def fail(progress: RowProgress) -> None:
        raise RuntimeError(f"{progress.total_rows} rows")

    with pytest.raises(RuntimeError, match="20000 rows"):
        create_backup(filled.engine, report=fail)
    wait_until_alone(filled)
    assert list(Path("backups").iterdir()) == []


@pytest.fixture
def server_role(filled: Database) -> Iterator[str]:
    filled.execute("DROP ROLE IF EXISTS syntegra_stranger")
    filled.execute("CREATE ROLE syntegra_stranger LOGIN PASSWORD 'p%40@:/ w''ord%'")
    filled.execute("GRANT SELECT ON alembic_version TO syntegra_stranger")
    yield "syntegra_stranger"
    filled.execute("DROP OWNED BY syntegra_stranger; DROP ROLE syntegra_stranger")


def test_programs_in_container_are_used_if_none_is_installed(
    filled: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A script replaces `docker` and runs the embedded programs; PGHOST and PGPORT lead to the database."""
    before = row_digests(filled)
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\nshift 4\nprogram=$1\nshift\nexec {EMBEDDED}/$program "$@"\n')
    docker.chmod(0o755)
    host = filled.url.host or str(filled.url.query["host"])
    monkeypatch.setenv("PATH", f"{docker.parent}:/usr/bin:/bin")
    monkeypatch.setenv("PGHOST", host)
    monkeypatch.setenv("PGPORT", str(filled.url.port or filled.url.query.get("port", 5432)))
    monkeypatch.setattr(client_programs, "_candidate_paths", lambda _: iter(()))
    monkeypatch.setattr(client_programs, "LOCAL_HOSTS", {host})
    saved = create_backup(filled.engine).path
    restore(saved, filled.engine, ExistingRows.REPLACE)
    assert row_digests(filled) == before


def test_command_failure_prints_one_line(filled: Database, tmp_path: Path) -> None:
    broken = tmp_path / "broken.dump"
    broken.write_bytes(b"PGDMP")
    result = run("syntegra-db", "restore", str(broken), url=filled.environment_url)
    assert (result.returncode, result.stderr.count("\n")) == (18, 1), result.stderr


@needs_root
def test_backup_to_disk_without_free_inodes_says_to_free_space(filled: Database, tmp_path: Path) -> None:
    with (
        tmpfs(tmp_path / "small", "nr_inodes=1") as folder,
        pytest.raises(BackupFailed, match=r"No space left on device\. .*Free disk space, or name another file"),
    ):
        create_backup(filled.engine, path=folder / "x.dump")


@pytest.mark.parametrize(
    ("path", "reason", "remedy"),
    [
        ("/nowhere/x.dump", "No such file or directory", "Create the directory /nowhere, or name another file"),
        ("/etc/passwd/x.dump", "Not a directory", "Name another file"),
        ("/proc/x.dump", "No such file or directory", "Create the directory"),
        ("x" * 300, "File name too long", "Name another file"),
    ],
)
def test_backup_to_unusable_path_says_what_to_do(filled: Database, path: str, reason: str, remedy: str) -> None:
    result = run("syntegra-db", "backup", "--output", path, url=filled.environment_url)
    assert result.returncode == 17
    message = result.stderr.splitlines()[-1]
    assert message.startswith(f"Error: Cannot write the backup {path}: {reason}. The database is unchanged. {remedy}")
    assert message.endswith("another file with --output.")
