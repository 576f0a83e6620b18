"""Migrating through a real PgBouncer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from support.poolers import pgbouncer
from support.revisions import HEAD
from syntegra_db import migrations
from syntegra_db.backup import create_backup
from syntegra_db.bulk import copy_rows
from syntegra_db.connections import unpooled_engine
from syntegra_db.database import create_engine, session_factory
from syntegra_db.errors import MigrationFailed
from syntegra_db.models import EMBEDDING_DIMENSIONS, DataSource, TextSummary
from syntegra_db.vectors import search

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

pytestmark = pytest.mark.pooler

VECTOR = [1.0] * EMBEDDING_DIMENSIONS
ADVISORY_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"


def test_transaction_mode_pooler_is_rejected_without_lock_left(empty_database: Database, tmp_path: Path) -> None:
    with pgbouncer(empty_database, "transaction", tmp_path) as url:
        with pytest.raises(MigrationFailed, match="connected through a transaction-mode pooler"):
            migrations.upgrade("head", url)
        assert empty_database.query(ADVISORY_LOCKS) == [(0,)]
        assert empty_database.query("SELECT to_regclass('data_sources')") == [(None,)]


def test_session_mode_pooler_migrates(empty_database: Database, tmp_path: Path) -> None:
    with pgbouncer(empty_database, "session", tmp_path) as url:
        assert migrations.upgrade("head", url) == HEAD


def test_session_pool_of_one_is_reported_at_once(empty_database: Database, tmp_path: Path) -> None:
    with pgbouncer(empty_database, "session", tmp_path, pool_size=1) as url:
        began = time.monotonic()
        with pytest.raises(MigrationFailed, match="no second connection"):
            migrations.upgrade("head", url)
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("option", ["argument", "URL"])
def test_services_work_behind_transaction_pooler(database: Database, tmp_path: Path, option: str) -> None:
    with pgbouncer(database, "transaction", tmp_path, pool_size=2) as url:
        if option == "URL":
            engine = create_engine(url.update_query_dict({"prepare_threshold": "0"}))
        else:
            engine = create_engine(url, pooler="transaction")
        factory = session_factory(engine)

        def work(number: int) -> None:
            for turn in range(20):
                with factory() as session:
                    session.add(DataSource(client_id=number, name="till", type="simple_csv"))
                    copy_rows(session, TextSummary, [{"client_id": number, "text_field": "x", "embedding": VECTOR}])
                    session.commit()
                    assert len(search(session, VECTOR, client_id=number, limit=100)) == turn + 1

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(4)))
        engine.dispose()


def test_backups_behind_transaction_pooler_succeed(database: Database, tmp_path: Path) -> None:
    with pgbouncer(database, "transaction", tmp_path, pool_size=3) as url:
        for _ in range(8):
            create_backup(unpooled_engine(url)).path.unlink()
