"""scripts/verify_analytics_tables.sql: which differences it reports, and which it accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from support import psql
from support.commands import ROOT, run
from support.revisions import AFTER_HEAD, HEAD
from syntegra_db import migrations

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from support.servers import Database, Server

    Verify = Callable[[Database], subprocess.CompletedProcess[str]]

SCRIPT = (ROOT / "scripts" / "verify_analytics_tables.sql").read_text(encoding="utf-8")
ANOTHER_VECTOR_INDEX: LiteralString = (
    "DROP INDEX idx_text_summary_embedding; CREATE INDEX idx_text_summary_embedding ON text_summary"
)
WITHOUT_CHECK: LiteralString = "ALTER TABLE clusters DROP CONSTRAINT ck_clusters_silhouette_range"
MESSAGE = f"the analytics tables do not match revision {HEAD}"


@pytest.fixture
def verify(tmp_path: Path) -> Verify:
    def verify_database(database: Database) -> subprocess.CompletedProcess[str]:
        return psql.feed(database.url, SCRIPT, tmp_path)

    return verify_database


def test_script_on_fresh_database_expects_every_object(database: Database, verify: Verify) -> None:
    result = verify(database)
    assert (result.returncode, result.stderr) == (0, "")
    title, *rows, conclusion = result.stdout.splitlines()
    assert title == f"Analytics tables of schema public in database {database.name}"
    assert conclusion == f"The analytics tables match revision {HEAD}."
    # An object that the script does not expect would be EXTRA.
    assert {row.split()[0] for row in rows} == {"OK"}
    assert len([row for row in rows if " table " in row]) == 5


def test_script_as_file_of_psql_command_succeeds(database: Database) -> None:
    result = run("syntegra-db", "psql", "-f", "scripts/verify_analytics_tables.sql", url=database.environment_url)
    assert (result.returncode, result.stderr) == (0, "")


def test_script_in_schema_other_than_public(empty_database: Database, tmp_path: Path) -> None:
    with empty_database.connect() as connection:
        connection.execute('CREATE SCHEMA "Tenant 1"')
        connection.execute("CREATE EXTENSION vector SCHEMA public")
        connection.execute(f'ALTER DATABASE "{empty_database.name}" SET search_path = "Tenant 1", public')
    migrations.upgrade(url=empty_database.url)
    result = psql.feed(empty_database.url, SCRIPT, tmp_path, search_path='"Tenant\\ 1",public')
    assert (result.returncode, result.stderr) == (0, "")
    assert "Analytics tables of schema Tenant 1" in result.stdout
    result = psql.feed(empty_database.url, SCRIPT, tmp_path)
    assert "MISSING    clusters" in result.stdout


def test_script_with_read_only_role_succeeds(server: Server, tmp_path: Path) -> None:
    with server.role("reader") as role, server.database() as database:
        migrations.upgrade(url=database.url)
        database.execute("GRANT SELECT ON alembic_version TO reader")
        assert psql.feed(database.url_as(role), SCRIPT, tmp_path).returncode == 0


def test_script_on_empty_database_reports_missing_tables(empty_database: Database, verify: Verify) -> None:
    result = verify(empty_database)
    assert_different(result)
    assert [line.split()[:3] for line in result.stdout.splitlines()[1:]] == [
        ["MISSING", "extension", "vector"],
        ["MISSING", "revision", "expected:"],
        ["MISSING", "type", "anomaly_severity"],
        ["MISSING", "type", "trend_status"],
        *(
            ["MISSING", table, "table"]
            for table in ("anomaly_log", "clusters", "kpi_summary", "text_summary", "trend_signals")
        ),
    ]


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("DROP INDEX idx_clusters_features", ["MISSING clusters index idx_clusters_features expected: gin"]),
        (
            f"{ANOTHER_VECTOR_INDEX} USING hnsw (embedding vector_l2_ops)",
            ["DIFFERENT text_summary index idx_text_summary_embedding hnsw (embedding vector_l2_ops)"],
        ),
        (
            f"{ANOTHER_VECTOR_INDEX} USING hnsw (embedding vector_cosine_ops) WHERE client_id = 1",
            ["DIFFERENT text_summary index idx_text_summary_embedding hnsw (embedding vector_cosine_ops) WHERE"],
        ),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_text_summary_embedding'::regclass",
            ["DIFFERENT text_summary index idx_text_summary_embedding ivfflat (embedding vector_cosine_ops) WITH"],
        ),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_clusters_client_id'::regclass",
            ["DIFFERENT clusters index idx_clusters_client_id btree (client_id) INVALID"],
        ),
        (
            "ALTER TABLE kpi_summary ALTER kpi_name TYPE text",
            ["DIFFERENT kpi_summary column kpi_name text NOT NULL STORAGE EXTENDED"],
        ),
        (
            "ALTER TABLE text_summary ALTER embedding SET STORAGE EXTERNAL",
            ["DIFFERENT text_summary column embedding vector(384) NULL STORAGE EXTERNAL"],
        ),
        (
            "ALTER TABLE text_summary ALTER language DROP DEFAULT, ALTER created_at DROP NOT NULL",
            ["DIFFERENT text_summary column created_at", "DIFFERENT text_summary column language"],
        ),
        (
            "ALTER TABLE clusters DROP COLUMN centroid",
            ["DIFFERENT clusters table 9 columns", "MISSING clusters column centroid"],
        ),
        (
            "ALTER TABLE clusters ADD COLUMN note text",
            ["DIFFERENT clusters table 11 columns", "EXTRA clusters column note text"],
        ),
        (
            "ALTER TABLE clusters SET UNLOGGED",
            [
                "DIFFERENT clusters table 10 columns, unlogged",
                "DIFFERENT clusters sequence clusters_id_seq UNLOGGED AS bigint",
            ],
        ),
        (
            "ALTER SEQUENCE clusters_id_seq OWNED BY NONE",
            ["DIFFERENT clusters sequence clusters_id_seq AS bigint INCREMENT BY 1 MINVALUE 1"],
        ),
        (
            'ALTER TABLE text_summary ALTER text_field TYPE text COLLATE "C"',
            ['DIFFERENT text_summary column text_field text COLLATE "C" NOT NULL'],
        ),
        (
            "ALTER TABLE clusters RENAME TO old_clusters; CREATE VIEW clusters AS SELECT * FROM old_clusters",
            ["DIFFERENT clusters table 10 columns, view"],
        ),
        (
            "ALTER TYPE anomaly_severity ADD VALUE 'none' BEFORE 'low'",
            ["DIFFERENT type anomaly_severity none, low, medium, high, critical"],
        ),
        (
            "ALTER TABLE anomaly_log DROP CONSTRAINT fk_anomaly_log_source",
            ["MISSING anomaly_log constraint fk_anomaly_log_source"],
        ),
        (
            "ALTER TABLE clusters DROP CONSTRAINT pk_clusters, ADD CONSTRAINT pk_clusters PRIMARY KEY (client_id, id)",
            ["DIFFERENT clusters constraint pk_clusters PRIMARY KEY (client_id, id)"],
        ),
        (
            f"{WITHOUT_CHECK}, ADD CONSTRAINT ck_clusters_silhouette_range CHECK (silhouette_score < 2) NOT VALID",
            ["DIFFERENT clusters constraint ck_clusters_silhouette_range CHECK ((silhouette_score < (2)"],
        ),
        ("UPDATE alembic_version SET version_num = '002'", ["DIFFERENT revision 002"]),
        ("DROP TABLE alembic_version", ["MISSING revision"]),
    ],
)
def test_script_reports_difference(
    statement: LiteralString, rows: list[str], database: Database, verify: Verify
) -> None:
    database.execute(statement)
    result = verify(database)
    assert_different(result)
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    differences = [line for line in lines[1:] if not line.startswith(("OK", "expected: "))]
    assert len(differences) == len(rows)
    for line, row in zip(differences, rows, strict=True):
        assert line.startswith(row)


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("CREATE INDEX idx_of_operator ON clusters (cluster_name)", "EXTRA clusters index idx_of_operator"),
        (
            f"{ANOTHER_VECTOR_INDEX} USING ivfflat (embedding vector_cosine_ops) WITH (lists = 447)",
            "OK text_summary index idx_text_summary_embedding",
        ),
        (
            f"{ANOTHER_VECTOR_INDEX} USING hnsw (embedding vector_cosine_ops) WITH (m = 24, ef_construction = 100)",
            "OK text_summary index idx_text_summary_embedding hnsw",
        ),
        (
            f"{ANOTHER_VECTOR_INDEX} USING hnsw ((embedding::halfvec(384)) halfvec_cosine_ops)",
            "OK text_summary index idx_text_summary_embedding hnsw",
        ),
        (
            f"{ANOTHER_VECTOR_INDEX} USING ivfflat ((embedding::halfvec(384)) halfvec_cosine_ops) WITH (lists = 45)",
            "OK text_summary index idx_text_summary_embedding ivfflat",
        ),
        (f"UPDATE alembic_version SET version_num = '{AFTER_HEAD}'", f"OK revision {AFTER_HEAD}"),
    ],
)
def test_script_accepts_change_of_operator(
    statement: LiteralString, row: str, database: Database, verify: Verify
) -> None:
    database.execute(statement)
    result = verify(database)
    assert result.returncode == 0
    assert row in " ".join(result.stdout.split())


def assert_different(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 3
    assert MESSAGE in result.stderr
    assert len(result.stderr.splitlines()) == 1
