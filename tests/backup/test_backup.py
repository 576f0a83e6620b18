"""The content of a backup, its file, and the list of backups."""

from __future__ import annotations

import re
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import pytest

from support.commands import run, succeed
from support.revisions import HEAD
from support.sample_rows import TABLES, load_rows, row_digests
from syntegra_db import migrations
from syntegra_db.backup import RowProgress, create_backup, read_metadata, restore, verify_backup
from syntegra_db.errors import BackupFailed
from syntegra_db.migrations import MigrationOptions

if TYPE_CHECKING:
    from support.servers import Database, Server

ROWS = 2_000


def test_backup_contains_rows_of_every_table_and_revision(database: Database) -> None:
    load_rows(database, ROWS)
    backup = create_backup(database.engine)
    assert backup == read_metadata(backup.path)
    assert backup.metadata.revision == HEAD
    expected = {name: row[0] for name, row in row_digests(database).items()}
    assert {name: table.rows for name, table in backup.metadata.tables.items()} == expected
    verify_backup(backup)


def test_backup_at_older_revision_contains_its_tables(empty_database: Database) -> None:
    migrations.upgrade("002", empty_database.url)
    metadata = create_backup(empty_database.engine).metadata
    assert (metadata.revision, list(metadata.tables)) == ("002", ["data_sources", "processed_data"])


def test_backup_file_is_named_after_content_and_private(database: Database) -> None:
    backup = create_backup(database.engine)
    assert re.fullmatch(rf"backups/{database.name}-{HEAD}-\d{{8}}T\d{{6}}Z\.dump", str(backup.path))
    assert stat.S_IMODE(backup.path.stat().st_mode) == 0o600
    assert [file.name for file in Path("backups").iterdir()] == [backup.path.name]


def test_backup_is_readable_by_pg_restore(database: Database) -> None:
    load_rows(database, ROWS)
    listed = succeed_with_pg_restore("--list", str(create_backup(database.engine).path))
    for table in TABLES:
        assert f"TABLE DATA public {table} " in listed
    assert "alembic_version" not in listed


