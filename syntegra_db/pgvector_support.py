"""Facts about pgvector that several packages need: versions, names, operator classes and build memory."""

from __future__ import annotations

import re

VECTOR_INDEX = "idx_text_summary_embedding"
EMBEDDING_DIMENSIONS = 384
"""How many numbers the embedding of a text has."""
# The value says whether the index holds half-precision numbers.
COSINE_OPERATOR_CLASSES = {"vector_cosine_ops": False, "halfvec_cosine_ops": True}
# https://github.com/pgvector/pgvector/blob/master/CHANGELOG.md: before 0.3.1 inserts could corrupt an ivfflat index,
# before 0.4.0 numbers lost digits in text format; 0.5.0 brought hnsw, 0.7.0 halfvec, 0.8.0 iterative scans.
MIN_PGVECTOR = (0, 4)
HNSW_PGVECTOR = (0, 5)
HALFVEC_PGVECTOR = (0, 7)
ITERATIVE_SCAN_PGVECTOR = (0, 8)
# The share of the exact nearest rows that a search finds unless the caller asks for another.
DEFAULT_RECALL = 0.95
# The most dimensions of an index on `vector`, and on `halfvec`.
MAX_INDEX_DIMENSIONS = {False: 2_000, True: 4_000}
MEBIBYTE = 1 << 20
# pgvector 0.8.4 fails to build an index with less maintenance_work_mem, even on an empty table.
MIN_BUILD_MEMORY = 64 * MEBIBYTE
# From pgvector's ivfbuild.c.
SAMPLES_PER_LIST = 50
MIN_SAMPLES = 10_000
# Besides the vector. Measured at 200,000 rows with pgvector 0.8.5, m = 16 and 384 dimensions: rows whose graph fits
# into 64 MB.
GRAPH_BYTES_PER_ROW = {False: 806, True: 774}


def parse_version(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, such as (0, 8, 5) for `0.8.5`."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def vector_bytes(dimensions: int, *, is_half: bool) -> int:
    """Return the bytes of a `vector`, or of a `halfvec`."""
    return 8 + dimensions * (2 if is_half else 4)


def ivfflat_build_memory(lists: int, rows: int, dimensions: int, *, is_half: bool) -> int:
    """Return the bytes of `maintenance_work_mem` that pgvector requires to build an ivfflat index.

    The sum is that of its ivfbuild.c and ivfkmeans.c: 50 samples per list and at least 10,000, each with one distance
    per list. With 384 dimensions, 447 lists take 74 MB and 1,000 lists 273 MB; in half precision 57 MB and 235 MB.
    """
    vector = vector_bytes(dimensions, is_half=is_half)
    capacity = max(lists * SAMPLES_PER_LIST, MIN_SAMPLES)
    samples = min(capacity, rows)
    vectors = (2 * lists + capacity) * vector
    distances = 4 * (samples * lists + lists * lists + 2 * samples)
    centres = 4 * lists * (dimensions + 3)
    return vectors + distances + centres + MEBIBYTE


def hnsw_build_memory(rows: int, dimensions: int, *, is_half: bool) -> int:
    """Return the bytes of an hnsw graph during its build: with 384 dimensions 2.3 kB per row, or 1.5 kB.

    The part that does not fit into `maintenance_work_mem` is built on disk, many times slower.
    """
    return rows * (vector_bytes(dimensions, is_half=is_half) + GRAPH_BYTES_PER_ROW[is_half]) + 4 * MEBIBYTE
