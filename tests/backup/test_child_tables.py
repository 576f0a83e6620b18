"""Tables that inherit from a table of the package, whose rows pg_dump does not save with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.sample_rows import load_rows, row_digests
from syntegra_db.backup import ExistingRows, create_backup, restore, rollback
from syntegra_db.errors import BackupFailed, RestoreFailed

if TYPE_CHECKING:
    from support.servers import Database

CHILDREN = {
    "in the same schema": ("CREATE TABLE old_clusters () INHERITS (clusters)", "old_clusters"),
    "in another schema": ('CREATE SCHEMA "Old"; CREATE TABLE "Old"."a b" () INHERITS (clusters)', '"Old"."a b"'),
    "of another table": ("CREATE TABLE processed_data_2023 () INHERITS (processed_data)", "processed_data_2023"),
}
every_child = pytest.mark.parametrize(("create", "child"), CHILDREN.values(), ids=CHILDREN)


@pytest.fixture
def filled(database: Database) -> Database:
    load_rows(database, 500)
    return database


@every_child
def test_backup_and_rollback_with_child_table_fail_until_it_is_detached(
    filled: Database, create: str, child: str
) -> None:
    with filled.connect() as connection:
        connection.execute(create.encode())
        with pytest.raises(
            BackupFailed, match=r"nothing was changed\. Detach them and run this again: ALTER"
        ) as raised:
            create_backup(filled.engine)
        with pytest.raises(BackupFailed):
            rollback("002", filled.engine)
        statement = str(raised.value).partition("again: ")[2]
        assert child in statement
        connection.execute(statement.encode())
    assert create_backup(filled.engine).metadata.tables["clusters"].rows == 50


def test_restore_with_child_table_fails_and_keeps_its_rows(filled: Database) -> None:
    saved = create_backup(filled.engine).path
    filled.execute("CREATE TABLE old_clusters () INHERITS (clusters); INSERT INTO old_clusters SELECT * FROM clusters")
    before = row_digests(filled)
    with pytest.raises(RestoreFailed, match=r"ALTER TABLE public\.old_clusters NO INHERIT public\.clusters;"):
        restore(saved, filled.engine, ExistingRows.REPLACE)
    assert row_digests(filled) == before
    filled.execute("ALTER TABLE old_clusters NO INHERIT clusters")
    restore(saved, filled.engine, ExistingRows.REPLACE)
    assert filled.query("SELECT count(*) FROM old_clusters") == [(50,)]


def test_restore_keeping_the_parent_of_a_child_table_succeeds(filled: Database) -> None:
    saved = create_backup(filled.engine).path
    filled.execute("CREATE TABLE old_clusters () INHERITS (clusters); DELETE FROM kpi_summary")
    assert restore(saved, filled.engine, ExistingRows.KEEP).loaded == ["kpi_summary"]


def test_backup_of_partitioned_table_fails(filled: Database) -> None:
    filled.execute(
        "ALTER TABLE anomaly_log RENAME TO anomalies;"
        "CREATE TABLE anomaly_log (LIKE anomalies) PARTITION BY RANGE (client_id);"
        "CREATE TABLE anomaly_log_all PARTITION OF anomaly_log DEFAULT"
    )
    with pytest.raises(
        BackupFailed, match=r"ALTER TABLE public\.anomaly_log DETACH PARTITION public\.anomaly_log_all;"
    ):
        create_backup(filled.engine)