def succeed_with_pg_restore(*arguments: str) -> str:
    import subprocess

    from syntegra_db.embedded import bin_directory

    command = [str(bin_directory(18) / "pg_restore"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_backup_of_unmigrated_database_fails(empty_database: Database) -> None:
    with pytest.raises(BackupFailed, match="is at no revision"):
        create_backup(empty_database.engine)
    assert not Path("backups").exists()


@pytest.mark.parametrize("locked", ["data_sources", "clusters, text_summary"])
def test_backup_after_wait_for_a_lock_succeeds(database: Database, locked: LiteralString) -> None:
    load_rows(database, ROWS)
    with database.connect() as other:
        other.autocommit = False
        other.execute(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE")
        unlock = threading.Timer(1, other.commit)
        unlock.start()
        backup = create_backup(database.engine, options=MigrationOptions(lock_timeout=0.1))
        unlock.join()
    verify_backup(backup)


def test_backup_never_overwrites_a_file(database: Database, tmp_path: Path) -> None:
    precious = tmp_path / "precious.dump"
    precious.write_text("mine")
    with pytest.raises(BackupFailed, match="already exists"):
        create_backup(database.engine, precious)
    assert precious.read_text() == "mine"


def test_backup_of_named_schema_restores_into_another_schema(server: Server, empty_database: Database) -> None:
    empty_database.execute('CREATE EXTENSION vector; CREATE SCHEMA "Our ""data"""')
    url = empty_database.url.update_query_dict({"options": '-csearch_path="Our\\ ""data""",public'})
    migrations.upgrade(url=url)
    source = type(empty_database)(url)
    load_rows(source, ROWS)
    backup = create_backup(source.engine)
    assert backup.metadata.schema == 'Our "data"'
    with server.database() as other:
        restore(backup.path, other.engine)
        assert row_digests(other) == row_digests(source)


def test_backup_contains_every_row_acknowledged_before_it(database: Database, server: Server) -> None:
    load_rows(database, ROWS)
    acknowledged: list[list[int]] = [[], [], [], []]
    stopped = threading.Event()
    writers = [threading.Thread(target=write, args=(database, written, stopped)) for written in acknowledged]
    for writer in writers:
        writer.start()
    while min(map(len, acknowledged)) < 50:
        stopped.wait(0.01)
    before = [list(written) for written in acknowledged]
    backup = create_backup(database.engine)
    during = sum(map(len, acknowledged)) - sum(map(len, before))
    stopped.set()
    for writer in writers:
        writer.join()
    assert during
    with server.database() as other:
        restore(backup.path, other.engine)
        saved = {row[0] for row in other.query("SELECT id FROM processed_data")}
        (newest,) = other.query("SELECT count(*) FROM processed_data")
    assert {number for written in before for number in written} <= saved
    assert newest[0] == backup.metadata.tables["processed_data"].rows


def write(database: Database, written: list[int], stopped: threading.Event) -> None:
    with database.connect() as connection:
        while not stopped.is_set():
            row = connection.execute(
                "INSERT INTO processed_data (client_id, source_type, data) VALUES (1, 'retail', '{}') RETURNING id"
            ).fetchone()
            assert row is not None
            written.append(row[0])


def test_progress_reports_rows_and_bytes(database: Database) -> None:
    load_rows(database, 20_000)
    reports: list[RowProgress] = []
    total = create_backup(database.engine, report=reports.append).metadata.rows
    assert reports
    assert all(progress.total_rows == total and progress.rows <= total for progress in reports)
    assert [progress.rows for progress in reports] == sorted(progress.rows for progress in reports)


def test_backup_command_prints_path_and_backups_lists_state(database: Database, tmp_path: Path) -> None:
    load_rows(database, ROWS)
    assert "There is no backup in backups" in succeed("syntegra-db", "backups", cwd=tmp_path)
    output = succeed("syntegra-db", "backup", url=database.environment_url, cwd=tmp_path)
    (path,) = re.findall(r"backups/\S+\.dump", output)
    assert f"Saved 2,000 rows of {database.name} at revision {HEAD}" in output
    listed = succeed("syntegra-db", "backups", cwd=tmp_path)
    assert path in listed
    assert re.search(rf"{HEAD} +data_sources 20 .* valid", listed)
    whole = (tmp_path / path).read_bytes()
    (tmp_path / path).write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    damaged = run("syntegra-db", "backups", cwd=tmp_path)
    assert damaged.returncode == 18
    assert re.search(rf"{HEAD} .* invalid: damaged", damaged.stdout)
    (tmp_path / path).write_bytes(whole[:-1])
    truncated = run("syntegra-db", "backups", cwd=tmp_path)
    assert truncated.returncode == 18
    assert "none: truncated" in truncated.stdout


def test_password_is_in_no_argument_and_no_message(server: Server, database: Database, tmp_path: Path) -> None:
    from support.servers import ROLE_PASSWORD

    spy = tmp_path / "bin" / "pg_dump"
    spy.parent.mkdir()
    spy.write_text(f'#!/bin/sh\necho "$0 $*" >>{tmp_path}/seen\necho "pg_dump (PostgreSQL) 99.1"\nexit 1\n')
    spy.chmod(0o755)
    path = f"{spy.parent}:/usr/bin:/bin"
    with server.role("syntegra_keeper") as role:
        url = database.url_as(role).render_as_string(hide_password=False)
        database.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO syntegra_keeper")
        database.execute("GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO syntegra_keeper")
        ran = run("syntegra-db", "backup", "--output", "x.dump", url=url, cwd=tmp_path, environment={"PATH": path})
        database.execute("DROP OWNED BY syntegra_keeper")
    assert ran.returncode in {0, 14, 17}
    seen = (tmp_path / "seen").read_text()
    for text in (seen, ran.stdout, ran.stderr):
        assert ROLE_PASSWORD not in text
