"""Memory and disk of a build."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from support.texts import load_texts
from syntegra_db.models import EMBEDDING_DIMENSIONS
from syntegra_db.pgvector_support import MEBIBYTE, hnsw_build_memory, ivfflat_build_memory, vector_bytes
from syntegra_db.vectors.maintenance._resources import (
    SORT_BYTES,
    IndexSpec,
    estimate_resources,
    list_count_candidates,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database, Server


pytestmark = pytest.mark.slow
ROWS = 4_000


@pytest.fixture(scope="module")
def loaded(server: Server, migrated_template: str) -> Iterator[Database]:
    with server.database(migrated_template, name="syntegra_test_sizing") as database:
        load_texts(database, ROWS, {})
        yield database


def test_ivfflat_memory_is_the_minimum_of_the_server(loaded: Database) -> None:
    needed = ivfflat_build_memory(100, ROWS, EMBEDDING_DIMENSIONS, is_half=False)
    create = "CREATE INDEX try ON text_summary USING ivfflat (embedding vector_cosine_ops) WITH (lists = 100)"
    with loaded.connect() as connection:
        connection.execute(f"SET maintenance_work_mem = '{(needed - 3 * MEBIBYTE) // 1024}kB'".encode())
        with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="memory required"):
            connection.execute(create)
        connection.execute(f"SET maintenance_work_mem = '{needed // 1024}kB'".encode())
        connection.execute(create)
        connection.execute("DROP INDEX try")


@pytest.mark.parametrize("dimensions", [EMBEDDING_DIMENSIONS, 768, 1_536])
@pytest.mark.parametrize(
    "spec",
    [
        IndexSpec("ivfflat", 40, is_half=False),
        IndexSpec("ivfflat", 40, is_half=True),
        IndexSpec("hnsw", 0, is_half=False),
        IndexSpec("hnsw", 0, is_half=True),
    ],
)
def test_memory_and_disk_match_a_build(loaded: Database, spec: IndexSpec, dimensions: int) -> None:
    vector = " || ".join(["embedding"] * (dimensions // EMBEDDING_DIMENSIONS))
    loaded.execute(
        f"DROP TABLE IF EXISTS wide; CREATE TABLE wide AS SELECT ({vector})::vector({dimensions}) AS embedding"
        " FROM text_summary"
    )
    half = f"((embedding::halfvec({dimensions})) halfvec_cosine_ops)"
    column = half if spec.is_half else "(embedding vector_cosine_ops)"
    options = f" WITH (lists = {spec.lists})" if spec.lists else ""
    memory = hnsw_build_memory(ROWS, dimensions, is_half=spec.is_half) if spec.method == "hnsw" else 64 * MEBIBYTE
    notices: list[str | None] = []
    with loaded.connect() as connection:
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        connection.execute(f"SET maintenance_work_mem = '{memory // 1024}kB'".encode())
        connection.execute(f"CREATE INDEX try ON wide USING {spec.method} {column}{options}".encode())
        (size,) = connection.execute("SELECT pg_relation_size('try')").fetchone() or (0,)
        connection.execute("DROP INDEX try")
    # The server prints a notice if an hnsw graph does not fit.
    assert notices == []
    expected = estimate_resources(spec, ROWS, dimensions, memory_limit=memory, workers=0).disk
    if spec.method == "ivfflat":
        expected -= ROWS * (vector_bytes(dimensions, is_half=spec.is_half) + SORT_BYTES)
    assert 0.8 * expected < size < 1.2 * expected


def test_list_counts_depend_on_rows() -> None:
    assert [list_count_candidates(rows) for rows in (1, 200_000, 4_000_000, 10**10)] == [
        [1, 1, 1],
        [894, 447, 200],
        [4_000, 2_000, 1_000],
        [32_768] * 3,
    ]
