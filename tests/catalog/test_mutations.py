"""Each change to the schema is reported by name, and the fixes, run in order, remove it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from support.drift import drift_report, drifted_objects, fix_statements, run
from syntegra_db.catalog import introspect
from syntegra_db.catalog.compare import compare_schemas

if TYPE_CHECKING:
    from support.servers import Database

BLOCK = re.compile(r"^-- (?P<name>.+) => (?P<named>.+)\n(?P<statements>(?:(?!--|\n).*\n?)+)", re.MULTILINE)


def mutations(file: str) -> dict[str, tuple[str, str]]:
    """Return the mutations in a file of this folder: name -> statements and the object that they change."""
    script = Path(__file__).with_name(file).read_text(encoding="utf-8")
    return {block["name"]: (block["statements"], block["named"]) for block in BLOCK.finditer(script)}


MUTATIONS = mutations("mutations.sql")
MUTATIONS_18 = mutations("mutations_18.sql")
ROWS = """
    INSERT INTO clusters (client_id, cluster_id, features_json) SELECT n, n, '{}' FROM generate_series(1, 50) AS n;
    INSERT INTO anomaly_log (client_id, kpi_name, value, severity)
      VALUES (1, 'orders', 3.25, 'low'), (1, 'orders', 99, 'critical');
