"""A second embedding: every command serves both columns, and each search uses the index of its column."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from support.evolutions import EVOLUTIONS
from support.revisions import AFTER_HEAD, HEAD, revision_of
from support.sample_rows import load_rows, row_digests
from support.second_embedding import add_embedding, evolved_checkout, run_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.checkouts import Checkout
    from support.servers import Database, Server

pytestmark = pytest.mark.long

SECOND = "idx_text_summary_embedding_768"
INDEXES: LiteralString = """SELECT relname::text, amname::text, indisvalid
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
    WHERE relname LIKE 'idx_text_summary_embedding%' ORDER BY 1"""
BOTH = [("idx_text_summary_embedding", "ivfflat", True), (SECOND, "hnsw", True)]
STORAGE: LiteralString = """SELECT attstorage::text FROM pg_attribute
    WHERE attname = 'embedding_768' AND attrelid = 'text_summary'::regclass"""
FILL: LiteralString = "UPDATE text_summary SET embedding_768 = (embedding || (embedding + embedding))::vector(768)"
HALF: LiteralString = f"""DROP INDEX {SECOND}; CREATE INDEX {SECOND} ON text_summary
    USING ivfflat ((embedding_768::halfvec(768)) halfvec_cosine_ops) WITH (lists = 20)"""
CALIBRATED: LiteralString = f"SELECT obj_description('{SECOND}'::regclass, 'pg_class') LIKE '%syntegra_db%'"
MIN_RECALL = 0.9
REBUILD = """
import logging, sys
from syntegra_db.database import create_engine
from syntegra_db.vectors.maintenance import RebuildOptions, rebuild
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
options = RebuildOptions({options})
rebuild(create_engine(), options, embedding="{embedding}", calibration_seconds=0.5)
"""
# Loads 3,000 texts with both embeddings, whose nearest neighbours differ, and prints what searches find.
LOAD = """
import json
import numpy as np
from sqlalchemy import event, text
from syntegra_db.bulk import copy_rows, upsert_rows
from syntegra_db.database import create_engine, session_factory
from syntegra_db.models import InvalidEmbedding, TextSummary
from syntegra_db.vectors import InvalidSearchArgument, _strategy, nearest, search

ROWS = 3000
_strategy.EXACT_SCAN_MAX_ROWS = 100
random = np.random.default_rng(7)


