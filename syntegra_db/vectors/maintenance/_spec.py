"""Which index a rebuild builds: the options, the current index and the memory limit decide."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from syntegra_db.errors import InsufficientResources, RebuildFailed
from syntegra_db.models.embeddings import declared_embeddings
from syntegra_db.pgvector_support import MAX_INDEX_DIMENSIONS
from syntegra_db.vectors._index import read_primary_index
from syntegra_db.vectors.maintenance import _resources
from syntegra_db.vectors.maintenance._resources import IndexSpec, ResourceEstimate, format_megabytes

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syntegra_db.models.embeddings import EmbeddingColumn, Method

logger = logging.getLogger(__name__)


class RebuildOptions(NamedTuple):
    """The index to build; None keeps the method and precision of the current index, or takes the default.

    `lists` without a method builds an ivfflat index. `memory` is the limit in bytes, `workers` the number of parallel
    workers.
    """

    method: Method | None = None
    lists: int | None = None
    half: bool | None = None
    memory: int | None = None
    workers: int = 2


def choose_spec(
    connection: Connection, embedding: EmbeddingColumn, options: RebuildOptions, rows: int
) -> tuple[IndexSpec, ResourceEstimate]:
    """Return the index to build, with fewer lists if memory is short, and the resources that it takes.

    Raises:
        InsufficientResources: no number of lists fits into the memory limit.
        RebuildFailed: no index of this precision has as many dimensions as the embedding.
    """
    current = read_primary_index(connection, embedding)
    declared = "ivfflat" if options.lists else embedding.method
    method = options.method or (declared if options.lists or current is None else current.method)
    half = _choose_precision(embedding, options.half, is_half=current is not None and current.is_half)
    limit = options.memory or connection.scalars(_resources.DEFAULT_MEMORY_LIMIT).one()
    list_counts = [options.lists] if options.lists else _resources.list_count_candidates(rows)
    for lists in [0] if method == "hnsw" else list_counts:
        spec = IndexSpec(method, lists, half)
        resources = _resources.estimate_resources(
            spec, rows, embedding.dimensions, memory_limit=limit, workers=options.workers
        )
        if method == "hnsw" or resources.needed <= limit:
            return spec, resources
    source = "that --memory allows" if options.memory else "of the default limit, 25 % of effective_cache_size"
    raise InsufficientResources(
        f"Building an {spec} takes {format_megabytes(resources.needed)} of memory, more than the "
        f"{format_megabytes(limit)} {source}; nothing was built. Allow more with --memory, or build a smaller index "
        "with fewer --lists or with --half."
    )


def _choose_precision(embedding: EmbeddingColumn, requested: bool | None, *, is_half: bool) -> bool:  # noqa: FBT001  the option
    """Return whether to build in half precision: as requested, else as `is_half`, or if no other can be built."""
    half = requested if requested is not None else is_half or embedding.dimensions > MAX_INDEX_DIMENSIONS[False]
    limit = MAX_INDEX_DIMENSIONS[half]
    if embedding.dimensions > limit:
        precision, advice = ("half", "") if half else ("full", " Use --half.")
        raise RebuildFailed(
            f"{embedding} has {embedding.dimensions:,} dimensions, but an index in {precision} precision has at most "
            f"{limit:,}; nothing was built.{advice}"
        )
    return half


def log_plan(embedding: EmbeddingColumn, spec: IndexSpec, resources: ResourceEstimate, rows: int) -> None:
    logger.info(
        "Building an %s on %s embeddings%s, with up to %s of memory, and about %s of disk alongside the current index",
        spec,
        f"{rows:,}",
        f" of {embedding}" if len(declared_embeddings()) > 1 else "",
        format_megabytes(resources.memory),
        format_megabytes(resources.disk),
    )
    if resources.needed > resources.memory:
        logger.warning(
            "The graph takes %s of memory; the part beyond %s is built on disk, many times slower. Allow more with "
            "--memory",
            format_megabytes(resources.needed),
            format_megabytes(resources.memory),
        )
