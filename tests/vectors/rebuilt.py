"""The kinds of index that rebuilds are tried with, and what stands afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from syntegra_db.vectors.building import find_indexes
from syntegra_db.vectors.index import VECTOR_INDEX, VectorIndex, read_index
from syntegra_db.vectors.rebuilding import Wish
from syntegra_db.vectors.sizing import Kind

if TYPE_CHECKING:
    from servers import Database


ROWS = 3_000
FILLED = "syntegra_test_rebuild_filled"
QUICKLY = 0.5
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


def wish(kind: Kind, **others: Any) -> Wish:
    return Wish(kind.method, kind.lists or None, kind.is_half, **others)


def standing(database: Database) -> VectorIndex:
    """The index that stands, which must be the only one."""
    with database.engine.connect() as connection:
        assert find_indexes(connection) == {VECTOR_INDEX: True}
        index = read_index(connection)
    assert index is not None
    return index
