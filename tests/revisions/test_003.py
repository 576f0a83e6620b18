from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from syntegra_db import migrations
from syntegra_db.errors import ExtensionUnavailable

if TYPE_CHECKING:
    from revisions.conftest import Revision

    from support.servers import Server

REVISION = "003"
ROLE = "syntegra_no_extension"
TABLES = {"kpi_summary", "text_summary", "trend_signals", "clusters", "anomaly_log"}


def test_upgrade_downgrade_upgrade_restores_same_schema(revision: Revision) -> None:
    revision.database.execute("CREATE EXTENSION vector")
    before = revision.schema()
    revision.upgrade()
    after = revision.schema()
    revision.downgrade()
    assert revision.schema() == before
    revision.upgrade()
    assert revision.schema() == after != before


def test_missing_extension_is_created_and_kept_by_downgrade(revision: Revision) -> None:
    extension = "SELECT extname FROM pg_extension WHERE extname = 'vector'"
    assert revision.database.query(extension) == []
    revision.upgrade()
    assert revision.database.query(extension) == [("vector",)]
    revision.downgrade()
    assert revision.database.query(extension) == [("vector",)]


def test_downgrade_drops_all_objects_and_keeps_other_rows(revision: Revision) -> None:
    revision.database.execute("CREATE EXTENSION vector")
    objects = (
        "SELECT relkind::text, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " UNION ALL SELECT typtype::text, typname FROM pg_type WHERE typnamespace = 'public'::regnamespace"
        " ORDER BY 1, 2"
    )
    before = revision.database.query(objects)
    revision.database.execute(
        "INSERT INTO data_sources (client_id, name, type) VALUES (7, 'till', 'api_rest');"
        "INSERT INTO processed_data (client_id, source_id, source_type, data) VALUES (7, 1, 'retail', '{}')"
    )
    revision.upgrade()
    assert {name for _, name in revision.database.query(objects)} >= TABLES
    revision.database.query(
        "INSERT INTO clusters (client_id, cluster_id, features_json) VALUES (7, 1, '{}') RETURNING id"
    )
    revision.downgrade()
    assert revision.database.query(objects) == before
    assert revision.database.query("SELECT count(*) FROM data_sources") == [(1,)]
    assert revision.database.query("SELECT client_id, source_id FROM processed_data") == [(7, 1)]


def test_vector_index_is_created_without_notice(revision: Revision, capfd: pytest.CaptureFixture[str]) -> None:
    revision.upgrade()
    index = "SELECT indexdef FROM pg_indexes WHERE indexname = 'idx_text_summary_embedding'"
    ((definition,),) = revision.database.query(index)
    assert "USING ivfflat (embedding vector_cosine_ops) WITH (lists='100')" in str(definition)
    assert "little data" not in capfd.readouterr().err


def test_upgrade_without_extension_privilege_changes_nothing(revision: Revision, server: Server) -> None:
    database = revision.database
    with server.role(ROLE):
        try:
            database.execute(
                "GRANT ALL ON SCHEMA public TO syntegra_no_extension;"
                "GRANT ALL ON ALL TABLES IN SCHEMA public TO syntegra_no_extension"
            )
            before = revision.schema()
            with pytest.raises(ExtensionUnavailable) as refused:
                migrations.upgrade("003", database.url_as(ROLE))
            assert "CREATE EXTENSION vector;" in str(refused.value)
            assert "at revision 002, and nothing else was changed" in str(refused.value)
            assert revision.schema() == before
            assert database.query("SELECT version_num FROM alembic_version") == [("002",)]
        finally:
            database.execute("DROP OWNED BY syntegra_no_extension")


def test_extension_outside_search_path_is_named(revision: Revision) -> None:
    revision.database.execute("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
    with pytest.raises(ExtensionUnavailable, match="schema extensions, which is not on the search_path"):
        revision.upgrade()
    assert revision.database.query("SELECT to_regclass('kpi_summary')") == [(None,)]
    database = sql.Identifier(revision.database.name)
    with revision.database.connect() as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} SET search_path = public, extensions").format(database))
    revision.upgrade()