def units(dimensions, rows):
    centres = np.random.default_rng(dimensions).normal(size=(60, dimensions))
    vectors = centres[random.integers(60, size=rows)] + random.normal(scale=0.8, size=(rows, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


stored = {"embedding": units(384, ROWS), "embedding_768": units(768, ROWS)}
queries = {"embedding": units(384, 20), "embedding_768": units(768, 20)}
sessions = session_factory(create_engine())
"""
LOAD_ROWS = (
    LOAD
    + """
with sessions() as session:
    columns = {"id": np.arange(1, ROWS + 1), "client_id": np.ones(ROWS, int), "text_field": ["a"] * ROWS, **stored}
    assert copy_rows(session, TextSummary, columns) == ROWS
    session.commit()
    session.connection(execution_options={"isolation_level": "AUTOCOMMIT"}).execute(text("ANALYZE text_summary"))
"""
)
SEARCH = (
    LOAD
    + """
recalls, settings, counts, statements = {}, {}, {}, []
with sessions() as session:
    event.listen(session.connection().engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    for name, setting in (("embedding", "ivfflat.probes"), ("embedding_768", "hnsw.ef_search")):
        search(session, queries[name][0], embedding=name)
        settings[name] = session.scalar(text(f"SELECT current_setting('{setting}')"))
        found = []
        for query in queries[name]:
            exact = set((np.argsort(-(stored[name] @ query))[:10] + 1).tolist())
            statements.clear()
            matches = search(session, query, embedding=name)
            counts[name] = len(statements)
            assert len(matches) == 10
            found.append(len(exact & {match.row.id for match in matches}) / 10)
        recalls[name] = sum(found) / len(found)
        exact = [match.row.id for match in search(session, queries[name][0], embedding=name, recall=1)]
        assert exact == (np.argsort(-(stored[name] @ queries[name][0]))[:10] + 1).tolist()
        session.commit()
    session.rollback()
    statement = nearest(queries["embedding_768"][1], embedding="embedding_768", client_id=1, limit=3)
    near = [row.id for row in session.scalars(statement)]
    assert near[0] == int(np.argmax(stored["embedding_768"] @ queries["embedding_768"][1])) + 1
    default = [match.row.id for match in search(session, queries["embedding"][0])]
    assert default == [match.row.id for match in search(session, queries["embedding"][0], embedding="embedding")]
print(json.dumps({"recalls": recalls, "settings": settings, "counts": counts}))
"""
)


@pytest.fixture(scope="module")
def evolved(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Checkout:
    return evolved_checkout(tmp_path_factory.mktemp("second") / "checkout", server)


@pytest.fixture(scope="module")
def loaded(evolved: Checkout, server: Server, migrated_template: str) -> Iterator[Database]:
    """Yield a database with rows that have both embeddings; its tests keep them."""
    with server.database(migrated_template, name="syntegra_test_second_embedding") as database:
        evolved.succeed("syntegra-db", "upgrade", database=database)
        result = run_program(evolved, LOAD_ROWS, database)
        assert result.returncode == 0, result.stderr
        yield database


def test_revision_of_the_models_adds_column_storage_and_index(evolved: Checkout, database: Database) -> None:
    [path] = (evolved.folder / "alembic/versions").glob(f"{AFTER_HEAD}*")
    revision = path.read_text(encoding="utf-8")
    assert "pgvector.sqlalchemy.VECTOR(dim=768)" in revision
    assert "op.create_index_online(" in revision
    assert "embedding_768 SET STORAGE PLAIN" in revision
    load_rows(database, 1_000)
    before = row_digests(database)
    for command in (("upgrade", "head"), ("check",), ("downgrade", HEAD)):
        evolved.succeed("alembic", *command, database=database)
    assert row_digests(database) == before
    evolved.succeed("alembic", "upgrade", "head", database=database)
    assert database.query(INDEXES) == BOTH
    assert database.query(STORAGE) == [("p",)]
    evolved.succeed("syntegra-db", "verify", database=database)


def test_search_uses_the_index_of_its_column_without_another_round_trip(evolved: Checkout, loaded: Database) -> None:
    result = run_program(evolved, SEARCH, loaded)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert all(recall >= MIN_RECALL for recall in report["recalls"].values()), report
    assert report["settings"]["embedding_768"] != "40", report
    # The first one is not calibrated and has few lists, so its search is exact; the other one sets ef_search.
    assert report["counts"] == {"embedding": 1, "embedding_768": 2}


KNOWN = "pass embedding='embedding' or 'embedding_768'."
FAULTS = {
    "dimensions": (
        'search(session, [1.0] * 384, embedding="embedding_768")',
        "InvalidEmbedding: text_summary.embedding_768 takes 768 finite numbers; this vector has 384.",
    ),
    "default": (
        "nearest([1.0] * 768)",
        "InvalidEmbedding: text_summary.embedding takes 384 finite numbers; this vector has 768.",
    ),
    "unknown": (
        'search(session, [1.0] * 384, embedding="embedding_512")',
        f"InvalidSearchArgument: text_summary has no column 'embedding_512' with an embedding; {KNOWN}",
    ),
    "no vector": (
        'nearest([1.0] * 384, embedding="language")',
        f"InvalidSearchArgument: The column language of text_summary is not an embedding; {KNOWN}",
    ),
    "vector": (
        "search(session, [1.0] * 384, embedding=[1.0] * 384)",
        "InvalidSearchArgument: embedding is of type list; pass the name of a column, and the vector as query.",
    ),
    "assignment": (
        'TextSummary(client_id=1, text_field="a", embedding_768=[1.0] * 384)',
        "InvalidEmbedding: text_summary.embedding_768 takes 768 finite numbers; this vector has 384.",
    ),
    "copy": (
        'copy_rows(session, TextSummary, [{"client_id": 1, "text_field": "a", "embedding_768": [1.0] * 384}])',
        "embedding_768",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_column_or_vector_is_named_with_its_dimensions(evolved: Checkout, loaded: Database, fault: str) -> None:
    statement, message = FAULTS[fault]
    result = run_program(evolved, f"{LOAD}\nwith sessions() as session:\n    {statement}\n", loaded)
    assert result.returncode == 1
    assert message in result.stderr.splitlines()[-1]


WRITES = """
import asyncio
from sqlalchemy import select
from syntegra_db.bulk import copy_rows, upsert_rows
from syntegra_db.database import async_session_factory, create_async_engine, create_engine, session_factory
from syntegra_db.models import TextSummary
from syntegra_db.vectors import async_search

one, two = [1.0] + [0.0] * 767, [0.0, 1.0] + [0.0] * 766
rows = [{"id": 1, "client_id": 1, "text_field": "a", "embedding": one[:384], "embedding_768": one}]
with session_factory(create_engine())() as session:
    copy_rows(session, TextSummary, rows)
    upsert_rows(session, TextSummary, [{**rows[0], "embedding_768": two}, {**rows[0], "id": 2}], key=["id"])
    session.add(TextSummary(id=3, client_id=1, text_field="a", embedding_768=str(two)))
    session.commit()
    stored = dict(session.execute(select(TextSummary.id, TextSummary.embedding_768)).all())
    assert stored == {1: two, 2: one, 3: two}, stored
    assert session.get(TextSummary, 1).embedding == one[:384]


async def find():
    engine = create_async_engine()
    async with async_session_factory(engine)() as session:
        found = await async_search(session, one, embedding="embedding_768", limit=1)
        print([match.row.id for match in found])
    await engine.dispose()


asyncio.run(find())
"""


def test_every_way_of_writing_stores_both_embeddings(evolved: Checkout, database: Database) -> None:
    evolved.succeed("syntegra-db", "upgrade", database=database)
    result = run_program(evolved, WRITES, database)
    assert (result.returncode, result.stdout) == (0, "[2]\n"), result.stderr


def rebuild(checkout: Checkout, database: Database, embedding: str, options: str = "") -> str:
    """Rebuild with a short calibration, and return the log."""
    program = REBUILD.format(options=options, embedding=embedding)
    result = run_program(checkout, program, database)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_rebuild_builds_the_index_of_the_named_column_only(evolved: Checkout, loaded: Database) -> None:
    for options in ((), ("--column", "language")):
        rejected = evolved.run("syntegra-db", "vectors", "rebuild", *options, database=loaded)
        assert rejected.returncode == 2
        words = " ".join(re.sub(r"[│╭╮╰╯─]", " ", rejected.stderr).split())
        assert "embedding, embedding_768" in words
        assert "nothing was changed" in words
    first = loaded.query("SELECT 'idx_text_summary_embedding'::regclass::oid")
    for arguments, method, definition in (
        ("", "hnsw", "hnsw (embedding_768 vector_cosine_ops) WITH (ef_construction='128')"),
        ("half=True", "hnsw", "hnsw (((embedding_768)::halfvec(768)) halfvec_cosine_ops)"),
        ('method="ivfflat", half=False, lists=30', "ivfflat", "ivfflat (embedding_768 vector_cosine_ops)"),
    ):
        assert "3,000 embeddings of text_summary.embedding_768" in rebuild(
            evolved, loaded, "text_summary.embedding_768", arguments
        )
        assert loaded.query(INDEXES) == [BOTH[0], (SECOND, method, True)]
        [(installed,)] = loaded.query(f"SELECT pg_get_indexdef('{SECOND}'::regclass)")
        assert definition in installed
        assert loaded.query(CALIBRATED) == [(True,)]
        evolved.succeed("syntegra-db", "verify", database=loaded)
        evolved.succeed("alembic", "check", database=loaded)
        searched = run_program(evolved, SEARCH, loaded)
        assert searched.returncode == 0, searched.stderr
        assert json.loads(searched.stdout)["recalls"]["embedding_768"] >= MIN_RECALL
    assert loaded.query("SELECT 'idx_text_summary_embedding'::regclass::oid") == first


def test_status_shows_each_embedding_and_its_command(evolved: Checkout, loaded: Database) -> None:
    arguments = ("syntegra-db", "vectors", "status", "--seconds", "2")
    output = evolved.succeed(*arguments, database=loaded)
    assert re.findall(r"^text_summary\.\w+$", output, re.MULTILINE) == [
        "text_summary.embedding",
        "text_summary.embedding_768",
    ]
    reports = json.loads(evolved.succeed(*arguments, "--json", database=loaded))
    assert [report["index"] for report in reports] == ["idx_text_summary_embedding", SECOND]
    one = json.loads(evolved.succeed(*arguments, "--json", "--column", "embedding_768", database=loaded))
    assert (one["column"], one["rows"]) == ("text_summary.embedding_768", 3_000)
    loaded.execute(f"ALTER INDEX {SECOND} RENAME TO {SECOND}_old")
    output = evolved.succeed(*arguments, "--column", "embedding_768", database=loaded)
    assert f"Index: {SECOND} is missing" in output
    assert output.endswith("  syntegra-db vectors rebuild --column embedding_768\n")
    loaded.execute(f"ALTER INDEX {SECOND}_old RENAME TO {SECOND}")
    status = json.loads(evolved.succeed("syntegra-db", "status", "--json", database=loaded))
    assert status["vector_indexes"].keys() == {"text_summary.embedding", "text_summary.embedding_768"}


def test_rebuild_of_the_first_keeps_a_second_named_like_its_new_index(
    checkout: Checkout, server: Server, database: Database
) -> None:
    add_embedding(checkout, "embedding_new", 16)
    checkout.add_revision(
        AFTER_HEAD,
        """
        op.add_column("text_summary", sa.Column("embedding_new", pgvector.sqlalchemy.VECTOR(16)))
        op.execute("ALTER TABLE text_summary ALTER COLUMN embedding_new SET STORAGE PLAIN")
        op.create_index_online("idx_text_summary_embedding_new", "text_summary", ["embedding_new"],
            postgresql_using="hnsw", postgresql_ops={"embedding_new": "vector_cosine_ops"})
        """,
        """
        op.drop_index_online("idx_text_summary_embedding_new", "text_summary")
        op.drop_column("text_summary", "embedding_new")
        """,
    )
    load_rows(database, 3_000)
    checkout.migrate(server, database)
    database.execute("UPDATE text_summary SET embedding_new = subvector(embedding, 1, 16)")
    second = database.query("SELECT 'idx_text_summary_embedding_new'::regclass::oid")
    rebuild(checkout, database, "embedding")
    assert database.query("SELECT 'idx_text_summary_embedding_new'::regclass::oid") == second
    rebuild(checkout, database, "embedding_new")
    checkout.succeed("syntegra-db", "verify", database=database)


def test_interrupted_upgrade_is_undone(checkout: Checkout, server: Server, database: Database) -> None:
    upgrade, downgrade = EVOLUTIONS["second embedding"]
    failing = '\n        op.create_index_online("idx_twice", "text_summary", ["client_id"], unique=True)\n'
    dropping = '\n        op.drop_index_online("idx_twice", "text_summary")' + downgrade
    checkout.add_revision(AFTER_HEAD, upgrade + failing, dropping)
    checkout.write_manifests(server)
    load_rows(database, 1_000)
    before = row_digests(database)
    result = checkout.run("syntegra-db", "upgrade", database=database)
    assert result.returncode == 11, result.stderr
    checkout.succeed("syntegra-db", "verify", database=database)
    result = checkout.run("syntegra-db", "downgrade", "-1", database=database)
    assert result.returncode == 0, result.stderr
    assert row_digests(database) == before
    checkout.succeed("syntegra-db", "verify", database=database)


def texts(database: Database) -> dict[str, Any]:
    return row_digests(database, "text_summary")


@pytest.mark.parametrize("second", ["hnsw", "ivfflat in half precision"])
def test_backup_rollback_and_restores_keep_both_embeddings_and_indexes(
    evolved: Checkout, database: Database, empty_database: Database, second: str
) -> None:
    load_rows(database, 2_000)
    evolved.succeed("syntegra-db", "upgrade", database=database)
    database.execute(FILL)
    if second != "hnsw":
        database.execute(HALF)
    rows, indexes = texts(database), database.query(INDEXES)
    path = evolved.folder / f"{second}.dump"
    evolved.succeed("syntegra-db", "backup", "--output", str(path), database=database)
    printed = evolved.succeed("syntegra-db", "rollback", HEAD, database=database).splitlines()[-1]
    assert revision_of(database) == HEAD
    evolved.succeed("syntegra-db", *shlex.split(printed)[1:], database=database)
    assert (texts(database), database.query(INDEXES)) == (rows, BOTH)
    evolved.succeed("syntegra-db", "verify", database=database)
    evolved.succeed("syntegra-db", "restore", str(path), database=empty_database)
    assert (texts(empty_database), empty_database.query(INDEXES)) == (rows, BOTH)
    evolved.succeed("syntegra-db", "verify", database=empty_database)
    if second != "hnsw":
        database.execute(HALF)
    evolved.succeed("syntegra-db", "restore", str(path), "--replace", database=database)
    assert (texts(database), database.query(INDEXES)) == (rows, indexes)


@pytest.mark.parametrize(
    "method", ["hnsw (embedding_768 vector_cosine_ops)", "ivfflat (embedding_768 vector_cosine_ops)"]
)
def test_adoption_renames_the_index_of_each_column(
    evolved: Checkout, database: Database, method: LiteralString
) -> None:
    load_rows(database, 1_000)
    evolved.succeed("syntegra-db", "upgrade", database=database)
    database.execute(FILL)
    database.execute(f"DROP INDEX {SECOND}; CREATE INDEX own_second ON text_summary USING {method}")
    database.execute("ALTER INDEX idx_text_summary_embedding RENAME TO own_first; DROP TABLE alembic_version")
    rows = texts(database)
    plan = evolved.succeed("syntegra-db", "adopt", database=database)
    assert f"{SECOND} ← named own_second\n" in plan
    evolved.succeed("syntegra-db", "adopt", "--apply", database=database)
    assert revision_of(database) == AFTER_HEAD
    assert texts(database) == rows
    assert [name for name, _, _ in database.query(INDEXES)] == [name for name, _, _ in BOTH]
    evolved.succeed("syntegra-db", "verify", database=database)


def test_verify_reports_an_index_of_the_other_column_and_of_another_operator_class(
    evolved: Checkout, database: Database
) -> None:
    evolved.succeed("syntegra-db", "upgrade", database=database)
    for definition in (
        "hnsw (embedding vector_cosine_ops)",
        "hnsw (embedding_768 vector_l2_ops)",
        "hnsw ((embedding_768::halfvec(768)) halfvec_l2_ops)",
    ):
        database.execute(f"DROP INDEX {SECOND}; CREATE INDEX {SECOND} ON text_summary USING {definition}")
        verified = evolved.run("syntegra-db", "verify", database=database)
        assert verified.returncode == 1, verified.stdout
        assert f"index {SECOND}" in verified.stdout
