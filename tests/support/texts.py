"""Texts with clustered embeddings, like those of sentences, and their exact nearest neighbours."""

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
    """The rows that `load_texts` loaded, row i with the id i + 1, and query vectors of the same clusters."""

    embeddings: Vectors
    clients: npt.NDArray[np.int64]
    sentiments: npt.NDArray[np.str_]
    queries: Vectors

    def nearest(self, query: Vectors, mask: npt.NDArray[np.bool_] | None = None, limit: int = 10) -> list[int]:
        """The ids of the `limit` rows nearest to `query` by cosine distance, among the rows in `mask`."""
        similarity = self.embeddings @ query
        if mask is not None:
            similarity = np.where(mask, similarity, -np.inf)
        return [int(row) + 1 for row in np.argsort(-similarity)[:limit]]


def clustered_vectors(random: np.random.Generator, rows: int) -> Vectors:
    """Unit vectors, each near one of `CLUSTERS` centres, shape (rows, 384)."""
    centres = np.random.default_rng(5).normal(size=(CLUSTERS, 384))
    vectors = centres[random.integers(CLUSTERS, size=rows)] + random.normal(scale=0.8, size=(rows, 384))
    units: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return units


def load_texts(database: Database, rows: int, clients: dict[int, int], seed: int = 1) -> Texts:
    """Load `rows` texts, the given number for each of `clients` and the others for client 0; 2 % are negative."""
    random = np.random.default_rng(seed)
    owners = np.zeros(rows, dtype=np.int64)
    owners[: sum(clients.values())] = np.repeat(list(clients), list(clients.values()))
    random.shuffle(owners)
    sentiments = np.where(random.random(rows) < 0.02, "negative", "neutral")
    texts = Texts(clustered_vectors(random, rows), owners, sentiments, clustered_vectors(random, 50))
    columns = "client_id, text_field, sentiment, embedding"
    with database.connect() as connection:
        register_vector(connection)
        # VACUUM marks a page all-visible only after the commit of its rows has reached the disk.
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
