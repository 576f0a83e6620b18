"""Restore: all rows or none, and existing rows are deleted on request only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support.commands import run, succeed
from support.revisions import HEAD
from support.sample_rows import load_rows, row_digests
from syntegra_db import migrations
from syntegra_db.backup import ExistingRows, create_backup, restore
from syntegra_db.catalog import verify
from syntegra_db.errors import BackupRevisionMismatch, LockTimeout, RestoreFailed, TablesNotEmpty
from syntegra_db.migrations import MigrationOptions, _lock

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database, Server

ROWS = 2_000
SOURCE = "INSERT INTO data_sources (client_id, name, type) VALUES (1, 'till', 'simple_csv')"
SHORT_TIMEOUTS = MigrationOptions(lock_timeout=0.1, lock_retry_timeout=0.5, migration_lock_timeout=0.5)


@pytest.fixture
def saved(database: Database) -> Path:
    """A backup of `database`, which has rows."""
    load_rows(database, ROWS)
    return create_backup(database.engine).path


def revision(database: Database) -> str | None:
    with database.engine.connect() as connection:
        return migrations.current_revision(connection)


def test_restore_into_empty_database_creates_schema_rows_and_sequences(
    database: Database, empty_database: Database, saved: Path
) -> None:
    restore(saved, empty_database.engine)
    assert row_digests(empty_database) == row_digests(database)
    with empty_database.engine.connect() as connection:
        assert verify(connection).findings == []
    assert empty_database.query("SELECT pid FROM pg_locks WHERE locktype = 'advisory'") == []


def test_ids_after_restore_follow_the_highest(empty_database: Database, saved: Path) -> None:
    restore(saved, empty_database.engine)
    empty_database.execute(SOURCE)
    assert empty_database.query("SELECT max(id), count(*) FROM data_sources") == [(21, 21)]


def test_restore_analyzes_and_builds_vector_index_on_rows(empty_database: Database, saved: Path) -> None:
    restore(saved, empty_database.engine)
    assert empty_database.query("SELECT reltuples FROM pg_class WHERE relname = 'text_summary'") == [(200,)]
    status = succeed("syntegra-db", "status", "--json", url=empty_database.environment_url)
    assert json.loads(status)["vector_indexes"]["text_summary.embedding"]["trained"] is True


def test_restore_keeps_vector_index_definitions(database: Database, saved: Path) -> None:
    database.execute(
        "DROP INDEX idx_text_summary_embedding;"
        "CREATE INDEX idx_text_summary_embedding ON text_summary USING ivfflat (embedding vector_cosine_ops)"
        " WITH (lists = 7);"
        "CREATE INDEX additional ON text_summary USING hnsw (embedding vector_l2_ops) WHERE client_id > 3"
    )
    index = "SELECT indexdef FROM pg_indexes WHERE tablename = 'text_summary' ORDER BY indexname"
    before = database.query(index)
    restore(saved, database.engine, ExistingRows.REPLACE)
    assert database.query(index) == before


def test_restore_into_nonempty_tables_fails_and_changes_nothing(database: Database, saved: Path) -> None:
    before = row_digests(database)
    with pytest.raises(TablesNotEmpty, match=r"not empty: data_sources, processed_data, .*--replace .*--keep"):
        restore(saved, database.engine)
    assert row_digests(database) == before


def test_restore_with_replace_deletes_existing_rows(database: Database, saved: Path) -> None:
    before = row_digests(database)
    database.execute("DELETE FROM kpi_summary; UPDATE clusters SET cluster_id = 99;")
    restore(saved, database.engine, ExistingRows.REPLACE)
    assert row_digests(database) == before


def test_restore_with_replace_never_reuses_an_id(database: Database, saved: Path) -> None:
    database.execute(SOURCE)
    (last_id,) = database.query("SELECT max(id) FROM data_sources")
    restore(saved, database.engine, ExistingRows.REPLACE)
    database.execute(SOURCE)
    assert database.query("SELECT max(id) FROM data_sources") > [last_id]


def test_restore_with_keep_loads_only_empty_tables(database: Database, saved: Path) -> None:
    before = row_digests(database)
    database.execute("TRUNCATE kpi_summary")
    database.execute(SOURCE)
    result = restore(saved, database.engine, ExistingRows.KEEP)
    assert result.loaded == ["kpi_summary"]
    assert "data_sources" in result.kept
    assert row_digests(database, "kpi_summary")["kpi_summary"] == before["kpi_summary"]
    assert database.query("SELECT count(*) FROM data_sources") == [(21,)]


def test_restore_with_replace_fails_if_other_table_refers_to_rows(database: Database, saved: Path) -> None:
    database.execute("CREATE TABLE invoices (source_id bigint REFERENCES data_sources)")
    before = row_digests(database)
    with pytest.raises(RestoreFailed, match="cannot truncate a table referenced in a foreign key constraint"):
        restore(saved, database.engine, ExistingRows.REPLACE)
    assert row_digests(database) == before


def test_failed_restore_leaves_rows_and_revision_unchanged(database: Database, saved: Path) -> None:
    migrations.downgrade("002", database.url)
    database.execute(
        "TRUNCATE data_sources CASCADE;" + SOURCE + ";"
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF NEW.id > 400 THEN"
        " RAISE 'no such row, please'; END IF; RETURN NEW; END$$;"
        "CREATE TRIGGER fail BEFORE INSERT ON processed_data FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    before = row_digests(database, "data_sources", "processed_data")
    with pytest.raises(RestoreFailed, match="no such row, please"):
        restore(saved, database.engine, ExistingRows.REPLACE)
    assert row_digests(database, "data_sources", "processed_data") == before
    assert revision(database) == "002"


def test_restore_with_keep_fails_if_data_source_is_missing(database: Database, saved: Path) -> None:
    database.execute("TRUNCATE processed_data; DELETE FROM data_sources WHERE client_id = 3")
    with pytest.raises(RestoreFailed, match="violates foreign key constraint"):
        restore(saved, database.engine, ExistingRows.KEEP)
    assert database.query("SELECT count(*) FROM processed_data") == [(0,)]


def test_restore_names_missing_application_column(database: Database, empty_database: Database) -> None:
    database.execute("ALTER TABLE clusters ADD COLUMN \"private note\" text DEFAULT 'a'")
    load_rows(database, ROWS)
    path = create_backup(database.engine).path
    with pytest.raises(RestoreFailed, match="columns that table clusters of this database does not have: private note"):
        restore(path, empty_database.engine)
    assert revision(empty_database) is None
    migrations.upgrade(url=empty_database.url)
    empty_database.execute('ALTER TABLE clusters ADD COLUMN "private note" text')
    restore(path, empty_database.engine)
    assert row_digests(empty_database) == row_digests(database)


def test_restore_of_older_revision_fails(empty_database: Database) -> None:
    migrations.upgrade("002", empty_database.url)
    path = create_backup(empty_database.engine).path
    migrations.upgrade("003", empty_database.url)
    with pytest.raises(BackupRevisionMismatch, match=r"already at 003.*syntegra-db rollback 002"):
        restore(path, empty_database.engine)


def test_restore_behind_lock_times_out_and_names_session(database: Database, saved: Path) -> None:
    with database.connect() as other:
        other.autocommit = False
        other.execute("SET application_name = 'month-end report'")
        other.execute("SELECT count(*) FROM clusters")
        with pytest.raises(LockTimeout, match="month-end report"):
            restore(saved, database.engine, ExistingRows.REPLACE, options=SHORT_TIMEOUTS)


def test_restore_during_migration_times_out(database: Database, saved: Path) -> None:
    with database.connect() as other:
        other.execute("SELECT pg_advisory_lock(%s)", (_lock.lock_key("alembic_version", "public"),))
        with pytest.raises(LockTimeout, match="Another migration is still running"):
            restore(saved, database.engine, ExistingRows.REPLACE, options=SHORT_TIMEOUTS)


def test_restore_command_prints_rows_and_kept_tables(server: Server, saved: Path, tmp_path: Path) -> None:
    with server.database() as other:
        output = succeed("syntegra-db", "restore", str(saved), url=other.environment_url, cwd=tmp_path)
        assert output == f"Restored 2,000 rows to the {describe(other)}, at revision {HEAD}.\n"
        assert run("syntegra-db", "restore", str(saved), url=other.environment_url, cwd=tmp_path).returncode == 20
        kept = succeed("syntegra-db", "restore", str(saved), "--keep", url=other.environment_url, cwd=tmp_path)
        assert "Restored 0 rows" in kept
        assert "Not empty, so not changed: data_sources, processed_data" in kept


def describe(database: Database) -> str:
    from syntegra_db.settings import describe_database

    return describe_database(database.url)