"""
OTHER_ORDER = MUTATIONS["type, other order"][0]


def check(database: Database, statements: str, named: str) -> None:
    run(database, statements)
    report = drift_report(database)
    assert named in drifted_objects(report)
    assert all(finding.expected != finding.found and finding.impact for finding in report.findings)
    run(database, *fix_statements(report))
    assert drift_report(database).findings == []


@pytest.mark.parametrize(("statements", "named"), MUTATIONS.values(), ids=MUTATIONS)
def test_mutation_is_named_and_fixed(database: Database, statements: str, named: str) -> None:
    check(database, statements, named)


@pytest.mark.parametrize(("statements", "named"), MUTATIONS_18.values(), ids=MUTATIONS_18)
def test_mutation_of_postgresql_18_is_named_and_fixed(database: Database, statements: str, named: str) -> None:
    with database.connect() as connection:
        version = connection.info.server_version
    if version >= 180000:
        check(database, statements, named)
    else:
        with pytest.raises((psycopg.errors.SyntaxError, psycopg.errors.FeatureNotSupported)):
            run(database, statements)


def test_mutation_files_are_parsed_completely() -> None:
    assert len(MUTATIONS) > 80
    assert len(MUTATIONS_18) == 5
    assert {name.split(",")[0] for name in MUTATIONS} == {"table", "column", "sequence", "constraint", "index", "type"}


def test_renamed_enum_label_is_fixed_by_rename(database: Database) -> None:
    run(database, *MUTATIONS["type, label renamed"][:1])
    finding = drift_report(database).findings[0]
    assert (finding.object, finding.expected, finding.found, finding.fix) == (
        "type trend_status",
        "emergent, stable, declining",
        "rising, stable, declining",
        "ALTER TYPE trend_status RENAME VALUE 'rising' TO 'emergent';",
    )


@pytest.mark.parametrize(
    ("mutation", "fix"),
    [
        (
            "constraint, check not valid",
            "ALTER TABLE trend_signals VALIDATE CONSTRAINT ck_trend_signals_period_order;",
        ),
        (
            "constraint, check renamed",
            "ALTER TABLE clusters RENAME CONSTRAINT sane TO ck_clusters_silhouette_range;",
        ),
        ("index, invalid", "REINDEX INDEX CONCURRENTLY idx_clusters_client_id;"),
        ("index, renamed", "ALTER INDEX by_client RENAME TO idx_clusters_client_id;"),
        ("sequence, renamed", "ALTER SEQUENCE groups_id_seq RENAME TO clusters_id_seq;"),
        ("type, label added", "BEGIN;"),
        ("column, nullable", "ALTER TABLE kpi_summary ALTER COLUMN kpi_name SET NOT NULL;"),
    ],
)
def test_fix_is_the_smallest_change(database: Database, mutation: str, fix: str) -> None:
    run(database, MUTATIONS[mutation][0])
    assert fix_statements(drift_report(database))[0] == fix


def test_disabled_foreign_keys_are_reported_on_both_tables(database: Database) -> None:
    run(database, "ALTER TABLE data_sources DISABLE TRIGGER ALL", "ALTER TABLE kpi_summary DISABLE TRIGGER ALL")
    report = drift_report(database)
    assert {name.rsplit(" ", 1)[1] for name in drifted_objects(report)} == {"data_sources", "kpi_summary"}
    assert {finding.found for finding in report.findings if finding.object.endswith("kpi_summary")} == {
        "disabled, of fk_kpi_summary_source"
    }
    run(database, *fix_statements(report))
    assert drift_report(database).findings == []


def test_renamed_table_is_not_created_again(database: Database) -> None:
    run(database, "ALTER TABLE clusters RENAME TO groups")
    report = drift_report(database)
    assert drifted_objects(report) == ["table clusters"]
    assert report.findings[0].fix.startswith("-- If it was renamed, rename it back.")
    with pytest.raises(psycopg.errors.DuplicateTable, match="pk_clusters"):
        run(database, *fix_statements(report))
    run(database, "ALTER TABLE groups RENAME TO clusters")
    assert drift_report(database).findings == []


ATTACHED = (
    "CREATE TRIGGER tidy BEFORE UPDATE ON clusters FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE keep AS ON DELETE TO clusters WHERE old.client_id = 1 DO INSTEAD NOTHING",
    "CREATE POLICY own ON clusters AS RESTRICTIVE FOR UPDATE USING (client_id > 1) WITH CHECK (client_id > 2)",
)


@pytest.mark.parametrize(
    "changes",
    [
        ["DROP TRIGGER tidy ON clusters", "DROP RULE keep ON clusters", "DROP POLICY own ON clusters"],
        [
            "ALTER TABLE clusters DISABLE TRIGGER tidy",
            "ALTER TABLE clusters DISABLE RULE keep",
            "ALTER POLICY own ON clusters USING (true)",
        ],
    ],
    ids=["dropped", "changed"],
)
def test_declared_trigger_rule_and_policy_are_restored(database: Database, changes: list[str]) -> None:
    run(database, *ATTACHED)
    with database.engine.connect() as connection:
        expected = introspect(connection, ["clusters"]).schema
    run(database, *changes)
    with database.engine.connect() as connection:
        findings = list(compare_schemas(expected, introspect(connection, ["clusters"]).schema))
    assert [finding.object for finding in findings] == [
        "policy own on clusters",
        "rule keep on clusters",
        "trigger tidy on clusters",
    ]
    run(database, *(line for finding in findings for line in finding.fix.splitlines()))
    with database.engine.connect() as connection:
        assert introspect(connection, ["clusters"]).schema == expected


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("CREATE VIEW clusters AS SELECT * FROM groups", "view"),
        ("CREATE MATERIALIZED VIEW clusters AS SELECT * FROM groups", "materialized view"),
        ("CREATE TYPE clusters AS (id bigint)", "composite type"),
        ("CREATE SEQUENCE clusters", "sequence"),
        ("CREATE INDEX clusters ON groups (id)", "index"),
        ("CREATE TABLE clusters (LIKE groups) PARTITION BY HASH (client_id)", "partitioned table by HASH (client_id)"),
    ],
    ids=["view", "materialized view", "composite type", "sequence", "index", "partitioned"],
)
def test_other_relation_kind_is_one_finding_without_statements(database: Database, statement: str, kind: str) -> None:
    run(database, "ALTER TABLE clusters RENAME TO groups", statement)
    report = drift_report(database)
    assert [(finding.object, finding.found) for finding in report.findings] == [("table clusters", kind)]
    assert fix_statements(report) == []


def test_recreated_sequence_continues_after_greatest_id(database: Database) -> None:
    run(database, ROWS, "DROP SEQUENCE clusters_id_seq CASCADE")
    run(database, *fix_statements(drift_report(database)))
    with database.connect() as connection:
        inserted = connection.execute(
            "INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (1, 1, '{}') RETURNING id"
        ).fetchone()
    assert inserted == (51,)


@pytest.mark.parametrize(
    "statements", [OTHER_ORDER, "ALTER TYPE anomaly_severity ADD VALUE 'fatal'"], ids=["other order", "label added"]
)
def test_recreated_enum_keeps_labels_of_rows(database: Database, statements: str) -> None:
    run(database, ROWS, statements)
    run(database, *fix_statements(drift_report(database)))
    with database.connect() as connection:
        rows = connection.execute("SELECT severity, value FROM anomaly_log ORDER BY severity").fetchall()
        serious = connection.execute("SELECT count(*) FROM anomaly_log WHERE severity >= 'high'").fetchone()
    assert [(str(severity), str(value)) for severity, value in rows] == [("low", "3.25"), ("critical", "99")]
    assert serious == (1,)


def test_recreated_enum_with_label_in_use_changes_nothing(database: Database) -> None:
    run(database, "ALTER TYPE anomaly_severity ADD VALUE 'fatal'")
    run(database, "INSERT INTO anomaly_log (client_id, kpi_name, value, severity) VALUES (1, 'orders', 3, 'fatal')")
    report = drift_report(database)
    with pytest.raises(psycopg.errors.InvalidTextRepresentation, match="fatal"):
        run(database, *fix_statements(report))
    assert drift_report(database) == report
