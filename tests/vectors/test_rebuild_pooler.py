"""Rebuilds through PgBouncer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from migrations.test_pooler import ADVISORY_LOCKS

from support.embeddings import EMBEDDING
from support.poolers import pgbouncer
from support.texts import load_texts
from syntegra_db.connections import conninfo, unpooled_engine
from syntegra_db.errors import RebuildFailed
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors.maintenance import rebuild
from syntegra_db.vectors.maintenance._build import index_validity

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

pytestmark = pytest.mark.pooler


def test_rebuild_in_transaction_mode_raises_and_leaves_no_lock(database: Database, tmp_path: Path) -> None:
    with pgbouncer(database, "transaction", tmp_path) as url:
        with pytest.raises(RebuildFailed, match="connected through a transaction-mode pooler"):
            rebuild(unpooled_engine(url))
        assert database.query(ADVISORY_LOCKS) == [(0,)]


def test_rebuild_in_session_mode_leaks_no_setting(database: Database, tmp_path: Path) -> None:
    load_texts(database, 500, {})
    names = (
        "name IN ('maintenance_work_mem', 'statement_timeout', 'client_connection_check_interval', 'ivfflat.probes')"
    )
    settings = f"SELECT name, setting FROM pg_settings WHERE {names} ORDER BY 1"
    with database.connect() as fresh:
        fresh.execute("SELECT '[1]'::vector")
        defaults = fresh.execute(settings).fetchall()
    with pgbouncer(database, "session", tmp_path) as url:
        rebuild(unpooled_engine(url), calibration_seconds=0.5)
        with psycopg.connect(conninfo(url)) as client:
            client.execute("SELECT '[1]'::vector")
            assert client.execute(settings).fetchall() == defaults
    with database.engine.connect() as connection:
        assert index_validity(connection, EMBEDDING) == {VECTOR_INDEX: True}
