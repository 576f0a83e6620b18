"""Rebuilding the vector index: what stands afterwards, for whom it makes room, and what it refuses."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import DiskFull
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from vectors.texts import fill

from servers import Database, docker_server
from syntegra_db import migrations
from syntegra_db.binary_vectors import use_binary_vectors
from syntegra_db.catalog import examine, verify
from syntegra_db.connecting import conninfo, unpooled_engine
from syntegra_db.database import create_engine, session_factory
from syntegra_db.errors import DatabaseBehind, RebuildFailed, RoomMissing
from syntegra_db.vectors import building, search, sizing
from syntegra_db.vectors.building import Progress, find_indexes
from syntegra_db.vectors.free_room import free_memory
from syntegra_db.vectors.index import NEW, OLD, VECTOR_INDEX, VectorIndex, read_index
from syntegra_db.vectors.rebuilding import Wish, rebuild
from syntegra_db.vectors.sampling import through_index
from syntegra_db.vectors.sizing import Kind
from syntegra_db.vectors.statements import index_statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vectors.texts import Texts

    from servers import Server

ROWS = 3_000
FILLED = "syntegra_test_rebuild_filled"
QUICKLY = 0.5
LOCK_TIMEOUT = "-c lock_timeout=200ms"
INSERT: LiteralString = """INSERT INTO text_summary (client_id, text_field, embedding)
    SELECT 1, 'a', embedding FROM text_summary WHERE id = 1"""
KINDS = [
    (Kind("ivfflat", 30, is_half=False), "ivfflat (embedding vector_cosine_ops) WITH (lists='30')"),
    (
        Kind("ivfflat", 30, is_half=True),
        "ivfflat (((embedding)::halfvec(384)) halfvec_cosine_ops) WITH (lists='30')",
    ),
    (Kind("hnsw", 0, is_half=False), "hnsw (embedding vector_cosine_ops) WITH (ef_construction='128')"),
    (
        Kind("hnsw", 0, is_half=True),
        "hnsw (((embedding)::halfvec(384)) halfvec_cosine_ops) WITH (ef_construction='128')",
    ),
]


@pytest.fixture(scope="module")
def filled_template(server: Server, migrated_template: str) -> Iterator[tuple[str, Texts]]:
    """The name of a database with texts, whose index came with the empty table."""
    with server.database(migrated_template, name=FILLED) as database:
        yield FILLED, fill(database, ROWS, {})


@pytest.fixture
def filled(server: Server, filled_template: tuple[str, Texts]) -> Iterator[Database]:
    with server.database(filled_template[0]) as database:
        yield database


def wish(kind: Kind, **others: Any) -> Wish:
    return Wish(kind.method, kind.lists or None, kind.is_half, **others)


def standing(database: Database) -> VectorIndex:
    """The index that stands, which must be the only one."""
    with database.engine.connect() as connection:
        assert find_indexes(connection) == {VECTOR_INDEX: True}
        index = read_index(connection)
    assert index is not None
    return index


@pytest.mark.parametrize(("kind", "definition"), KINDS)
def test_each_kind_stands_measured_and_serves_searches(
    filled: Database, filled_template: tuple[str, Texts], kind: Kind, definition: str
) -> None:
    done = rebuild(filled.url, wish(kind), recall=0.9, measuring_seconds=3)
    index = standing(filled)
    assert (index.method, index.lists, index.is_half) == kind
    assert (index.tuning, index.is_as_measured) == (done.tuning, True)
    assert (done.rows, done.tuning.recall) == (ROWS, 0.9)
    assert done.chosen is not None
    assert done.chosen.recall[0] >= 0.9
    with filled.engine.connect() as connection:
        report = examine(connection)
        assert report.findings == []
        assert [(note.object, note.found) for note in report.notes] == [(f"index {VECTOR_INDEX}", definition)]
    texts = filled_template[1]
    assert found_share(filled, index, texts, done.chosen.setting) >= 0.85


def found_share(database: Database, index: VectorIndex, texts: Texts, setting: int) -> float:
    """The share of the ten true nearest that the index finds, which the plan must show to be used."""
    statement = index_statement((), is_half=index.is_half)
    hits = 0
    with database.engine.connect() as connection, through_index(connection, index, setting):
        plan = connection.scalars(
            text(f"EXPLAIN {statement}"), {"query": str(texts.queries[0].tolist()), "limit": 10}
        ).all()
        assert any(f"Index Scan using {VECTOR_INDEX} " in line for line in plan)
        for query in texts.queries:
            found = connection.execute(statement, {"query": query, "limit": 10}).all()
            hits += len({row[0] for row in found} & set(texts.nearest(query)))
    return hits / (10 * len(texts.queries))


def test_without_a_wish_it_keeps_the_kind_and_follows_the_rows(filled: Database) -> None:
    rebuild(filled.url, Wish("ivfflat", 7, half=True), measuring_seconds=QUICKLY)
    done = rebuild(filled.url, measuring_seconds=QUICKLY)
    assert done.kind == Kind("ivfflat", 108, is_half=True)
    assert done.bytes_before > 0
    assert done.bytes_after > 0


def test_lists_mean_ivfflat_whatever_stands(filled: Database) -> None:
    rebuild(filled.url, Wish("hnsw"), measuring_seconds=QUICKLY)
    assert rebuild(filled.url, Wish(lists=25), measuring_seconds=QUICKLY).kind == Kind("ivfflat", 25, is_half=False)


@pytest.mark.embedded
def test_an_index_stays_in_its_tablespace(server: Server, filled: Database) -> None:
    place = tempfile.mkdtemp(prefix="sdb-")
    shutil.chown(place, Path(filled.query("SHOW data_directory")[0][0]).owner())
    server.execute(sql.SQL("CREATE TABLESPACE syntegra_test_fast LOCATION {}").format(place))
    try:
        filled.execute(f"ALTER INDEX {VECTOR_INDEX} SET TABLESPACE syntegra_test_fast")
        assert rebuild(filled.url, measuring_seconds=QUICKLY).room.free_disk is None
        found = filled.query(f"SELECT tablespace FROM pg_indexes WHERE indexname = '{VECTOR_INDEX}'")
        assert found == [("syntegra_test_fast",)]
        filled.execute(f"DROP INDEX {VECTOR_INDEX}")
    finally:
        server.execute("DROP TABLESPACE syntegra_test_fast")
        shutil.rmtree(place)


def test_what_is_measured_rises_and_reaches_the_asked_recall_closely(filled: Database) -> None:
    measured = rebuild(filled.url, Wish("ivfflat", 200), recall=0.95, measuring_seconds=20).tuning.measured
    assert [one.setting for one in measured] == sorted({one.setting for one in measured})
    recalls = [one.recall for one in measured]
    assert recalls == sorted(recalls)
    reached = next(at for at, one in enumerate(measured) if one.recall[0] >= 0.95)
    top, bottom = measured[reached].setting, measured[reached - 1].setting
    # The rungs of the ladder are 1.4 apart.
    assert top - bottom == 1 or top < 1.1 * bottom


def test_a_recall_that_no_setting_reaches_leaves_an_index_that_is_not_asked(filled: Database) -> None:
    done = rebuild(filled.url, Wish("ivfflat", 3), recall=0.999, measuring_seconds=QUICKLY)
    assert done.chosen is None
    assert standing(filled).tuning == done.tuning


@contextmanager
def services(database: Database) -> Iterator[list[int]]:
    """Inserts and searches every 10 ms, neither of which may wait for a lock; how many texts each search found."""
    rounds: list[int] = []
    done = threading.Event()

    def work() -> None:
        # Whoever has to wait for a lock fails; a busy machine makes nobody fail.
        engine = create_engine(database.url, connect_args={"options": LOCK_TIMEOUT})
        writer = psycopg.connect(conninfo(database.url), options=LOCK_TIMEOUT, autocommit=True)
        with writer, session_factory(engine)() as session:
            while not done.wait(0.01):
                writer.execute(INSERT)
                rounds.append(len(search(session, [1.0] * 384)))
                session.rollback()
        engine.dispose()

    with ThreadPoolExecutor(1) as pool:
        work_done = pool.submit(work)
        try:
            yield rounds
        finally:
            done.set()
        work_done.result()


@pytest.mark.parametrize("kind", [KINDS[0][0], KINDS[3][0]])
def test_services_write_and_search_meanwhile(filled: Database, kind: Kind) -> None:
    with services(filled) as rounds:
        rebuild(filled.url, wish(kind), measuring_seconds=QUICKLY)
    assert len(rounds) > 20
    assert set(rounds) == {10}
    index = standing(filled)
    assert index.is_as_measured


def test_it_says_how_far_it_is_and_for_whom_it_waits(filled: Database) -> None:
    seen: list[Progress] = []
    with psycopg.connect(conninfo(filled.url), application_name="month-end report") as report:
        report.execute("UPDATE text_summary SET sentiment = 'secret' WHERE id = 1")
        timer = threading.Timer(2, report.rollback)
        timer.start()
        rebuild(filled.url, wish(KINDS[2][0], workers=0), measuring_seconds=QUICKLY, on_progress=seen.append)
        timer.join()
    waited = next(progress for progress in seen if progress.waits_for)
    assert waited.phase == "waiting for writers before build"
    assert "month-end report" in str(waited.waits_for[0])
    assert "secret" not in str(waited.waits_for[0])
    assert any(progress.phase == "building index: loading tuples" and progress.total for progress in seen)
    assert seen[-1] == Progress("measuring what it finds")


def test_a_reader_of_the_old_index_delays_its_end_and_nothing_else(filled: Database) -> None:
    seen: list[Progress] = []
    reader = psycopg.connect(conninfo(filled.url), application_name="nightly export")

    def begin_to_read(progress: Progress) -> None:
        if not seen:
            reader.execute("SELECT count(*) FROM text_summary")
            threading.Timer(3, reader.rollback).start()
        seen.append(progress)

    rebuild(filled.url, wish(KINDS[2][0], workers=0), measuring_seconds=QUICKLY, on_progress=begin_to_read)
    reader.close()
    assert standing(filled).is_as_measured
    assert any("nightly export" in str(blocker) for progress in seen for blocker in progress.waits_for)


def test_two_at_once_take_turns(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syntegra_db.vectors.turn.TURN_PATIENCE_SECONDS", 0.2)
    with psycopg.connect(conninfo(filled.url)) as writer:
        writer.execute(INSERT)
        first = threading.Thread(target=rebuild, args=(filled.url,), kwargs={"measuring_seconds": QUICKLY})
        first.start()
        deadline = time.monotonic() + 10
        while not filled.query("SELECT FROM pg_stat_progress_create_index") and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(RebuildFailed, match=r"Another rebuild of the vector index is running \(pid \d+, "):
            rebuild(filled.url)
        writer.rollback()
        first.join()
    assert standing(filled).is_as_measured
    assert filled.query("SELECT FROM pg_locks WHERE locktype = 'advisory'") == []


SECOND: LiteralString = "CREATE INDEX {} ON text_summary USING hnsw (embedding vector_cosine_ops)"
SPOIL: LiteralString = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{}'::regclass"
LEFTOVERS: dict[str, tuple[list[str], bool]] = {
    # How it came about, and whether one of the indexes works, which then has the name before the build begins.
    "nothing": ([f"DROP INDEX {VECTOR_INDEX}"], False),
    "half-built": ([SECOND.format(NEW), SPOIL.format(NEW)], True),
    "built, but not in its place": ([SECOND.format(NEW)], True),
    "in its place, and the old one there": ([SECOND.format(OLD)], True),
    "in its place, and the old one half-dropped": ([SECOND.format(OLD), SPOIL.format(OLD)], True),
    "only the new one": ([f"ALTER INDEX {VECTOR_INDEX} RENAME TO {NEW}"], True),
    "only the old one": ([f"ALTER INDEX {VECTOR_INDEX} RENAME TO {OLD}"], True),
    "only the old one, and a half-built one": (
        [f"ALTER INDEX {VECTOR_INDEX} RENAME TO {OLD}", SECOND.format(NEW), SPOIL.format(NEW)],
        True,
    ),
    "an invalid one of the name": ([SECOND.format(NEW), SECOND.format(OLD), SPOIL.format(VECTOR_INDEX)], True),
    "only invalid ones": ([SECOND.format(OLD), SPOIL.format(OLD), SPOIL.format(VECTOR_INDEX)], False),
}


@pytest.mark.parametrize("left", LEFTOVERS)
def test_whatever_an_interrupted_run_left_is_cleared(filled: Database, left: str) -> None:
    statements, works = LEFTOVERS[left]
    with filled.connect() as connection:
        for statement in statements:
            connection.execute(statement.encode())
    # It clears up before it finds that there is not enough memory.
    with pytest.raises(RoomMissing):
        rebuild(filled.url, Wish("ivfflat", memory=2**20))
    with filled.engine.connect() as connection:
        standing_now = find_indexes(connection)
    assert standing_now.keys() <= {VECTOR_INDEX}
    assert standing_now.get(VECTOR_INDEX, False) is works
    rebuild(filled.url, Wish("ivfflat"), measuring_seconds=QUICKLY)
    assert standing(filled).is_as_measured
    with filled.engine.connect() as connection:
        assert verify(connection) == []


def test_too_little_memory_is_said_before_it_starts(filled: Database) -> None:
    with pytest.raises(RoomMissing, match=r"30 lists takes \d+ MB of memory, more than the 4 MB that --memory allows"):
        rebuild(filled.url, Wish("ivfflat", 30, memory=4 * 2**20))
    assert standing(filled).tuning is None


def test_less_memory_than_lists_want_takes_fewer_of_them(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = sizing.kmeans_memory(40, ROWS, is_half=False)
    monkeypatch.setattr(sizing, "ROWS_OF_A_LIST", 150)
    assert rebuild(filled.url, Wish("ivfflat", memory=memory), measuring_seconds=QUICKLY).kind.lists == 20


def test_the_memory_that_is_free_is_seen_and_refused(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled.engine.connect() as connection:
        room = sizing.plan_room(connection, KINDS[0][0], ROWS, memory=None, workers=2)
    assert room.free_memory is not None
    assert room.free_memory > 2**20
    monkeypatch.setattr(sizing, "SHARE_OF_FREE_MEMORY", 0.0001)
    with pytest.raises(RoomMissing, match=r"takes \d+ MB of memory, the server has [\d,]+ MB available, and nothing"):
        rebuild(filled.url, wish(KINDS[2][0]))


@pytest.mark.docker
def test_in_a_container_the_memory_that_is_free_is_what_its_limit_leaves() -> None:
    with docker_server(mem_limit="300m") as server, Database(server.url).engine.connect() as connection:
        free = free_memory(connection)
    assert free is not None
    assert 50 * sizing.MEBIBYTE < free < 300 * sizing.MEBIBYTE


@pytest.mark.embedded
def test_the_disk_that_is_free_is_seen_and_refused(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled.engine.connect() as connection:
        room = sizing.plan_room(connection, KINDS[0][0], ROWS, memory=None, workers=2)
    assert room.free_disk is not None
    assert room.free_disk > 2**20
    monkeypatch.setattr(sizing, "INDEX_BYTES_OF_A_ROW", dict.fromkeys(sizing.INDEX_BYTES_OF_A_ROW, 2**40))
    with pytest.raises(
        RoomMissing, match=r"takes [\d,]+ MB of disk beside the old index, the server has [\d,]+ MB free"
    ):
        rebuild(filled.url, wish(KINDS[2][0]))


def test_a_role_that_may_look_at_nothing_rebuilds_all_the_same(server: Server) -> None:
    with server.role("syntegra_test_plain") as role, server.database() as database:
        database.execute("CREATE EXTENSION vector; GRANT CREATE ON SCHEMA public TO syntegra_test_plain")
        migrations.upgrade(url=database.url_as(role))
        fill(database, 300, {})
        done = rebuild(database.url_as(role), measuring_seconds=QUICKLY)
        assert (done.room.free_memory, done.room.free_disk) == (None, None)
        assert standing(database).is_as_measured


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
def test_a_pgvector_that_is_too_old_for_the_kind_is_named(filled: Database, version: str, kind: Kind) -> None:
    filled.execute(f"UPDATE pg_extension SET extversion = '{version}' WHERE extname = 'vector'")
    with pytest.raises(RebuildFailed, match=rf"needs pgvector 0\.\d or newer, the database has {version[:3]}"):
        rebuild(filled.url, wish(kind))


def test_one_row_is_enough(database: Database) -> None:
    fill(database, 1, {})
    done = rebuild(database.url, measuring_seconds=QUICKLY)
    assert (done.kind.lists, done.rows) == (1, 1)


def test_limits_of_the_role_do_not_end_it(filled: Database) -> None:
    limits = "-c statement_timeout=300 -c lock_timeout=200 -c maintenance_work_mem=1MB"
    url = filled.url.update_query_dict({"options": limits})
    with psycopg.connect(conninfo(filled.url)) as writer:
        writer.execute(INSERT)
        timer = threading.Timer(1.5, writer.rollback)
        timer.start()
        rebuild(url, wish(KINDS[0][0]), measuring_seconds=QUICKLY)
        timer.join()
    assert standing(filled).is_as_measured


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
        building.build(connection, KINDS[2][0], memory=2**26, workers=2)
        assert find_indexes(connection)[NEW] is True
        assert connection.scalars(text("SHOW max_parallel_maintenance_workers")).one() == "0"
    assert len(attempts) == 2
    assert "too little shared memory for parallel workers" in caplog.text


def test_another_index_on_the_embeddings_is_named_and_the_new_one_stands(filled: Database) -> None:
    filled.execute("CREATE INDEX theirs ON text_summary USING hnsw (embedding vector_cosine_ops)")
    with pytest.raises(RebuildFailed, match="another index on the embeddings of text_summary, theirs"):
        rebuild(filled.url, Wish("ivfflat", 1), measuring_seconds=QUICKLY)
    assert standing(filled).lists == 1


def test_an_index_that_is_replaced_while_it_is_measured_is_not_believed(filled: Database) -> None:
    engine = unpooled_engine(filled.url)
    use_binary_vectors(engine)
    with engine.connect() as connection:
        index = read_index(connection)
        assert index is not None
        connection.rollback()
        filled.execute(f"DROP INDEX {VECTOR_INDEX}")
        with pytest.raises(RebuildFailed, match="built or dropped"), through_index(connection, index, 1):
            pass


def test_an_hnsw_index_may_be_built_in_less_memory_and_it_is_said(
    filled: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "syntegra_db"):
        done = rebuild(filled.url, wish(KINDS[2][0], memory=2 * sizing.MEBIBYTE), measuring_seconds=QUICKLY)
    assert done.room.memory == 2 * sizing.MEBIBYTE
    assert "what is beyond 2 MB is built on disk, many times slower" in caplog.text
    assert "Building an hnsw index on 3,000 embeddings, with up to 2 MB of memory, of which" in caplog.text
