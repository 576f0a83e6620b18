"""How large an index of embeddings becomes, and whether the server has the room to build it."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, NamedTuple

from syntegra_db.errors import InsufficientResources
from syntegra_db.models import EMBEDDING_DIMENSIONS
from syntegra_db.pgvector_support import MEBIBYTE, hnsw_build_memory, ivfflat_build_memory
from syntegra_db.vectors.maintenance._server_resources import free_disk, free_memory

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syntegra_db.vectors._index import Method

# PostgreSQL grants a parallel worker to an index build only where each process has so much of maintenance_work_mem.
MEMORY_OF_A_WORKER = 32 * MEBIBYTE
# What a build may take of the memory that is free by the kernel's own estimate.
SHARE_OF_FREE_MEMORY = 0.8
# pgvector's own limits.
MAX_LISTS = 32_768
ROWS_OF_A_LIST = 1_000

# Measured at 200,000 rows with pgvector 0.8.5, m = 16 and 384 dimensions, by method and half precision.
# An index on disk, and the rows that an ivfflat build sorts by list in temporary files.
INDEX_BYTES_OF_A_ROW = {
    ("ivfflat", False): 1_650,
    ("ivfflat", True): 830,
    ("hnsw", False): 2_050,
    ("hnsw", True): 1_370,
}
SORTED_BYTES_OF_A_ROW = {False: 1_600, True: 830}


class IndexSpec(NamedTuple):
    """What is to be built; `lists` is 0 for hnsw."""

    method: Method
    lists: int
    is_half: bool

    def __str__(self) -> str:
        lists = f" with {self.lists:,} lists" if self.lists else ""
        return f"{self.method} index in half precision{lists}" if self.is_half else f"{self.method} index{lists}"


@dataclass(frozen=True)
class ResourceEstimate:
    """What a build takes, and what the server has, in bytes; None where this role, or this machine, cannot see it.

    `memory` is what it asks the server for (`maintenance_work_mem`), `needed` what k-means cannot do without, or what
    an hnsw graph takes to stay in memory. `disk` is the new index beside the old one, and the files that its build
    sorts.
    """

    memory: int
    needed: int
    disk: int
    free_memory: int | None
    free_disk: int | None


def list_count_candidates(rows: int) -> list[int]:
    """Return 2√rows lists, and for want of memory fewer: √rows, then rows / 1000 or √rows / 2, whichever is less.

    At 200,000 rows, a recall of .95 takes .13 of 447 lists, .055 of 900 and .049 of 1,400, and so 27, 11 and 10 ms a
    search; k-means takes 5 s, 29 s and 60 s.
    """
    root = isqrt(rows)
    wanted = (2 * root, root, min(rows // ROWS_OF_A_LIST, root // 2))
    return [min(max(lists, 1), max(rows, 1), MAX_LISTS) for lists in wanted]


def disk_space(kind: IndexSpec, rows: int) -> int:
    """Return the bytes that a build takes on disk, besides the old index that stays until the new one works.

    A row takes 1.65 kB in an ivfflat index and 2.05 kB in an hnsw index; in half precision .83 and 1.37 kB.
    An ivfflat build sorts as much again in temporary files.
    """
    index = rows * INDEX_BYTES_OF_A_ROW[kind.method, kind.is_half]
    return index + (rows * SORTED_BYTES_OF_A_ROW[kind.is_half] if kind.method == "ivfflat" else 0)


def estimate_resources(  # noqa: PLR0913  what is built, and on what terms
    connection: Connection,
    kind: IndexSpec,
    rows: int,
    *,
    memory: int | None,
    workers: int,
    tablespace: str | None = None,
) -> ResourceEstimate:
    """Return what building `kind` on `rows` embeddings takes here, in `tablespace` where it is not the database's.

    `memory` caps it, in bytes.
    """
    if kind.method == "hnsw":
        needed = hnsw_build_memory(rows, is_half=kind.is_half)
    else:
        needed = ivfflat_build_memory(kind.lists, rows, EMBEDDING_DIMENSIONS, is_half=kind.is_half)
    wanted = max(needed, MEMORY_OF_A_WORKER * (workers + 1))
    return ResourceEstimate(
        memory=wanted if memory is None else min(wanted, memory),
        needed=needed,
        disk=disk_space(kind, rows),
        free_memory=free_memory(connection),
        free_disk=free_disk(connection) if tablespace is None else None,
    )


def fits_memory(kind: IndexSpec, room: ResourceEstimate) -> bool:
    """Tell whether the memory that a build takes is there, as far as can be seen, and enough."""
    is_enough = kind.method == "hnsw" or room.memory >= room.needed
    return is_enough and (room.free_memory is None or room.memory <= room.free_memory * SHARE_OF_FREE_MEMORY)


def require_resources(kind: IndexSpec, room: ResourceEstimate) -> None:
    """Return if there is room as far as can be seen.

    Raises:
        RoomMissing: not enough memory or disk; the message says how much there is, and what would do with less.
    """
    if kind.method == "ivfflat" and room.memory < room.needed:
        raise InsufficientResources(
            f"An {kind} takes {format_megabytes(room.needed)} of memory, more than the "
            f"{format_megabytes(room.memory)} that --memory allows, and nothing was built. Allow more, or ask for "
            "fewer lists with --lists."
        )
    if room.free_memory is not None and room.memory > room.free_memory * SHARE_OF_FREE_MEMORY:
        less = "--half or fewer --lists" if kind.method == "ivfflat" else "--half, or --method ivfflat, or --memory"
        raise InsufficientResources(
            f"Building an {kind} takes {format_megabytes(room.memory)} of memory, the server has "
            f"{format_megabytes(room.free_memory)} available, and nothing was built. Take less with {less}, or free "
            f"some."
        )
    if room.free_disk is not None and room.disk > room.free_disk:
        raise InsufficientResources(
            f"Building an {kind} takes {format_megabytes(room.disk)} of disk beside the old index, the server has "
            f"{format_megabytes(room.free_disk)} free, and nothing was built. Make room, or take less with --half."
        )


def format_megabytes(count: int) -> str:
    """Return bytes in MB, as PostgreSQL's settings count them."""
    return f"{max(1, round(count / MEBIBYTE)):,} MB"
