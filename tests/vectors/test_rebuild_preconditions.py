"""What a rebuild of the vector index needs of the server, the role and pgvector, and what it says without."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.errors import DiskFull
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from vectors.rebuilt import INSERT, KINDS, QUICKLY, ROWS, standing, wish
from vectors.texts import fill

from support.servers import Database, docker_server
from syntegra_db import migrations
from syntegra_db.connections import conninfo, unpooled_engine
from syntegra_db.errors import DatabaseBehind, InsufficientResources, RebuildFailed
from syntegra_db.models import EMBEDDING_DIMENSIONS
from syntegra_db.pgvector_support import MEBIBYTE, ivfflat_build_memory
from syntegra_db.vectors._index import NEW_INDEX
from syntegra_db.vectors.maintenance import _build, _resources
from syntegra_db.vectors.maintenance._build import index_validity
from syntegra_db.vectors.maintenance._rebuild import RebuildOptions, rebuild
from syntegra_db.vectors.maintenance._server_resources import free_memory

if TYPE_CHECKING:
    from support.servers import Server
    from syntegra_db.vectors.maintenance._resources import IndexSpec


def test_too_little_memory_is_said_before_it_starts(filled: Database) -> None:
    with pytest.raises(
        InsufficientResources, match=r"30 lists takes \d+ MB of memory, more than the 4 MB that --memory allows"
    ):
        rebuild(filled.url, RebuildOptions("ivfflat", 30, memory=4 * 2**20))
    assert standing(filled).tuning is None


def test_less_memory_than_lists_want_takes_fewer_of_them(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = ivfflat_build_memory(40, ROWS, EMBEDDING_DIMENSIONS, is_half=False)
    monkeypatch.setattr(_resources, "ROWS_OF_A_LIST", 150)
    assert rebuild(filled.url, RebuildOptions("ivfflat", memory=memory), measuring_seconds=QUICKLY).kind.lists == 20


def test_the_memory_that_is_free_is_seen_and_refused(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled.engine.connect() as connection:
        room = _resources.estimate_resources(connection, KINDS[0][0], ROWS, memory=None, workers=2)
    assert room.free_memory is not None
    assert room.free_memory > 2**20
    monkeypatch.setattr(_resources, "SHARE_OF_FREE_MEMORY", 0.0001)
    with pytest.raises(
        InsufficientResources, match=r"takes \d+ MB of memory, the server has [\d,]+ MB available, and nothing"
    ):
        rebuild(filled.url, wish(KINDS[2][0]))


@pytest.mark.docker
def test_in_a_container_the_memory_that_is_free_is_what_its_limit_leaves() -> None:
    with docker_server(mem_limit="300m") as server, Database(server.url).engine.connect() as connection:
        free = free_memory(connection)
    assert free is not None
    assert 50 * MEBIBYTE < free < 300 * MEBIBYTE


@pytest.mark.embedded
def test_the_disk_that_is_free_is_seen_and_refused(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled.engine.connect() as connection:
        room = _resources.estimate_resources(connection, KINDS[0][0], ROWS, memory=None, workers=2)
    assert room.free_disk is not None
    assert room.free_disk > 2**20
    monkeypatch.setattr(_resources, "INDEX_BYTES_OF_A_ROW", dict.fromkeys(_resources.INDEX_BYTES_OF_A_ROW, 2**40))
    with pytest.raises(
        InsufficientResources, match=r"takes [\d,]+ MB of disk beside the old index, the server has [\d,]+ MB free"
    ):
        rebuild(filled.url, wish(KINDS[2][0]))


def test_a_role_that_may_look_at_nothing_rebuilds_all_the_same(server: Server) -> None:
    with server.role("syntegra_test_plain") as role, server.database() as database:
        database.execute("CREATE EXTENSION vector; GRANT CREATE ON SCHEMA public TO syntegra_test_plain")
        migrations.upgrade(url=database.url_as(role))
        fill(database, 300, {})
        done = rebuild(database.url_as(role), measuring_seconds=QUICKLY)
        assert (done.room.free_memory, done.room.free_disk) == (None, None)
        assert standing(database).is_calibration_current


def test_a_role_that_does_not_own_the_table_is_told_who_does(server: Server, filled: Database) -> None:
    with server.role("syntegra_test_reader") as role:
        filled.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO syntegra_test_reader")
        try:
            with pytest.raises(
                RebuildFailed, match=r"Only the owner of text_summary, .+, and this is syntegra_test_re"
            ):
                rebuild(filled.url_as(role))
        finally:
            filled.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM syntegra_test_reader")


def test_an_older_revision_and_an_empty_table_are_refused(empty_database: Database) -> None:
    migrations.upgrade("002", empty_database.url)
    with pytest.raises(DatabaseBehind, match="syntegra-db upgrade"):
        rebuild(empty_database.url)
    migrations.upgrade("head", empty_database.url)
    with pytest.raises(RebuildFailed, match="No row of text_summary has an embedding"):
        rebuild(empty_database.url)


@pytest.mark.parametrize(("version", "kind"), [("0.6.2", KINDS[1][0]), ("0.4.4", KINDS[2][0]), ("0.6.2", KINDS[3][0])])
def test_a_pgvector_that_is_too_old_for_the_kind_is_named(filled: Database, version: str, kind: IndexSpec) -> None:
    filled.execute(f"UPDATE pg_extension SET extversion = '{version}' WHERE extname = 'vector'")
    with pytest.raises(RebuildFailed, match=rf"needs pgvector 0\.\d or newer, the database has {version[:3]}"):
        rebuild(filled.url, wish(kind))


def test_limits_of_the_role_do_not_end_it(filled: Database) -> None:
    limits = "-c statement_timeout=300 -c lock_timeout=200 -c maintenance_work_mem=1MB"
    url = filled.url.update_query_dict({"options": limits})
    with psycopg.connect(conninfo(filled.url)) as writer:
        writer.execute(INSERT)
        timer = threading.Timer(1.5, writer.rollback)
        timer.start()
        rebuild(url, wish(KINDS[0][0]), measuring_seconds=QUICKLY)
        timer.join()
    assert standing(filled).is_calibration_current


def test_parallel_workers_without_shared_memory_are_left_out(
    filled: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """What a container with little /dev/shm says to the first attempt, said here by the driver's side."""
    engine = unpooled_engine(filled.url)
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
        _build.build_index(connection, KINDS[2][0], memory=2**26, workers=2)
        assert index_validity(connection)[NEW_INDEX] is True
        assert connection.scalars(text("SHOW max_parallel_maintenance_workers")).one() == "0"
    assert len(attempts) == 2
    assert "too little shared memory for parallel workers" in caplog.text


def test_an_hnsw_index_may_be_built_in_less_memory_and_it_is_said(
    filled: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "syntegra_db"):
        done = rebuild(filled.url, wish(KINDS[2][0], memory=2 * MEBIBYTE), measuring_seconds=QUICKLY)
    assert done.room.memory == 2 * MEBIBYTE
    assert "what is beyond 2 MB is built on disk, many times slower" in caplog.text
    assert "Building an hnsw index on 3,000 embeddings, with up to 2 MB of memory, of which" in caplog.text
