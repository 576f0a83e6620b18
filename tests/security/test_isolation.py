"""The tools run at READ COMMITTED, whatever default the database, the role or the engine has."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from support.legacy_databases import create_legacy_database, execute
from support.revisions import HEAD
from support.sample_rows import load_rows, row_digests
from syntegra_db import adoption, migrations
from syntegra_db.backup import ExistingRows, create_backup, restore, rollback
from syntegra_db.connections import connect
from syntegra_db.errors import TablesNotEmpty
from syntegra_db.vectors.maintenance import RebuildOptions, rebuild

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from support.servers import Database

ROWS = 2_000
LATE_ROW = "INSERT INTO clusters (id, client_id, cluster_id, features_json) VALUES (1000000, 1, 1, '{}')"
GUARD = (
    """
    CREATE FUNCTION require_read_committed() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'DDL at %', current_setting('transaction_isolation');
      END IF;
    END$$
    """,
    "CREATE EVENT TRIGGER guard ON ddl_command_start EXECUTE FUNCTION require_read_committed()",
)


@pytest.fixture(params=["repeatable read", "serializable"])
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def set_default(database: Database, level: str) -> None:
    """Set the default of the database, and reject DDL at another level than READ COMMITTED."""
    execute(database, *GUARD, f"ALTER DATABASE {database.name} SET default_transaction_isolation = '{level}'")


@pytest.fixture
def uncommitted_row(database: Database) -> Iterator[threading.Timer]:
    """A timer that commits a row of another session."""
    with database.connect() as writer:
        writer.autocommit = False
        timer = threading.Timer(1, writer.commit)
        writer.execute(LATE_ROW)
        yield timer
        timer.join()


@pytest.fixture
def saved(database: Database, level: str) -> tuple[Path, dict[str, object]]:
    load_rows(database, ROWS)
    expected = row_digests(database)
    path = create_backup(database.engine).path
    execute(database, "TRUNCATE data_sources, clusters, trend_signals CASCADE")
    set_default(database, level)
    return path, expected


def test_restore_replaces_row_of_concurrent_writer(
    database: Database, saved: tuple[Path, dict[str, object]], uncommitted_row: threading.Timer
) -> None:
    path, expected = saved
    uncommitted_row.start()
    restore(path, database.engine, ExistingRows.REPLACE)
    assert row_digests(database) == expected


def test_restore_keeps_row_of_concurrent_writer(
    database: Database, saved: tuple[Path, dict[str, object]], uncommitted_row: threading.Timer
) -> None:
    uncommitted_row.start()
    assert restore(saved[0], database.engine, ExistingRows.KEEP).kept == ["clusters"]
    assert database.query("SELECT id FROM clusters") == [(1_000_000,)]


def test_restore_refuses_table_with_row_of_concurrent_writer(
    database: Database, saved: tuple[Path, dict[str, object]], uncommitted_row: threading.Timer
) -> None:
    uncommitted_row.start()
    with pytest.raises(TablesNotEmpty, match="clusters"):
        restore(saved[0], database.engine)
    assert database.query("SELECT id FROM clusters") == [(1_000_000,)]


def test_rollback_and_restore_return_every_row(database: Database, level: str) -> None:
    load_rows(database, ROWS)
    expected = row_digests(database)
    set_default(database, level)
    path = rollback("002", database.engine).backup.path
    restore(path, database.engine, ExistingRows.KEEP)
    assert row_digests(database) == expected


def test_upgrade_and_downgrade_run_at_read_committed(empty_database: Database, level: str) -> None:
    set_default(empty_database, level)
    assert migrations.upgrade(url=empty_database.url) == HEAD
    assert migrations.downgrade("base", url=empty_database.url) is None
    assert migrations.upgrade(url=other_level(empty_database.engine, level)) == HEAD


def test_adopt_runs_at_read_committed(empty_database: Database, level: str) -> None:
    create_legacy_database(empty_database, "other_names")
    set_default(empty_database, level)
    assert adoption.apply(other_level(empty_database.engine, level), backup=False).plan.revision == "003"


def test_rebuild_runs_at_read_committed(database: Database, level: str) -> None:
    load_rows(database, ROWS)
    set_default(database, level)
    result = rebuild(other_level(database.engine, level), RebuildOptions(lists=5), calibration_seconds=0.5)
    assert result.rows == ROWS // 10


def test_connection_of_a_tool_has_its_level(database: Database, level: str) -> None:
    set_default(database, level)
    for engine in (database.engine, other_level(database.engine, level), other_level(database.engine, "AUTOCOMMIT")):
        with connect(engine) as connection:
            assert connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "read committed"
        with connect(engine, "REPEATABLE READ") as connection:
            assert connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "repeatable read"


def other_level(engine: Engine, level: str) -> Engine:
    """Return an engine of a caller with its own isolation level."""
    return engine.execution_options(isolation_level=level.upper())
