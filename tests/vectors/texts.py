"""Texts with embeddings in clusters, as sentences have them, and the true nearest among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pgvector.psycopg import register_vector

if TYPE_CHECKING:
    import numpy.typing as npt

    from support.servers import Database

    Vectors = npt.NDArray[np.float32]

CLUSTERS = 300


@dataclass(frozen=True)
class Texts:
    """What `fill` has put in, row i with the id i + 1, and vectors of the same kind to ask with."""

    embeddings: Vectors
    clients: npt.NDArray[np.int64]
    sentiments: npt.NDArray[np.str_]
    queries: Vectors

    def nearest(self, query: Vectors, mask: npt.NDArray[np.bool_] | None = None, limit: int = 10) -> list[int]:
        """The ids of the `limit` rows nearest to `query` by cosine distance, of those that `mask` lets pass."""
        similarity = self.embeddings @ query
        if mask is not None:
            similarity = np.where(mask, similarity, -np.inf)
        return [int(row) + 1 for row in np.argsort(-similarity)[:limit]]


def clustered(random: np.random.Generator, rows: int) -> Vectors:
    """Unit vectors near to one of `CLUSTERS` centres each, shape (rows, 384)."""
    centres = np.random.default_rng(5).normal(size=(CLUSTERS, 384))
    vectors = centres[random.integers(CLUSTERS, size=rows)] + random.normal(scale=0.8, size=(rows, 384))
    units: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return units


def fill(database: Database, rows: int, clients: dict[int, int], seed: int = 1) -> Texts:
    """Load `rows` texts, so many of each of `clients` and the others of client 0; one in fifty is negative."""
    random = np.random.default_rng(seed)
    owners = np.zeros(rows, dtype=np.int64)
    owners[: sum(clients.values())] = np.repeat(list(clients), list(clients.values()))
    random.shuffle(owners)
    sentiments = np.where(random.random(rows) < 0.02, "negative", "neutral")
    texts = Texts(clustered(random, rows), owners, sentiments, clustered(random, 50))
    columns = "client_id, text_field, sentiment, embedding"
    with database.connect() as connection:
        register_vector(connection)
        # VACUUM marks no page all-visible before the commit of its rows has reached the disk.
        connection.execute("SET synchronous_commit = on")
        with connection.cursor().copy(f"COPY text_summary ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "text", "varchar", "vector"])
            for row in zip(owners.tolist(), sentiments, sentiments, texts.embeddings, strict=True):
                copy.write_row(_plain(row))
        connection.execute("VACUUM ANALYZE text_summary")
    return texts


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    client, text, sentiment, embedding = row
    return client, str(text), str(sentiment), embedding
