"""Columns, labels and longer values that a rollback saves, and that the printed restore brings back."""

from __future__ import annotations

import shlex
import threading
import time
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from support.revisions import AFTER_HEAD, HEAD
from support.sample_rows import load_rows, row_digests
from syntegra_db.backup import create_backup

if TYPE_CHECKING:
    import subprocess

    from support.checkouts import Checkout
    from support.servers import Database, Server

pytestmark = pytest.mark.long

COLUMNS = r'''
    op.execute("""ALTER TABLE kpi_summary ADD unit text, ADD "Währung, ""neu"" x" varchar(3) NOT NULL DEFAULT 'EUR',
        ADD tags text[], ADD extra jsonb, ADD raw json, ADD span int4range""")
    op.execute("ALTER TABLE text_summary ADD second vector(384)")
    op.execute("CREATE INDEX idx_second ON text_summary USING hnsw (second vector_cosine_ops)")
'''
DROP_COLUMNS = r'''
    op.execute("ALTER TABLE text_summary DROP second")
    op.execute("""ALTER TABLE kpi_summary DROP unit, DROP "Währung, ""neu"" x", DROP tags, DROP extra, DROP raw,
        DROP span""")
'''
FILL: LiteralString = r"""
    UPDATE kpi_summary SET (unit, tags, extra, raw, span) = (
        (ARRAY[NULL, '', E'a\\b\tc\n\\.\r', 'ñandú "x"'])[1 + id % 4],
        CASE id % 3 WHEN 0 THEN ARRAY['a,b', NULL, '', E'\\N'] WHEN 1 THEN '{}' END,
        CASE id % 2 WHEN 0 THEN jsonb_build_object('path', E'\\.\n', 'n', id) END, '{"a": 1, "a":  2}', '[1,5)');
    UPDATE kpi_summary SET "Währung, ""neu"" x" = 'USD' WHERE id % 2 = 0;
    UPDATE text_summary SET second = embedding + embedding
"""
LABELS = """
    op.execute("ALTER TYPE anomaly_severity ADD VALUE 'extreme'")
    op.execute("ALTER TABLE anomaly_log ALTER method TYPE varchar(120)")
    op.execute("ALTER TABLE clusters ALTER cluster_id TYPE bigint")
"""
DROP_LABELS = """
    op.execute("ALTER TYPE anomaly_severity RENAME TO old")
    op.execute("CREATE TYPE anomaly_severity AS ENUM ('low', 'medium', 'high', 'critical')")
    op.execute('''ALTER TABLE anomaly_log ALTER severity DROP DEFAULT, ALTER severity TYPE anomaly_severity
        USING CASE severity WHEN 'extreme' THEN 'high' ELSE severity::text END::anomaly_severity,
        ALTER severity SET DEFAULT 'medium' ''')
    op.execute("DROP TYPE old")
    op.execute("ALTER TABLE anomaly_log ALTER method TYPE varchar(100) USING left(upper(method), 100)")
    op.execute("ALTER TABLE clusters ALTER cluster_id TYPE integer USING least(cluster_id, 2147483647)")
"""


def rollback(checkout: Checkout, database: Database) -> list[str]:
    """Roll back to the head of the package, and return the arguments of the printed command."""
    result = checkout.run("syntegra-db", "rollback", HEAD, database=database)
    assert result.returncode == 0, result.stderr
    program, *arguments = shlex.split(result.stdout.splitlines()[-1])
    assert program == "syntegra-db"
    return arguments


def run(checkout: Checkout, database: Database, *arguments: str) -> subprocess.CompletedProcess[str]:
    result = checkout.run("syntegra-db", *arguments, database=database)
    assert result.returncode == 0, result.stderr
    return result


def rows(database: Database, query: LiteralString) -> dict[int, tuple[Any, ...]]:
    return {row[0]: row[1:] for row in database.query(query)}


