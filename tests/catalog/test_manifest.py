"""The manifests of the package: their content and format."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from syntegra_db.catalog import MANIFESTS, Schema, format_manifest, load_manifest
from syntegra_db.catalog._manifest import written_manifests
from syntegra_db.errors import RevisionError
from syntegra_db.migrations import write_manifests
from syntegra_db.revisions import all_revisions

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

A_COLUMN = (
    '"data": {"type": "jsonb", "nullability": "NOT NULL", "storage": "EXTENDED", "comment": "Normalised record"},'
)


def test_every_revision_has_a_manifest() -> None:
    assert all_revisions()[:3] == ["001", "002", "003"]
    assert [len(load_manifest(revision).tables) for revision in all_revisions()[:3]] == [1, 2, 7]
    assert written_manifests().keys() == set(all_revisions())
    assert load_manifest(None) == Schema()


@pytest.mark.parametrize("revision", all_revisions())
def test_manifest_round_trips_through_schema(revision: str) -> None:
    stored = (MANIFESTS / f"{revision}.json").read_text(encoding="utf-8")
    assert format_manifest(revision, load_manifest(revision)) == stored
    assert json.loads(stored)["revision"] == revision


def test_manifest_has_one_line_per_column_index_and_constraint() -> None:
    lines = (MANIFESTS / "003.json").read_text(encoding="utf-8").splitlines()
    for line in (
        A_COLUMN,
        '"idx_text_summary_keywords": "gin (keywords)",',
        '"uq_data_sources_client_id_id": "UNIQUE (client_id, id)"',
        '"anomaly_severity": ["low", "medium", "high", "critical"],',
    ):
        assert [stripped for stripped in map(str.strip, lines) if stripped == line] == [line]


def test_manifest_names_no_schema_and_no_extension_version() -> None:
    for revision in all_revisions():
        text = (MANIFESTS / f"{revision}.json").read_text(encoding="utf-8")
        assert "public" not in text
        assert "0.8" not in text


def test_write_manifests_on_migrated_database_raises(database: Database, tmp_path: Path) -> None:
    with pytest.raises(RevisionError, match="already contains alembic_version, anomaly_log"):
        write_manifests(database.url, tmp_path)
    assert list(tmp_path.iterdir()) == []
