"""A second embedding: its revision, and services that write, search and compare both columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, LiteralString

import pytest

from support.revisions import AFTER_HEAD, HEAD
from support.sample_rows import load_rows, row_digests
from support.second_embedding import BOTH, INDEXES, LOAD, MIN_RECALL, SEARCH, run_program

if TYPE_CHECKING:
    from support.checkouts import Checkout
    from support.servers import Database

pytestmark = pytest.mark.long
STORAGE: LiteralString = """SELECT attstorage::text FROM pg_attribute
    WHERE attname = 'embedding_768' AND attrelid = 'text_summary'::regclass"""


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
