"""Backups are written by descriptor, into directories that no other user can change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.revisions import HEAD
from support.sample_rows import load_rows
from syntegra_db.backup import _dump, create_backup, dump_database, rollback, verify_backup
from syntegra_db.backup._files import atomic_file
from syntegra_db.connections import connect
from syntegra_db.errors import BackupFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.servers import Database

OTHER_USER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can create files of another user")


def back_up(database: Database) -> Path:
    return create_backup(database.engine).path


def roll_back(database: Database) -> Path:
    return rollback("002", database.engine).backup.path


def dump(database: Database) -> Path:
    with connect(database.engine) as connection:
        return dump_database(connection)


COMMANDS = pytest.mark.parametrize("command", [back_up, roll_back, dump])


@COMMANDS
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_directory_writable_by_others_is_rejected(
    database: Database, command: Callable[[Database], Path], mode: int
) -> None:
    Path("backups").mkdir()
    Path("backups").chmod(mode)
    with pytest.raises(BackupFailed, match=r"Other users can change the files of the directory backups"):
        command(database)
    assert list(Path("backups").iterdir()) == []
    assert database.query("SELECT version_num FROM alembic_version") == [(HEAD,)]


@needs_root
@COMMANDS
@pytest.mark.parametrize("mode", [0o700, 0o1777])
def test_directory_of_another_user_is_rejected(
    database: Database, command: Callable[[Database], Path], mode: int
) -> None:
    Path("backups").mkdir()
    Path("backups").chmod(mode)
    os.chown("backups", OTHER_USER, OTHER_USER)
    with pytest.raises(BackupFailed, match=r"Other users can change the files of the directory backups"):
        command(database)
    assert list(Path("backups").iterdir()) == []


@needs_root
def test_symlink_to_directory_of_another_user_is_rejected(database: Database) -> None:
    Path("foreign").mkdir(mode=0o700)
    os.chown("foreign", OTHER_USER, OTHER_USER)
    Path("backups").symlink_to("foreign")
    with pytest.raises(BackupFailed, match=r"Other users can change the files of the directory backups"):
        back_up(database)
    assert list(Path("foreign").iterdir()) == []


@COMMANDS
@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777])
def test_private_or_sticky_directory_is_used(
    database: Database, command: Callable[[Database], Path], mode: int
) -> None:
    Path("backups").mkdir()
    Path("backups").chmod(mode)
    assert command(database).stat().st_mode & 0o777 == 0o600


def plant_fifo(path: Path) -> None:
    os.mkfifo(path)


def plant_symlink(path: Path) -> None:
    Path("precious").write_text("precious")
    path.symlink_to(Path("precious").absolute())


def plant_directory(path: Path) -> None:
    path.mkdir()


def plant_file_of_another_user(path: Path) -> None:
    path.touch()
    os.chown(path, OTHER_USER, OTHER_USER)


@pytest.mark.parametrize(
    "plant",
    [plant_fifo, plant_symlink, plant_directory, pytest.param(plant_file_of_another_user, marks=needs_root)],
)
def test_planted_partial_file_is_not_opened_or_removed(database: Database, plant: Callable[[Path], None]) -> None:
    Path("backups").mkdir()
    Path("backups").chmod(0o1777)
    planted = Path("backups/.a.syntegra_db-unfinished")
    plant(planted)
    path = back_up(database)
    assert sorted(Path("backups").iterdir()) == sorted([planted, path])
    assert planted.is_symlink() == Path("precious").exists()


def test_partial_file_of_killed_process_is_removed(database: Database) -> None:
    Path("backups").mkdir(mode=0o700)
    Path("backups/.a.syntegra_db-unfinished").touch()
    assert list(Path("backups").iterdir()) != [path := back_up(database)]
    assert list(Path("backups").iterdir()) == [path]


def swap_partial_file() -> None:
    (partial,) = Path("backups").glob(".*")
    partial.unlink()
    partial.symlink_to(Path("stolen").absolute())


def swap_directory() -> None:
    Path("backups").rename("moved")
    Path("foreign").mkdir()
    Path("backups").symlink_to("foreign")


@pytest.fixture(params=[swap_partial_file, swap_directory])
def swap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Swap a path after the partial file was created and before pg_dump writes to it."""
    run_pg_dump = _dump.run_pg_dump

    def swapped(*arguments: Any, **options: Any) -> Any:
        request.param()
        return run_pg_dump(*arguments, **options)

    monkeypatch.setattr(_dump, "run_pg_dump", swapped)
    return request.param


def test_path_swapped_before_dump_gets_no_rows(database: Database, swap: Callable[[], None]) -> None:
    load_rows(database, 2_000)
    if swap is swap_partial_file:
        with pytest.raises(BackupFailed, match="Another process replaced"):
            back_up(database)
    else:
        backup = create_backup(database.engine)
        moved = Path("moved") / backup.path.name
        Path("backups").unlink()
        Path("moved").rename("backups")
        verify_backup(backup)
        assert not moved.exists()
        assert list(Path("foreign").iterdir()) == []
    assert not Path("stolen").exists()


def test_symlink_with_name_of_partial_file_is_not_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "00000000")
    (tmp_path / ".x.dump.00000000.syntegra_db-unfinished").symlink_to(tmp_path / "stolen")
    with pytest.raises(BackupFailed, match="File exists"), atomic_file(tmp_path / "x.dump") as file:
        file.write(b"rows")
    assert not (tmp_path / "stolen").exists()
