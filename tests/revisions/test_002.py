from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from revisions.conftest import Revision

REVISION = "002"


def test_upgrade_downgrade_upgrade_restores_same_schema(revision: Revision) -> None:
    before = revision.schema()
    revision.upgrade()
    after = revision.schema()
    revision.downgrade()
    assert revision.schema() == before
    revision.upgrade()
    assert revision.schema() == after != before


def test_downgrade_keeps_rows_of_data_sources(revision: Revision) -> None:
    revision.database.execute("INSERT INTO data_sources (client_id, name, type) VALUES (7, 'till', 'api_rest')")
    revision.upgrade()
    revision.database.execute(
        "INSERT INTO processed_data (client_id, source_id, source_type, data) VALUES (7, 1, 'retail', '{}')"
    )
    revision.downgrade()
    assert revision.database.query("SELECT id, client_id, name FROM data_sources") == [(1, 7, "till")]