def test_printed_restore_brings_back_dropped_columns_by_id(
    checkout: Checkout, server: Server, database: Database
) -> None:
    load_rows(database, 2_000)
    checkout.add_revision(AFTER_HEAD, COLUMNS, DROP_COLUMNS)
    checkout.migrate(server, database)
    database.execute(FILL)
    query: LiteralString = "SELECT id, k::text FROM kpi_summary AS k"
    before, texts = rows(database, query), row_digests(database, "text_summary")
    arguments = rollback(checkout, database)
    database.execute("DELETE FROM kpi_summary WHERE id <= 3; UPDATE kpi_summary SET kpi_value = 9 WHERE id = 4")
    database.execute(
        "INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end)"
        " VALUES (1, 'new', 1, now(), now())"
    )
    result = run(checkout, database, *arguments)
    assert "Restored 0 rows" in result.stdout
    assert "Restored text_summary.second in 200 rows." in result.stdout
    assert 'kpi_summary.unit, kpi_summary.Währung, "neu" x, kpi_summary.tags' in result.stdout
    assert " in 497 rows." in result.stdout
    after = rows(database, query)
    [(new_id,)] = database.query("SELECT max(id) FROM kpi_summary")
    assert before.keys() - after.keys() == {1, 2, 3}
    assert after.keys() - before.keys() == {new_id}
    differing = {row_id for row_id in before.keys() & after.keys() if before[row_id] != after[row_id]}
    assert differing == {4}
    assert database.query("SELECT unit, tags FROM kpi_summary WHERE kpi_name = 'new'") == [(None, None)]
    assert row_digests(database, "text_summary") == texts
    run(checkout, database, "verify")


def test_printed_restore_brings_back_labels_and_narrowed_values_that_were_not_changed(
    checkout: Checkout, server: Server, database: Database
) -> None:
    load_rows(database, 2_000)
    checkout.add_revision(AFTER_HEAD, LABELS, DROP_LABELS)
    checkout.migrate(server, database)
    database.execute(
        "UPDATE anomaly_log SET severity = 'extreme' WHERE id <= 10;"
        "UPDATE anomaly_log SET method = repeat('ä', 90 + id::integer) WHERE id <= 30;"
        "UPDATE clusters SET cluster_id = 3000000000 + id WHERE id <= 5"
    )
    query: LiteralString = "SELECT id, severity::text, method FROM anomaly_log"
    before, clusters = rows(database, query), row_digests(database, "clusters")
    arguments = rollback(checkout, database)
    database.execute(
        "UPDATE anomaly_log SET severity = 'low', method = 'NEW' WHERE id = 1;"
        "UPDATE anomaly_log SET method = 'NEW' WHERE id IN (20, 300); DELETE FROM anomaly_log WHERE id = 2"
    )
    database.execute("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'")
    database.execute("CREATE TRIGGER fail BEFORE UPDATE ON clusters FOR EACH ROW EXECUTE FUNCTION fail()")
    failed = checkout.run("syntegra-db", *arguments, database=database)
    assert failed.returncode != 0
    assert f"stays at revision {AFTER_HEAD}: rows can use a new ENUM label only after it is committed" in failed.stderr
    assert "--replace-column anomaly_log.severity" in failed.stderr
    database.execute("DROP TRIGGER fail ON clusters; DROP FUNCTION fail")
    run(checkout, database, "downgrade", HEAD)
    result = run(checkout, database, *arguments)
    assert "Restored anomaly_log.severity in 8 rows." in result.stdout
    assert "anomaly_log.severity in 1 row. --replace-column anomaly_log.severity" in result.stdout
    assert "Restored anomaly_log.method in 27 rows." in result.stdout
    assert "Restored clusters.cluster_id in 5 rows." in result.stdout
    after = rows(database, query)
    assert {row_id for row_id in after if after[row_id] != before[row_id]} == {1, 20, 300}
    assert after[1] == ("low", "NEW")
    assert row_digests(database, "clusters") == clusters
    run(checkout, database, "verify")
    run(checkout, database, *arguments, "--replace-column", "anomaly_log.severity")
    assert database.query("SELECT count(*) FROM anomaly_log WHERE severity = 'extreme'") == [(9,)]


