"""Privileges, memory, settings and versions that a rebuild needs, and its messages without them."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.errors import DiskFull
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from support.embeddings import EMBEDDING, NEW_INDEX
from support.rebuild import INSERT, QUICK, ROWS, SPECS, only_index, options_for
from support.texts import load_texts
from syntegra_db import migrations
from syntegra_db.connections import conninfo, unpooled_engine
from syntegra_db.errors import DatabaseBehind, InsufficientResources, RebuildFailed
from syntegra_db.models import EMBEDDING_DIMENSIONS
from syntegra_db.pgvector_support import MEBIBYTE, ivfflat_build_memory
from syntegra_db.vectors.maintenance import RebuildOptions, _build, _resources, rebuild
from syntegra_db.vectors.maintenance._build import index_validity

if TYPE_CHECKING:
    from support.servers import Database, Server
    from syntegra_db.vectors.maintenance._resources import IndexSpec


def test_memory_above_option_raises_before_build(loaded: Database) -> None:
    with pytest.raises(
        InsufficientResources, match=r"30 lists takes \d+ MB of memory, more than the 4 MB that --memory allows"
    ):
        rebuild(loaded.engine, RebuildOptions("ivfflat", 30, memory=4 * 2**20))
    assert only_index(loaded).calibration is None


def test_less_memory_builds_fewer_lists(loaded: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = ivfflat_build_memory(40, ROWS, EMBEDDING_DIMENSIONS, is_half=False)
    monkeypatch.setattr(_resources, "ROWS_PER_LIST", 150)
    assert rebuild(loaded.engine, RebuildOptions("ivfflat", memory=memory), calibration_seconds=QUICK).spec.lists == 20


def test_memory_above_default_limit_raises(loaded: Database) -> None:
    engine = unpooled_engine(loaded.url.update_query_dict({"options": "-c effective_cache_size=256MB"}))
    with pytest.raises(
        InsufficientResources, match="more than the 64 MB of the default limit, 25 % of effective_cache"
    ):
        rebuild(engine, RebuildOptions("ivfflat", 1_000), calibration_seconds=QUICK)
    assert only_index(loaded).calibration is None


def test_hnsw_above_default_limit_is_built_on_disk(loaded: Database, caplog: pytest.LogCaptureFixture) -> None:
    limits = "-c effective_cache_size=8MB -c maintenance_work_mem=3MB"
    engine = unpooled_engine(loaded.url.update_query_dict({"options": limits}))
    with caplog.at_level(logging.WARNING, "syntegra_db"):
        rebuild(engine, options_for(SPECS[2][0]), calibration_seconds=QUICK)
    assert "the part beyond 3 MB is built on disk" in caplog.text


def test_role_without_privileges_on_server_rebuilds(server: Server) -> None:
    with server.role("syntegra_test_plain") as role, server.database() as database:
        database.execute("CREATE EXTENSION vector; GRANT CREATE ON SCHEMA public TO syntegra_test_plain")
        migrations.upgrade(url=database.url_as(role))
        load_texts(database, 300, {})
        rebuild(unpooled_engine(database.url_as(role)), calibration_seconds=QUICK)
        assert only_index(database).is_calibration_current


def test_role_that_does_not_own_table_raises(server: Server, loaded: Database) -> None:
    with server.role("syntegra_test_reader") as role:
        loaded.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO syntegra_test_reader")
        try:
            with pytest.raises(
                RebuildFailed,
                match=r"Role syntegra_test_reader does not own text_summary.* Connect as the owner, \w+\.",
            ):
                rebuild(unpooled_engine(loaded.url_as(role)))
        finally:
            loaded.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM syntegra_test_reader")


def test_older_revision_and_empty_table_raise(empty_database: Database) -> None:
    migrations.upgrade("002", empty_database.url)
    with pytest.raises(DatabaseBehind, match="syntegra-db upgrade"):
        rebuild(empty_database.engine)
    migrations.upgrade("head", empty_database.url)
    with pytest.raises(RebuildFailed, match="No row of text_summary has an embedding"):
        rebuild(empty_database.engine)


@pytest.mark.parametrize(("version", "spec"), [("0.6.2", SPECS[1][0]), ("0.4.4", SPECS[2][0]), ("0.6.2", SPECS[3][0])])
def test_pgvector_too_old_for_index_raises(loaded: Database, version: str, spec: IndexSpec) -> None:
    loaded.execute(f"UPDATE pg_extension SET extversion = '{version}' WHERE extname = 'vector'")
    with pytest.raises(RebuildFailed, match=rf"needs pgvector 0\.\d or newer, but the database has {version[:3]}"):
        rebuild(loaded.engine, options_for(spec))


def test_rebuild_overrides_timeouts_of_role(loaded: Database) -> None:
    limits = "-c statement_timeout=300 -c lock_timeout=200 -c maintenance_work_mem=1MB"
    engine = unpooled_engine(loaded.url.update_query_dict({"options": limits}))
    with psycopg.connect(conninfo(loaded.url)) as writer:
        writer.execute(INSERT)
        timer = threading.Timer(1.5, writer.rollback)
        timer.start()
        rebuild(engine, options_for(SPECS[0][0]), calibration_seconds=QUICK)
        timer.join()
    assert only_index(loaded).is_calibration_current


def test_build_without_shared_memory_uses_no_workers(loaded: Database, caplog: pytest.LogCaptureFixture) -> None:
    """The error of a container with little /dev/shm, raised here in place of the first attempt."""
    engine = unpooled_engine(loaded.url)
    attempts: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def run_out_of_shared_memory(*execution: Any) -> None:
        statement: str = execution[2]
        if statement.startswith("CREATE INDEX"):
            attempts.append(statement)
            if len(attempts) == 1:
                reason = DiskFull('could not resize shared memory segment "/PostgreSQL.1" to 67145632 bytes')
                raise OperationalError(statement, None, reason)

    with engine.connect() as connection, caplog.at_level(logging.WARNING, "syntegra_db"):
        connection.execution_options(isolation_level="AUTOCOMMIT")
        _build.build_index(connection, EMBEDDING, SPECS[2][0], memory=2**26, workers=2)
        assert index_validity(connection, EMBEDDING)[NEW_INDEX] is True
        assert connection.scalars(text("SHOW max_parallel_maintenance_workers")).one() == "0"
    assert len(attempts) == 2
    assert "Not enough shared memory for parallel workers" in caplog.text


def test_hnsw_with_less_memory_is_built_on_disk_and_logged(loaded: Database, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "syntegra_db"):
        rebuild(loaded.engine, options_for(SPECS[2][0], memory=2 * MEBIBYTE), calibration_seconds=QUICK)
    assert "the part beyond 2 MB is built on disk, many times slower" in caplog.text
    assert "Building an hnsw index on 3,000 embeddings, with up to 2 MB of memory, and about" in caplog.text
