"""The manifests in the package are what the revisions make today."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from syntegra_db.catalog import MANIFESTS, Schema, format_manifest, load_manifest
from syntegra_db.errors import RevisionError
from syntegra_db.migrations._manifests import write_manifests
from syntegra_db.revisions import all_revisions

if TYPE_CHECKING:
    from pathlib import Path

    from servers import Database

A_COLUMN = (
    '"data": {"type": "jsonb", "nullability": "NOT NULL", "storage": "EXTENDED", "comment": "Normalised record"},'
)


def test_manifests_are_what_the_revisions_make(empty_database: Database, tmp_path: Path) -> None:
    written = write_manifests(empty_database.url, tmp_path)
    assert [path.name for path in written] == sorted(entry.name for entry in MANIFESTS.iterdir())
    for path in written:
        made = path.read_text(encoding="utf-8")
        stored = (MANIFESTS / path.name).read_text(encoding="utf-8")
        assert made == stored, f"{path.name} is stale: run `make manifests` and read the difference"


def test_every_revision_has_one() -> None:
    assert all_revisions() == ["001", "002", "003"]
    assert [len(load_manifest(revision).tables) for revision in all_revisions()] == [1, 2, 7]
    assert load_manifest(None) == Schema()


@pytest.mark.parametrize("revision", all_revisions())
def test_text_and_shape_say_the_same(revision: str) -> None:
    stored = (MANIFESTS / f"{revision}.json").read_text(encoding="utf-8")
    assert format_manifest(revision, load_manifest(revision)) == stored
    assert json.loads(stored)["revision"] == revision


def test_a_column_an_index_or_a_constraint_is_one_line() -> None:
    lines = (MANIFESTS / "003.json").read_text(encoding="utf-8").splitlines()
    for line in (
        A_COLUMN,
        '"idx_text_summary_keywords": "gin (keywords)",',
        '"uq_data_sources_client_id_id": "UNIQUE (client_id, id)"',
        '"anomaly_severity": ["low", "medium", "high", "critical"],',
    ):
        assert [stripped for stripped in map(str.strip, lines) if stripped == line] == [line]


def test_nothing_of_a_server_is_in_them() -> None:
    for revision in all_revisions():
        text = (MANIFESTS / f"{revision}.json").read_text(encoding="utf-8")
        assert "public" not in text
        assert "0.8" not in text


def test_they_are_made_from_an_empty_database_only(database: Database, tmp_path: Path) -> None:
    with pytest.raises(RevisionError, match="already holds alembic_version, anomaly_log"):
        write_manifests(database.url, tmp_path)
    assert list(tmp_path.iterdir()) == []
