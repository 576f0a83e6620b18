from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from revisions.conftest import Revision

REVISION = "001"


def test_upgrade_downgrade_upgrade_restores_same_schema(revision: Revision) -> None:
    before = revision.schema()
    revision.upgrade()
    after = revision.schema()
    revision.downgrade()
    assert revision.schema() == before
    revision.upgrade()
    assert revision.schema() == after != before


def test_downgrade_leaves_empty_version_table(revision: Revision) -> None:
    revision.upgrade()
    revision.downgrade()
    relations = revision.database.query(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')"
    )
    assert relations == [("alembic_version",)]
    assert revision.database.query("SELECT * FROM alembic_version") == []


def test_data_source_requires_only_client_name_and_type(revision: Revision) -> None:
    revision.upgrade()
    rows = revision.database.query(
        "INSERT INTO data_sources (client_id, name, type) VALUES (7, 'till', 'api_rest')"
        " RETURNING id, config_json, status"
    )
    assert rows == [(1, {}, "idle")]
