"""A restore and a rebuild of the vector index at the same time, and a rebuild that loses its connection."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from support.rebuild import QUICK, only_index
from support.revisions import HEAD
from support.sample_rows import load_rows, row_digests
from support.tcp_proxy import COMMIT, tcp_proxy
from syntegra_db.backup import ExistingRows, RowProgress, create_backup, restore, rollback
from syntegra_db.backup._files import default_path
from syntegra_db.connections import unpooled_engine
from syntegra_db.errors import BackupFailed, ConnectionFailed, LockTimeout
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors.maintenance import BuildProgress, rebuild

if TYPE_CHECKING:
    from support.servers import Database


@pytest.fixture
def filled(database: Database) -> Database:
    load_rows(database, 3_000)
    return database


def test_restore_during_rebuild_is_rejected_and_changes_nothing(filled: Database) -> None:
    saved = create_backup(filled.engine).path
    before = row_digests(filled)
    restored = []

    def restore_while_calibrating(progress: BuildProgress) -> None:
        if progress.phase == "calibrating":
            with pytest.raises(LockTimeout, match=r"A rebuild of the vector index is running \(pid \d+, "):
                restore(saved, filled.engine, ExistingRows.REPLACE)
            restored.append(restore(saved, filled.engine, ExistingRows.KEEP).loaded)

    rebuild(filled.engine, calibration_seconds=QUICK, on_progress=restore_while_calibrating)
    assert restored == [[]]
    assert row_digests(filled) == before
    assert only_index(filled).is_calibration_current


def test_rebuild_during_restore_waits_and_indexes_restored_rows(filled: Database) -> None:
    saved = create_backup(filled.engine).path
    filled.execute("DELETE FROM text_summary WHERE id > 100")
    rows: list[int] = []

    def build() -> None:
        rows.append(rebuild(filled.engine, calibration_seconds=QUICK).rows)

    thread = threading.Thread(target=build)

    def start_rebuild(_: RowProgress) -> None:
        if not thread.is_alive():
            thread.start()

    restore(
        saved, filled.engine, ExistingRows.REPLACE, report=lambda progress: None if rows else start_rebuild(progress)
    )
    thread.join()
    assert rows == [300]
    assert only_index(filled).is_calibration_current


@pytest.mark.parametrize(
    ("step", "state"),
    [
        (b"COMMENT ON INDEX", f"The rebuild is complete: the new index {VECTOR_INDEX} is in use and calibrated.$"),
        (b"RENAME TO", f"The index {VECTOR_INDEX} works, but is not calibrated. .* run this again"),
    ],
    ids=["calibration", "swap"],
)
def test_rebuild_with_lost_answer_reports_what_was_done(filled: Database, step: bytes, state: str) -> None:
    rebuild(filled.engine, calibration_seconds=QUICK)
    before = only_index(filled).oid
    with tcp_proxy(filled.url) as proxy:
        proxy.lose_answer(COMMIT, after=step)
        with pytest.raises(ConnectionFailed, match=rf"was lost: .*\. {state}"):
            rebuild(unpooled_engine(proxy.url), calibration_seconds=QUICK)
    with filled.engine.connect() as connection:
        assert connection.exec_driver_sql(f"SELECT '{VECTOR_INDEX}'::regclass::oid").scalar_one() != before


def test_rollback_in_the_second_of_a_backup_gets_its_own_file(filled: Database) -> None:
    """With files for each of the next seconds, one of which is the second of the rollback."""
    first = create_backup(filled.engine).path
    now = datetime.now(UTC)
    taken = [default_path(filled.name, HEAD, now + timedelta(seconds=second)) for second in range(60)]
    for path in taken:
        path.touch()
    assert rollback("002", filled.engine).backup.path not in {first, *taken}
    assert not any(path.stat().st_size for path in taken)


def test_rollback_to_the_file_of_a_backup_changes_nothing(filled: Database) -> None:
    before = row_digests(filled)
    saved = create_backup(filled.engine)
    with pytest.raises(
        BackupFailed, match=r"already exists.*The database is unchanged\. Name another file with --output"
    ):
        rollback("002", filled.engine, saved.path)
    assert row_digests(filled) == before
