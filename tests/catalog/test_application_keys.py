"""A key of an application is a note if its columns are NULL in every row that the models insert, and drift if not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from support.drift import drift_report, drifted_objects, fix_statements, run
from syntegra_db.models import Cluster

if TYPE_CHECKING:
    from support.servers import Database

COLUMN = "ALTER TABLE clusters ADD code text;"
PARENT = "ALTER TABLE clusters ADD parent bigint, ADD source_id bigint;"
HARMLESS = {
    "unique column": "ALTER TABLE clusters ADD code text UNIQUE",
    "unique index": f"{COLUMN} CREATE UNIQUE INDEX app_key ON clusters (code)",
    "unique with declared column": f"{COLUMN} CREATE UNIQUE INDEX app_key ON clusters (client_id, code DESC)",
    "deferrable": f"{COLUMN} ALTER TABLE clusters ADD UNIQUE (code, client_id) DEFERRABLE",
    "included declared column": f"{COLUMN} CREATE UNIQUE INDEX app_key ON clusters (code) INCLUDE (client_id)",
    "partial": f"{COLUMN} CREATE UNIQUE INDEX app_key ON clusters (code) WHERE client_id > 0",
    "other collation": f'{COLUMN} CREATE UNIQUE INDEX app_key ON clusters (code COLLATE "C" text_pattern_ops)',
    "lower case": f"{COLUMN} CREATE UNIQUE INDEX app_key ON clusters (lower(code))",
    "lower case of varchar": "ALTER TABLE clusters ADD code varchar(9);"
    "CREATE UNIQUE INDEX app_key ON clusters (client_id, upper(code))",
    "quoted name": 'ALTER TABLE clusters ADD "Code, ""a"" (b)" text UNIQUE',
    "exclusion": f"{COLUMN} ALTER TABLE clusters ADD EXCLUDE USING btree (code WITH =)",
    "reference to itself": "ALTER TABLE clusters ADD parent bigint REFERENCES clusters",
    "reference to another table": f"{PARENT} ALTER TABLE clusters ADD FOREIGN KEY (source_id) REFERENCES data_sources",
    "reference with declared column": f"{PARENT} ALTER TABLE clusters"
    " ADD FOREIGN KEY (client_id, source_id) REFERENCES data_sources (client_id, id) ON DELETE CASCADE",
    "full match of own columns": f"{PARENT} ALTER TABLE clusters ADD FOREIGN KEY (parent, source_id)"
    " REFERENCES data_sources (client_id, id) MATCH FULL",
}
HARMFUL = {
    "declared column": "CREATE UNIQUE INDEX app_key ON clusters (cluster_name)",
    "declared column in lower case": "CREATE UNIQUE INDEX app_key ON clusters (lower(cluster_name))",
    "only included": f"{COLUMN} CREATE UNIQUE INDEX app_key ON clusters (client_id) INCLUDE (code)",
    "only in the condition": f"{COLUMN} CREATE UNIQUE INDEX app_key ON clusters (client_id) WHERE code IS NULL",
    "equal NULLs": f"{COLUMN} ALTER TABLE clusters ADD UNIQUE NULLS NOT DISTINCT (code)",
    "equal NULLs of an index": f"{COLUMN} CREATE UNIQUE INDEX app_key ON clusters (code) NULLS NOT DISTINCT",
    "expression for NULL": f"{COLUMN} CREATE UNIQUE INDEX app_key ON clusters (coalesce(code, ''))",
    "default": "ALTER TABLE clusters ADD code text DEFAULT 'a' UNIQUE",
    "default of a domain": "CREATE DOMAIN word AS text DEFAULT 'a'; ALTER TABLE clusters ADD code word UNIQUE",
    "generated": "ALTER TABLE clusters ADD code bigint GENERATED ALWAYS AS (client_id % 2) STORED UNIQUE",
    "exclusion of declared column": "ALTER TABLE clusters ADD EXCLUDE USING btree (client_id WITH =)",
    "reference from declared column": "ALTER TABLE clusters ADD FOREIGN KEY (cluster_id) REFERENCES data_sources",
    "reference with default": "ALTER TABLE clusters ADD parent bigint DEFAULT 1 REFERENCES clusters",
    "full match with declared column": f"{PARENT} ALTER TABLE clusters ADD FOREIGN KEY (client_id, source_id)"
    " REFERENCES data_sources (client_id, id) MATCH FULL",
}


def insert_two(database: Database) -> None:
    with Session(database.engine) as session:
        for _ in range(2):
            session.add(Cluster(client_id=1, cluster_id=1, cluster_name="a", features_json={}))
        session.commit()
        assert len(session.scalars(select(Cluster)).all()) == 2


@pytest.mark.parametrize("statements", HARMLESS.values(), ids=HARMLESS)
def test_key_that_rejects_no_insert_of_the_models_is_a_note(database: Database, statements: str) -> None:
    run(database, *statements.split(";"))
    report = drift_report(database)
    assert report.findings == []
    assert any(not note.object.startswith("column") for note in report.notes)
    insert_two(database)


@pytest.mark.parametrize("statements", HARMFUL.values(), ids=HARMFUL)
def test_key_that_can_reject_an_insert_of_the_models_is_drift(database: Database, statements: str) -> None:
    run(database, *statements.split(";"))
    report = drift_report(database)
    assert len(drifted_objects(report)) == 1
    run(database, *fix_statements(report))
    assert drift_report(database).findings == []
    insert_two(database)


@pytest.mark.parametrize(
    ("action", "impact"),
    [
        ("", "It can block a DELETE in clusters."),
        ("ON DELETE RESTRICT", "It can block a DELETE in clusters."),
        ("ON DELETE CASCADE", "A DELETE in clusters also deletes the rows that reference it."),
        (
            "ON DELETE SET NULL",
            "A DELETE in clusters sets the columns that reference it to NULL, or fails if one is NOT NULL.",
        ),
    ],
)
def test_impact_of_reference_names_what_a_delete_does(database: Database, action: str, impact: str) -> None:
    run(database, f"ALTER TABLE clusters ADD parent bigint CONSTRAINT app_parent REFERENCES clusters {action}")
    note = next(note for note in drift_report(database).notes if note.object == "constraint app_parent on clusters")
    assert impact in note.impact
