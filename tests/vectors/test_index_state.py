"""Searches with one index, two, another or none, and with row-level security."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, LiteralString

import pytest
from sqlalchemy import text

from support.embeddings import EMBEDDING
from support.search import (
    HNSW,
    IVFFLAT,
    ROWS,
    calibration_of,
    current_setting,
    ids,
    recall,
    replace_index,
    store_calibration,
)
from syntegra_db.database import create_engine, session_factory
from syntegra_db.vectors import _index_state, search
from syntegra_db.vectors._index import CalibrationPoint, read_indexes

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from support.servers import Database, Server
    from support.texts import Texts
    from syntegra_db.vectors._index import VectorIndex


ROW_LEVEL_SECURITY: LiteralString = """
    GRANT SELECT ON text_summary TO syntegra_test_tenant;
    ALTER TABLE text_summary ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON text_summary USING (client_id = current_setting('app.client_id')::bigint)
"""
NO_ROW_LEVEL_SECURITY: LiteralString = """
    DROP POLICY own ON text_summary;
    ALTER TABLE text_summary DISABLE ROW LEVEL SECURITY;
    REVOKE ALL ON text_summary FROM syntegra_test_tenant
"""


def test_index_scan_with_too_few_rows_falls_back_to_exact_search(
    session: Session, texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 0.8, pgvector ends a scan even if the filter left too few rows; here the estimate is wrong too."""

    def old_indexes(connection: Any, _embedding: Any) -> tuple[VectorIndex, ...]:
        return tuple(replace(index, has_iterative_scans=False) for index in read_indexes(connection, EMBEDDING))

    monkeypatch.setattr(_index_state, "read_indexes", old_indexes)
    monkeypatch.setattr("syntegra_db.vectors._search.estimate_rows_cached", lambda *_: ROWS)
    assert ids(search(session, texts.queries[0], client_id=20)) == texts.nearest(texts.queries[0], texts.clients == 20)
    assert current_setting(session, "ivfflat.probes") == "54"
    assert current_setting(session, "ivfflat.iterative_scan") == "off"


def test_search_after_index_change_uses_new_index(session: Session, texts: Texts) -> None:
    search(session, texts.queries[0])
    replace_index(session, HNSW)
    store_calibration(session, calibration_of(session, CalibrationPoint(77, (0.96, 0.9), 1.0)))
    assert len(search(session, texts.queries[0])) == 10
    assert current_setting(session, "hnsw.ef_search") == "77"
    assert current_setting(session, "hnsw.iterative_scan") == "relaxed_order"
    session.rollback()


@pytest.mark.long
@pytest.mark.parametrize("other", ["idx_text_summary_embedding_old", "idx_text_summary_embedding_new"])
def test_search_with_two_indexes_reaches_recall(session: Session, texts: Texts, other: str) -> None:
    """As during a rebuild, until it drops the old index."""
    replace_index(session, HNSW)
    store_calibration(session, calibration_of(session, CalibrationPoint(77, (0.96, 0.9), 1.0)))
    session.execute(text(IVFFLAT.replace("idx_text_summary_embedding", other)))
    assert recall(session, texts) >= 0.95
    assert current_setting(session, "hnsw.ef_search") == "77"
    assert current_setting(session, "ivfflat.probes") == "54"
    assert current_setting(session, "ivfflat.iterative_scan") == "relaxed_order"
    session.rollback()


def test_search_after_truncate_is_exact(session: Session, texts: Texts) -> None:
    session.execute(text("CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT * FROM text_summary"))
    store_calibration(session, calibration_of(session, CalibrationPoint(11, (0.97, 0.9), 2.0)))
    search(session, texts.queries[0])
    session.execute(text("TRUNCATE text_summary"))
    session.execute(text("INSERT INTO text_summary SELECT * FROM kept"))
    session.execute(text("ANALYZE text_summary"))
    for query in texts.queries[:5]:
        assert ids(search(session, query)) == texts.nearest(query)
    session.rollback()


def test_search_of_small_client_with_row_level_security_is_exact(
    server: Server, searched: tuple[Database, Texts]
) -> None:
    database, texts = searched
    with server.role("syntegra_test_tenant") as role:
        database.execute(ROW_LEVEL_SECURITY)
        engine = create_engine(database.url_as(role), pool_size=1, max_overflow=0)
        try:
            for client in (30_000, 200, 30_000):
                with session_factory(engine)() as session:
                    session.execute(text(f"SET LOCAL app.client_id = {client}"))
                    found = ids(search(session, texts.queries[0]))
                    expected = texts.nearest(texts.queries[0], texts.clients == client)
                    assert len({*found} & {*expected}) >= (10 if client == 200 else 7)
                    assert current_setting(session, "ivfflat.probes") == ("1" if client == 200 else "54")
        finally:
            engine.dispose()
            database.execute(NO_ROW_LEVEL_SECURITY)


def test_search_without_index_is_exact_and_warns_once(
    session: Session, texts: Texts, caplog: pytest.LogCaptureFixture
) -> None:
    session.execute(text("DROP INDEX idx_text_summary_embedding"))
    with caplog.at_level(logging.WARNING, "syntegra_db"):
        for query in texts.queries[:5]:
            assert ids(search(session, query)) == texts.nearest(query)
    (warning,) = caplog.messages
    assert "No valid index idx_text_summary_embedding exists" in warning
    assert "`syntegra-db vectors rebuild`" in warning
    session.rollback()


def test_engine_with_execution_options_shares_index_state(engine: Engine) -> None:
    with engine.connect() as connection:
        state = _index_state.get_index_state(connection, EMBEDDING)
    with engine.execution_options(request=1).connect() as connection:
        assert _index_state.get_index_state(connection, EMBEDDING) is state
