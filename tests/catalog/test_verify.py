"""`verify` reports drift and notes at every revision and for every role."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text

from support.drift import drift_report, drifted_objects, fix_statements, run
from support.revisions import HEAD, REVISIONS
from syntegra_db import migrations
from syntegra_db.catalog import DriftReport, load_manifest, verify
from syntegra_db.errors import DatabaseAhead, RevisionError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database

READER = "syntegra_test_reader"
STAMP_002 = "UPDATE alembic_version SET version_num = '002'"
SCANS = text(
    "SELECT relname, seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname <> 'alembic_version' ORDER BY 1"
)
NO_ACTION = "-- No action needed."


@pytest.fixture
def reader(database: Database) -> Iterator[str]:
    """A role that may use the schema and read the revision, and nothing else."""
    run(
        database,
        f"DROP ROLE IF EXISTS {READER}",
        f"CREATE ROLE {READER}",
        f"GRANT SELECT ON alembic_version TO {READER}",
    )
    yield READER
    run(database, f"DROP OWNED BY {READER}", f"DROP ROLE {READER}")


def objects_of(revision: str) -> set[str]:
    """Return the tables and types of a revision as findings name them."""
    schema = load_manifest(revision)
    return {f"table {name}" for name in schema.tables} | {f"type {name}" for name in schema.types}


def test_migrated_database_is_clean(database: Database) -> None:
    assert drift_report(database) == DriftReport(revision=HEAD, findings=[], notes=[])
    with database.engine.connect() as connection:
        assert verify(connection).findings == []


@pytest.mark.parametrize("revision", REVISIONS)
def test_each_revision_is_clean_after_upgrade_and_downgrade(empty_database: Database, revision: str) -> None:
    assert drift_report(empty_database) == DriftReport(revision=None, findings=[], notes=[])
    migrations.upgrade(revision, url=empty_database.url)
    assert drift_report(empty_database) == DriftReport(revision=revision, findings=[], notes=[])
    migrations.upgrade("head", url=empty_database.url)
    migrations.downgrade(revision, url=empty_database.url)
    assert drift_report(empty_database) == DriftReport(revision=revision, findings=[], notes=[])
    migrations.downgrade("base", url=empty_database.url)
    assert drift_report(empty_database) == DriftReport(revision=None, findings=[], notes=[])


def test_objects_of_other_applications_are_ignored(database: Database) -> None:
    run(
        database,
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        "CREATE TABLE clients (id bigint PRIMARY KEY, mood mood CHECK (mood <> 'bad'))",
        "CREATE TABLE orders (client_id bigint, source_id bigint, "
        "FOREIGN KEY (client_id, source_id) REFERENCES data_sources (client_id, id) ON DELETE CASCADE)",
        "ALTER TABLE orders DISABLE TRIGGER ALL",
        "ALTER TABLE clients ENABLE ROW LEVEL SECURITY",
        "CREATE VIEW good_clusters AS SELECT * FROM clusters WHERE silhouette_score > 0.5",
        "CREATE INDEX by_name ON kpi_summary (lower(kpi_name)) WHERE client_id = 1",
        "CREATE SEQUENCE numbers OWNED BY clients.id",
        "CREATE SCHEMA other",
        "CREATE TABLE other.kpi_summary (id text)",
    )
    assert drift_report(database) == DriftReport(revision=HEAD, findings=[], notes=[])


def test_extra_optional_column_is_a_note(database: Database) -> None:
    run(database, "ALTER TABLE clusters ADD colour text, ADD rank integer NOT NULL DEFAULT 0")
    report = drift_report(database)
    assert report.findings == []
    assert [note.object for note in report.notes] == ["column clusters.colour", "column clusters.rank"]


def test_extra_constraints_on_extra_columns_and_tables_are_notes(database: Database) -> None:
    run(
        database,
        "CREATE TABLE clients (id bigint PRIMARY KEY)",
        "ALTER TABLE clusters ADD rank integer CONSTRAINT positive_rank CHECK (rank > 0), "
        "ADD CONSTRAINT of_client FOREIGN KEY (client_id) REFERENCES clients ON DELETE CASCADE NOT VALID",
    )
    report = drift_report(database)
    assert report.findings == []
    assert [(note.object, note.fix) for note in report.notes] == [
        ("column clusters.rank", NO_ACTION),
        ("constraint positive_rank on clusters", NO_ACTION),
        ("constraint of_client on clusters", NO_ACTION),
    ]


def test_column_order_is_a_note(database: Database) -> None:
    run(database, "ALTER TABLE clusters DROP cluster_name, ADD cluster_name varchar(255)")
    run(database, "COMMENT ON COLUMN clusters.cluster_name IS 'Descriptive name of the cluster'")
    report = drift_report(database)
    assert report.findings == []
    assert [note.object for note in report.notes] == ["table clusters"]


@pytest.mark.parametrize(
    "definition",
    [
        "ivfflat (embedding vector_cosine_ops) WITH (lists = 447)",
        "hnsw (embedding vector_cosine_ops)",
        "hnsw (embedding vector_cosine_ops) WITH (m = 24, ef_construction = 100)",
        "hnsw ((embedding::halfvec(384)) halfvec_cosine_ops)",
        "ivfflat ((embedding::halfvec(384)) halfvec_cosine_ops) WITH (lists = 45)",
    ],
)
def test_vector_index_with_other_parameters_is_a_note(database: Database, definition: str) -> None:
    name = "idx_text_summary_embedding"
    run(database, f"DROP INDEX {name}", f"CREATE INDEX {name} ON text_summary USING {definition}")
    report = drift_report(database)
    assert report.findings == []
    assert [(note.object, note.fix) for note in report.notes] == [(f"index {name}", NO_ACTION)]


def test_stamp_behind_the_tables_is_fixed(database: Database) -> None:
    run(database, STAMP_002)
    report = drift_report(database)
    assert "table kpi_summary" in drifted_objects(report)
    assert "type trend_status" in drifted_objects(report)
    assert set(drifted_objects(report)) == objects_of(HEAD) - objects_of("002")
    run(database, *fix_statements(report))
    assert drift_report(database) == DriftReport(revision=HEAD, findings=[], notes=[])


@pytest.mark.parametrize("statement", ["DROP TABLE alembic_version", "DELETE FROM alembic_version"])
def test_missing_stamp_is_fixed(database: Database, statement: str) -> None:
    run(database, statement)
    report = drift_report(database)
    assert report.revision is None
    assert set(drifted_objects(report)) == objects_of(HEAD)
    run(database, *fix_statements(report))
    assert drift_report(database) == DriftReport(revision=HEAD, findings=[], notes=[])


@pytest.mark.parametrize("revision", ["base", "001", "002"])
def test_stamp_ahead_of_the_tables_is_fixed(database: Database, revision: str) -> None:
    migrations.downgrade(revision, url=database.url)
    run(database, "DELETE FROM alembic_version", f"INSERT INTO alembic_version VALUES ('{HEAD}')")
    report = drift_report(database)
    assert "table kpi_summary" in drifted_objects(report)
    run(database, *fix_statements(report))
    assert drift_report(database) == DriftReport(
        revision=None if revision == "base" else revision, findings=[], notes=[]
    )
    migrations.upgrade(url=database.url)
    assert drift_report(database) == DriftReport(revision=HEAD, findings=[], notes=[])


def test_objects_of_a_later_revision_are_reported(database: Database) -> None:
    migrations.downgrade("002", url=database.url)
    run(database, "CREATE TYPE trend_status AS ENUM ('up', 'down')", "CREATE TABLE clusters (id bigint)")
    report = drift_report(database)
    assert drifted_objects(report) == ["table clusters", "type trend_status"]
    assert fix_statements(report) == []
    assert all(finding.fix.startswith("-- Run `syntegra-db adopt`") for finding in report.findings)


def test_verify_with_unknown_or_several_revisions_raises(database: Database) -> None:
    run(database, "INSERT INTO alembic_version VALUES ('002')")
    with pytest.raises(RevisionError, match=f"002 and {HEAD}"):
        drift_report(database)
    run(database, "DELETE FROM alembic_version", "INSERT INTO alembic_version VALUES ('999')")
    with pytest.raises(DatabaseAhead, match="999"):
        drift_report(database)


def test_verify_without_schema_raises_settings_error(empty_database: Database) -> None:
    with empty_database.engine.connect() as connection:
        connection.execute(text("SET search_path = nowhere"))
        with pytest.raises(SettingsError, match="nowhere"):
            verify(connection)


def test_verify_repeats_after_concurrent_migration(database: Database) -> None:
    queries: list[str] = []

    @event.listens_for(database.engine, "before_cursor_execute")
    def downgrade_once(*execution: Any) -> None:
        statement: str = execution[2]
        if "pg_trigger" in statement:
            if not queries:
                migrations.downgrade("002", url=database.url)
            queries.append(statement)

    assert drift_report(database) == DriftReport(revision="002", findings=[], notes=[])
    assert len(queries) == 2


def test_verify_scans_no_table_except_alembic_version(database: Database) -> None:
    with database.engine.connect() as connection:
        before = connection.execute(SCANS).all()
        verify(connection)
        connection.rollback()
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        connection.rollback()
        assert connection.execute(SCANS).all() == before


def test_role_without_privileges_is_a_note(database: Database, reader: str) -> None:
    report = drift_report(database, reader)
    assert report.findings == []
    assert [note.object for note in report.notes] == [
        f"privilege {privilege} on any table" for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE")
    ]


def test_read_only_role_is_a_note(database: Database, reader: str) -> None:
    run(database, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}")
    report = drift_report(database, reader)
    assert report.findings == []
    assert "privilege SELECT on any table" not in [note.object for note in report.notes]


def test_role_with_column_privileges_has_no_drift(database: Database, reader: str) -> None:
    run(
        database,
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}",
        f"REVOKE SELECT ON data_sources FROM {reader}",
        f"GRANT SELECT (id, client_id, name) ON data_sources TO {reader}",
    )
    assert drift_report(database, reader).findings == []


def test_partly_granted_select_is_drift(database: Database, reader: str) -> None:
    run(database, f"GRANT SELECT ON data_sources, processed_data TO {reader}")
    report = drift_report(database, reader)
    assert drifted_objects(report) == [
        f"privilege SELECT on {table}"
        for table in ("anomaly_log", "clusters", "kpi_summary", "text_summary", "trend_signals")
    ]
    run(database, *fix_statements(report))
    assert drift_report(database, reader).findings == []


def test_unusable_sequence_is_drift(database: Database, reader: str) -> None:
    run(
        database,
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}",
        f"GRANT INSERT ON clusters, kpi_summary TO {reader}",
        f"GRANT USAGE ON SEQUENCE kpi_summary_id_seq TO {reader}",
    )
    report = drift_report(database, reader)
    assert drifted_objects(report) == ["privilege USAGE on clusters_id_seq"]
    assert "privilege INSERT on data_sources" in [note.object for note in report.notes]
    run(database, *fix_statements(report))
    assert drift_report(database, reader).findings == []


@pytest.mark.parametrize(("version", "drift", "notes"), [("0.3.2", 1, 0), ("0.7.4", 0, 1), ("0.8.0", 0, 0)])
def test_old_pgvector_is_drift_or_note(database: Database, version: str, drift: int, notes: int) -> None:
    run(database, f"UPDATE pg_extension SET extversion = '{version}' WHERE extname = 'vector'")
    report = drift_report(database)
    assert drifted_objects(report) == ["extension vector"] * drift
    assert [note.object for note in report.notes] == ["extension vector"] * notes


def test_extension_outside_search_path_is_a_note(database: Database) -> None:
    run(database, "CREATE SCHEMA extensions", "ALTER EXTENSION vector SET SCHEMA extensions")
    report = drift_report(database)
    assert report.findings == []
    assert [note.object for note in report.notes] == ["extension vector"]
    assert report.notes[0].fix.endswith('SET search_path = "$user", public, extensions;')


def test_revision_002_needs_no_extension(empty_database: Database) -> None:
    migrations.upgrade("002", url=empty_database.url)
    with empty_database.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pg_extension WHERE extname = 'vector'")) == 0
    assert drift_report(empty_database).findings == []


@pytest.mark.parametrize("grantees", ["PUBLIC", "syntegra_test_reader", "PUBLIC, syntegra_test_reader"])
def test_roles_that_may_create_objects_are_a_note(database: Database, reader: str, grantees: str) -> None:
    run(database, f"GRANT CREATE ON SCHEMA public TO {grantees}")
    report = drift_report(database)
    assert report.findings == []
    assert [(note.object, note.fix) for note in report.notes] == [
        ("privilege CREATE on schema public", f"REVOKE CREATE ON SCHEMA public FROM {grantees};")
    ]
    run(database, report.notes[0].fix)
    assert drift_report(database).notes == []
    run(database, f"GRANT CREATE ON SCHEMA public TO {reader}")
    assert "privilege CREATE on schema public" not in [note.object for note in drift_report(database, reader).notes]