def test_backup_before_upgrade_brings_back_dropped_column_after_rollback(
    checkout: Checkout, server: Server, database: Database
) -> None:
    load_rows(database, 2_000)
    database.execute("UPDATE anomaly_log SET metadata = jsonb_build_object('n', id) WHERE id <= 20")
    create = """
        op.execute("ALTER TABLE anomaly_log ADD metadata jsonb")
        op.execute("COMMENT ON COLUMN anomaly_log.metadata IS 'Additional data about the anomaly'")
    """
    checkout.add_revision(AFTER_HEAD, 'op.drop_column("anomaly_log", "metadata")', create)
    path = create_backup(database.engine).path.absolute()
    query: LiteralString = "SELECT id, metadata::text FROM anomaly_log"
    before = rows(database, query)
    checkout.migrate(server, database)
    refused = checkout.run("syntegra-db", "restore", str(path), "--keep", database=database)
    assert refused.returncode == 19, refused.stderr
    first, second = (shlex.split(command) for command in refused.stderr.strip().split("syntegra-db ")[-2:])
    assert second[-2:] == ["--replace-column", "anomaly_log.metadata"]
    result = checkout.run("syntegra-db", first[0], first[1].rstrip(";"), database=database)
    assert result.returncode == 0, result.stderr
    assert {row[0] for row in rows(database, query).values()} == {None}
    assert "Restored anomaly_log.metadata in 20 rows." in run(checkout, database, *second).stdout
    assert rows(database, query) == before


def test_restore_of_revision_with_new_label_into_empty_database(
    checkout: Checkout, server: Server, database: Database, empty_database: Database
) -> None:
    load_rows(database, 1_000)
    checkout.add_revision(AFTER_HEAD, LABELS, DROP_LABELS)
    checkout.migrate(server, database)
    database.execute("UPDATE anomaly_log SET severity = 'extreme' WHERE id <= 10")
    run(checkout, database, "backup", "--output", "labels.dump")
    run(checkout, empty_database, "restore", "labels.dump")
    assert row_digests(empty_database) == row_digests(database)
    refused = checkout.run("syntegra-db", "restore", "labels.dump", database=empty_database)
    assert refused.returncode == 20, refused.stderr
    run(checkout, empty_database, "downgrade", HEAD)
    refused = checkout.run("syntegra-db", "restore", "labels.dump", database=empty_database)
    assert refused.returncode == 20, refused.stderr
    assert empty_database.query("SELECT version_num FROM alembic_version") == [(HEAD,)]


def test_rollback_saves_column_values_of_every_acknowledged_write(
    checkout: Checkout, server: Server, database: Database
) -> None:
    load_rows(database, 10_000)
    checkout.add_revision(AFTER_HEAD, COLUMNS, DROP_COLUMNS)
    checkout.migrate(server, database)
    acknowledged: list[int] = []
    thread = threading.Thread(target=write_until_column_is_dropped, args=(database, acknowledged))
    thread.start()
    while len(acknowledged) < 20:
        time.sleep(0.01)
    arguments = rollback(checkout, database)
    thread.join()
    run(checkout, database, *arguments)
    restored = {row[0] for row in database.query("SELECT id FROM kpi_summary WHERE unit = 'written'")}
    assert set(acknowledged) == restored


def write_until_column_is_dropped(database: Database, acknowledged: list[int]) -> None:
    with database.connect() as connection:
        while True:
            statement: LiteralString = "UPDATE kpi_summary SET unit = 'written' WHERE id = %s RETURNING id"
            try:
                acknowledged += connection.execute(statement, [len(acknowledged) + 1]).fetchone() or ()
            except psycopg.errors.UndefinedColumn:
                return
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--replace-column", "clusters.centroid"), 2, "--replace-column needs --keep"),
        (("--keep", "--replace-column", "clusters"), 2, "TABLE.COLUMN"),
        (("--keep", "--replace-column", "cluster.centroid"), 21, "has no table cluster"),
        (("--keep", "--replace-column", "clusters.centroids"), 21, "has no values of clusters.centroids"),
    ],
)
def test_replace_column_with_wrong_argument_changes_nothing(
    checkout: Checkout, database: Database, options: tuple[str, ...], status: int, message: str
) -> None:
    load_rows(database, 1_000)
    path = create_backup(database.engine).path.absolute()
    before = row_digests(database)
    result = checkout.run("syntegra-db", "restore", str(path), *options, database=database)
    assert (result.returncode, message in result.stderr) == (status, True), result.stderr
    assert row_digests(database) == before
