"""What a backup holds, how its file comes to be, and what is listed of it."""

from __future__ import annotations

import re
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.commands import run, succeed
from support.sample_rows import TABLES, load_rows, row_digests
from syntegra_db import migrations
from syntegra_db.backup import RowProgress, create_backup, read_metadata, restore, verify_backup
from syntegra_db.errors import BackupFailed

if TYPE_CHECKING:
    from support.servers import Database, Server

ROWS = 2_000


def test_it_has_every_table_with_its_rows_and_the_revision(database: Database) -> None:
    load_rows(database, ROWS)
    backup = create_backup(database.url)
    assert backup == read_metadata(backup.path)
    assert backup.contents.revision == "003"
    expected = {name: row[0] for name, row in row_digests(database).items()}
    assert {name: table.rows for name, table in backup.contents.tables.items()} == expected
    verify_backup(backup)


def test_at_an_older_revision_it_has_the_tables_of_that_one(empty_database: Database) -> None:
    migrations.upgrade("002", empty_database.url)
    contents = create_backup(empty_database.url).contents
    assert (contents.revision, list(contents.tables)) == ("002", ["data_sources", "processed_data"])


def test_its_name_says_what_it_is_and_only_its_owner_reads_it(database: Database) -> None:
    backup = create_backup(database.url)
    assert re.fullmatch(rf"backups/{database.name}-003-\d{{8}}T\d{{6}}Z\.dump", str(backup.path))
    assert stat.S_IMODE(backup.path.stat().st_mode) == 0o600
    assert [file.name for file in Path("backups").iterdir()] == [backup.path.name]


def test_plain_pg_restore_reads_it(database: Database) -> None:
    load_rows(database, ROWS)
    listed = succeed_with_pg_restore("--list", str(create_backup(database.url).path))
    for table in TABLES:
        assert f"TABLE DATA public {table} " in listed
    assert "alembic_version" not in listed


def succeed_with_pg_restore(*arguments: str) -> str:
    import subprocess

    from syntegra_db.embedded import bin_directory

    command = [str(bin_directory(18) / "pg_restore"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_at_no_revision_there_is_nothing_to_save(empty_database: Database) -> None:
    with pytest.raises(BackupFailed, match="is at no revision"):
        create_backup(empty_database.url)
    assert not Path("backups").exists()


def test_a_file_is_never_written_over(database: Database, tmp_path: Path) -> None:
    precious = tmp_path / "precious.dump"
    precious.write_text("mine")
    with pytest.raises(BackupFailed, match="is there already"):
        create_backup(database.url, precious)
    assert precious.read_text() == "mine"


def test_a_schema_of_another_name_goes_to_one_of_yet_another(server: Server, empty_database: Database) -> None:
    empty_database.execute('CREATE EXTENSION vector; CREATE SCHEMA "Our ""data"""')
    there = empty_database.url.update_query_dict({"options": '-csearch_path="Our\\ ""data""",public'})
    migrations.upgrade(url=there)
    ours = type(empty_database)(there)
    load_rows(ours, ROWS)
    backup = create_backup(there)
    assert backup.contents.schema == 'Our "data"'
    with server.database() as other:
        restore(backup.path, other.url)
        assert row_digests(other) == row_digests(ours)


def test_every_row_acknowledged_before_it_began_is_in_it(database: Database, server: Server) -> None:
    load_rows(database, ROWS)
    acknowledged: list[list[int]] = [[], [], [], []]
    done = threading.Event()
    writers = [threading.Thread(target=write, args=(database, written, done)) for written in acknowledged]
    for writer in writers:
        writer.start()
    while min(map(len, acknowledged)) < 50:
        done.wait(0.01)
    before = [list(written) for written in acknowledged]
    backup = create_backup(database.url)
    during = sum(map(len, acknowledged)) - sum(map(len, before))
    done.set()
    for writer in writers:
        writer.join()
    assert during
    with server.database() as other:
        restore(backup.path, other.url)
        saved = {row[0] for row in other.query("SELECT id FROM processed_data")}
        (newest,) = other.query("SELECT count(*) FROM processed_data")
    assert {number for written in before for number in written} <= saved
    assert newest[0] == backup.contents.tables["processed_data"].rows


def write(database: Database, written: list[int], done: threading.Event) -> None:
    with database.connect() as connection:
        while not done.is_set():
            row = connection.execute(
                "INSERT INTO processed_data (client_id, source_type, data) VALUES (1, 'retail', '{}') RETURNING id"
            ).fetchone()
            assert row is not None
            written.append(row[0])


def test_progress_says_rows_and_bytes(database: Database) -> None:
    load_rows(database, 20_000)
    said: list[RowProgress] = []
    total = create_backup(database.url, report=said.append).contents.rows
    assert said
    assert all(progress.total_rows == total and progress.rows <= total for progress in said)
    assert [progress.rows for progress in said] == sorted(progress.rows for progress in said)


def test_the_command_says_where_it_is_and_the_list_shows_it(database: Database, tmp_path: Path) -> None:
    load_rows(database, ROWS)
    assert "There is no backup in backups" in succeed("syntegra-db", "backups", cwd=tmp_path)
    said = succeed("syntegra-db", "backup", url=database.environment_url, cwd=tmp_path)
    (path,) = re.findall(r"backups/\S+\.dump", said)
    assert f"Saved 2,000 rows of {database.name} at revision 003" in said
    listed = succeed("syntegra-db", "backups", cwd=tmp_path)
    assert path in listed
    assert re.search(r"003 +data_sources 20 .* right", listed)
    whole = (tmp_path / path).read_bytes()
    (tmp_path / path).write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    assert re.search(r"003 .* wrong: damaged", succeed("syntegra-db", "backups", cwd=tmp_path))
    (tmp_path / path).write_bytes(whole[:-1])
    assert "none: cut short" in succeed("syntegra-db", "backups", cwd=tmp_path)


def test_a_password_is_in_no_argument_and_no_message(server: Server, database: Database, tmp_path: Path) -> None:
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
