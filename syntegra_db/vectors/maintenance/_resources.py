"""Memory and disk that the build of a vector index takes."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from syntegra_db.pgvector_support import (
    EMBEDDING_DIMENSIONS,
    MEBIBYTE,
    hnsw_build_memory,
    ivfflat_build_memory,
    vector_bytes,
)

if TYPE_CHECKING:
    from syntegra_db.models.embeddings import Method

# PostgreSQL starts a parallel worker of an index build only if each process gets this much of maintenance_work_mem.
WORKER_MEMORY = 32 * MEBIBYTE
# pgvector's maximum.
MAX_LISTS = 32_768
ROWS_PER_LIST = 1_000
# effective_cache_size is the estimated memory that caches data, so a build that takes 25 % of it displaces cached data,
# not processes.
DEFAULT_MEMORY_LIMIT = text("""
    SELECT greatest(pg_size_bytes(current_setting('maintenance_work_mem')),
                    pg_size_bytes(current_setting('effective_cache_size')) / 4)
""")
# Measured at 200,000 rows with pgvector 0.8.5, m = 16 and 384 dimensions, by method and half precision.
INDEX_BYTES_PER_ROW = {
    ("ivfflat", False): 1_650,
    ("ivfflat", True): 830,
    ("hnsw", False): 2_050,
    ("hnsw", True): 1_370,
}
# An entry does not continue on the next page. It has this many bytes besides its vector; hnsw with m = 16.
PAGE_BYTES = 8_152
ENTRY_BYTES: dict[Method, int] = {"ivfflat": 12, "hnsw": 280}
# An ivfflat build sorts the rows by list in temporary files, with this many bytes per row besides the vector.
SORT_BYTES = 56


@dataclass(frozen=True)
class IndexSpec:
    """The index to build; `lists` is 0 for hnsw."""

    method: Method
    lists: int
    is_half: bool

    def __str__(self) -> str:
        lists = f" with {self.lists:,} lists" if self.lists else ""
        return f"{self.method} index in half precision{lists}" if self.is_half else f"{self.method} index{lists}"


class ResourceEstimate(NamedTuple):
    """Memory and disk of a build, in bytes.

    `memory` is its `maintenance_work_mem`. `needed` is the minimum for an ivfflat index; an hnsw graph larger than
    `memory` is built on disk. `disk` is the new index and the temporary files of its build.
    """

    memory: int
    needed: int
    disk: int


def list_count_candidates(rows: int) -> list[int]:
    """Return the numbers of lists to try if memory is short: 2√rows, √rows, and the less of rows / 1000 and √rows / 2.

    At 200,000 rows, a recall of 0.95 takes 13 % of 447 lists, 5.5 % of 900 and 4.9 % of 1,400: 27, 11 and 10 ms per
    search. k-means takes 5 s, 29 s and 60 s.
    """
    root = isqrt(rows)
    candidates = (2 * root, root, min(rows // ROWS_PER_LIST, root // 2))
    return [min(max(lists, 1), max(rows, 1), MAX_LISTS) for lists in candidates]


def estimate_resources(
    spec: IndexSpec, rows: int, dimensions: int, *, memory_limit: int, workers: int
) -> ResourceEstimate:
    """Return what building `spec` on `rows` embeddings takes; `memory_limit` is in bytes."""
    growth = _rows_per_page(spec, EMBEDDING_DIMENSIONS) / _rows_per_page(spec, dimensions)
    disk = round(rows * INDEX_BYTES_PER_ROW[spec.method, spec.is_half] * growth)
    if spec.method == "hnsw":
        needed = hnsw_build_memory(rows, dimensions, is_half=spec.is_half)
    else:
        needed = ivfflat_build_memory(spec.lists, rows, dimensions, is_half=spec.is_half)
        disk += rows * (vector_bytes(dimensions, is_half=spec.is_half) + SORT_BYTES)
    return ResourceEstimate(min(max(needed, WORKER_MEMORY * (workers + 1)), memory_limit), needed, disk)


def _rows_per_page(spec: IndexSpec, dimensions: int) -> int:
    entry = ENTRY_BYTES[spec.method] + vector_bytes(dimensions, is_half=spec.is_half)
    return max(1, PAGE_BYTES // entry)


def format_megabytes(count: int) -> str:
    """Return a number of bytes in MB, as in PostgreSQL's settings."""
    return f"{max(1, round(count / MEBIBYTE)):,} MB"
