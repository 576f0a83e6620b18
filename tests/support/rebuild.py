"""The indexes that tests rebuild, and the one that is installed afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from support.embeddings import EMBEDDING
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors._index import VectorIndex, read_primary_index
from syntegra_db.vectors.maintenance import RebuildOptions
from syntegra_db.vectors.maintenance._build import index_validity
from syntegra_db.vectors.maintenance._resources import IndexSpec

if TYPE_CHECKING:
    from support.servers import Database


ROWS = 3_000
TEMPLATE = "syntegra_test_rebuild_template"
QUICK = 0.5
INSERT: LiteralString = """INSERT INTO text_summary (client_id, text_field, embedding)
    SELECT 1, 'a', embedding FROM text_summary WHERE id = 1"""
SPECS = [
    (IndexSpec("ivfflat", 30, is_half=False), "ivfflat (embedding vector_cosine_ops) WITH (lists='30')"),
    (
        IndexSpec("ivfflat", 30, is_half=True),
        "ivfflat (((embedding)::halfvec(384)) halfvec_cosine_ops) WITH (lists='30')",
    ),
    (IndexSpec("hnsw", 0, is_half=False), "hnsw (embedding vector_cosine_ops) WITH (ef_construction='128')"),
    (
        IndexSpec("hnsw", 0, is_half=True),
        "hnsw (((embedding)::halfvec(384)) halfvec_cosine_ops) WITH (ef_construction='128')",
    ),
]


def options_for(spec: IndexSpec, **others: Any) -> RebuildOptions:
    return RebuildOptions(spec.method, spec.lists or None, spec.is_half, **others)


def only_index(database: Database) -> VectorIndex:
    """The installed index, which must be the only one."""
    with database.engine.connect() as connection:
        assert index_validity(connection, EMBEDDING) == {VECTOR_INDEX: True}
        index = read_primary_index(connection, EMBEDDING)
    assert index is not None
    return index
