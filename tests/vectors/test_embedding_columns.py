"""What follows from the declaration of an embedding: names, precision, and the indexes that serve it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.embeddings import EMBEDDING
from syntegra_db.catalog import load_manifest
from syntegra_db.catalog.compare import serves_same_search
from syntegra_db.errors import InvalidSearchArgument, RebuildFailed
from syntegra_db.models import InvalidEmbedding, TextSummary
from syntegra_db.models.types import Embedding
from syntegra_db.vectors import nearest, rebuild_command
from syntegra_db.vectors._statements import text_embedding
from syntegra_db.vectors.maintenance import find_embedding
from syntegra_db.vectors.maintenance._spec import _choose_precision

EMBEDDINGS = load_manifest("003").tables["text_summary"].columns
COLUMNS = {**EMBEDDINGS, **{name: replace(EMBEDDINGS["embedding"], type="vector(768)") for name in ("second", "Two x")}}


def test_shipped_models_have_one_embedding() -> None:
    assert str(EMBEDDING) == "text_summary.embedding"
    assert (EMBEDDING.dimensions, EMBEDDING.method) == (384, "ivfflat")
    assert EMBEDDING.index_names == tuple(f"idx_text_summary_embedding{end}" for end in ("", "_new", "_old"))
    assert rebuild_command(EMBEDDING) == "syntegra-db vectors rebuild"
    assert {find_embedding(name) for name in (None, "embedding", "text_summary.embedding")} == {EMBEDDING}
    assert {text_embedding(name) for name in (None, "embedding")} == {EMBEDDING}


@pytest.mark.parametrize("index", ["i" * 63, "i" * 60])
def test_names_during_a_rebuild_are_short_enough_and_differ(index: str) -> None:
    names = replace(EMBEDDING, index=index).index_names
    assert len({name[:63] for name in names}) == 3
    assert max(map(len, names)) == 63


@pytest.mark.parametrize("name", ["", "other", "text_summary.embedding", "language", "metadata"])
def test_unknown_embedding_of_a_search_is_named(name: str) -> None:
    with pytest.raises(InvalidSearchArgument, match=r"an embedding; pass embedding='embedding'\.$"):
        nearest([1.0] * 384, embedding=name)


@pytest.mark.parametrize("name", ["", "other", "embedding.text_summary", "language"])
def test_unknown_embedding_of_a_rebuild_is_named(name: str) -> None:
    with pytest.raises(RebuildFailed, match=r"nothing was changed\. Name one of these: embedding\.$"):
        find_embedding(name)


@pytest.mark.parametrize(
    ("dimensions", "requested", "current", "expected"),
    [
        (2_000, None, False, False),
        (2_000, None, True, True),
        (2_000, False, True, False),
        (2_001, None, False, True),
        (4_000, True, False, True),
    ],
)
def test_precision_follows_from_the_dimensions(
    dimensions: int,
    requested: bool | None,  # noqa: FBT001  a parameter set
    current: bool,  # noqa: FBT001  a parameter set
    expected: bool,  # noqa: FBT001  a parameter set
) -> None:
    assert _choose_precision(replace(EMBEDDING, dimensions=dimensions), requested, is_half=current) is expected


@pytest.mark.parametrize(
    ("dimensions", "requested", "words"),
    [
        (2_001, False, "has 2,001 dimensions, but an index in full precision has at most 2,000; .* Use --half"),
        (4_001, None, "has 4,001 dimensions, but an index in half precision has at most 4,000; nothing was built.$"),
    ],
)
def test_too_many_dimensions_are_named(
    dimensions: int,
    requested: bool | None,  # noqa: FBT001  a parameter set
    words: str,
) -> None:
    with pytest.raises(RebuildFailed, match=words):
        _choose_precision(replace(EMBEDDING, dimensions=dimensions), requested, is_half=False)


@pytest.mark.parametrize(
    ("declared", "installed", "is_equivalent"),
    [
        ("hnsw (second vector_cosine_ops)", "ivfflat (second vector_cosine_ops) WITH (lists='30')", True),
        ("hnsw (second vector_cosine_ops)", "hnsw (((second)::halfvec(768)) halfvec_cosine_ops)", True),
        ("hnsw (((second)::halfvec(768)) halfvec_cosine_ops)", "hnsw (second vector_cosine_ops)", True),
        ('hnsw ("Two x" vector_cosine_ops)', 'hnsw ((("Two x")::halfvec(768)) halfvec_cosine_ops)', True),
        ("hnsw (second vector_cosine_ops)", "hnsw (((second)::halfvec(384)) halfvec_cosine_ops)", False),
        ("hnsw (second vector_cosine_ops)", "hnsw (embedding vector_cosine_ops)", False),
        ("hnsw (second vector_cosine_ops)", "hnsw (second vector_l2_ops)", False),
        ("hnsw (second vector_l2_ops)", "ivfflat (second vector_l2_ops)", False),
        ("btree (client_id)", "btree (client_id)", False),
    ],
)
def test_equivalent_index_has_the_same_column_and_dimensions(
    declared: str,
    installed: str,
    is_equivalent: bool,  # noqa: FBT001  a parameter set
) -> None:
    assert serves_same_search(declared, COLUMNS, installed) is is_equivalent


def test_types_of_other_dimensions_are_other_types() -> None:
    wide = Embedding(768)
    assert wide._static_cache_key != Embedding()._static_cache_key  # noqa: SLF001  SQLAlchemy's cache
    with pytest.raises(InvalidEmbedding, match=r"^An embedding takes 768 finite numbers; this vector has 384\.$"):
        wide.convert([1.0] * 384)
    with pytest.raises(InvalidEmbedding, match=r"^text_summary\.embedding takes 384 .* has 768\.$"):
        TextSummary(embedding=[1.0] * 768)
