"""Generate rows of text_summary around the real embeddings of corpus.py, and load them.

    python benchmarks/dataset.py --corpus FOLDER --database URL --rows 200000 [--index-first]

The database must be at the newest revision, with an empty text_summary. From Python: `read_corpus`, `held_out`,
`load_table`. The same corpus, number of rows and seed give the same rows.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import psycopg
from pgvector.psycopg import register_vector

from syntegra_db.connections import conninfo
from syntegra_db.settings import parse_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    from sqlalchemy.engine import URL

    Vectors: TypeAlias = npt.NDArray[np.float32]

# Length of the isotropic Gaussian noise that is added to a real embedding of length 1. A row then has a cosine
# similarity of 0.93 (0.92 to 0.94) with its real embedding, and of 0.86 with another row of the same sentence: rows are
# not duplicates, and 10 % of the real sentences have a nearer neighbour (median 0.78, 90th percentile 0.89).
# The tenth nearest neighbour of a held-out query has 0.68 among 200,000 rows, and 0.69 among the real sentences. The
# intrinsic dimension around a query (maximum likelihood, 20 nearest) is 30 instead of 22, so the search should be
# harder than among real rows. For almost every row, the nearest neighbour has 0.86 to 0.88; for real rows, 0.69 to
# 0.89. With 1,000,000 rows, each sentence has 19 rows, and the ten nearest to a query come from 2.3 sentences; with
# 200,000 rows, from 4.7.
NOISE = 0.4
# Rows of the clients that the benchmark searches, by id. A client with more than 25 % of all rows is omitted.
KNOWN_CLIENTS = {1: 20, 2: 200, 3: 2_000, 4: 20_000, 5: 50_000}
# The other clients have ids from 1001, by size. With 200,000 rows, 1001 has 20,339, 1006 has 3,389 and 1300 has 68.
OTHER_CLIENTS = 300
FIRST_OTHER_CLIENT = 1_001
SENTIMENTS = ("positive", "neutral", "negative")
LANGUAGE = "es"
CHUNK_ROWS = 10_000
QUERIES = 1000
SEED = 20_260_101
INDEX = "idx_text_summary_embedding"
COPY = "COPY text_summary (client_id, text_field, sentiment, language, embedding) FROM STDIN (FORMAT binary)"


@dataclass(frozen=True)
class Corpus:
    """Sentences and their embeddings, of unit length, shape (sentences, 384)."""

    sentences: list[str]
    embeddings: Vectors

    def __len__(self) -> int:
        return len(self.sentences)

    def part(self, positions: npt.NDArray[np.int64]) -> Corpus:
        """Return the sentences at `positions`, in that order."""
        return Corpus([self.sentences[position] for position in positions], self.embeddings[positions])


def read_corpus(folder: Path) -> Corpus:
    """Return the corpus that corpus.py wrote to `folder`.

    Raises:
        ValueError: the two files have different numbers of rows.
    """
    sentences = (folder / "sentences.txt").read_text(encoding="utf-8").splitlines()
    embeddings = np.load(folder / "embeddings.npy").astype(np.float32)
    if len(sentences) != len(embeddings):
        raise ValueError(
            f"{folder} has {len(sentences)} sentences and {len(embeddings)} embeddings; run corpus.py again"
        )
    return Corpus(sentences, unit(embeddings))


def unit(vectors: Vectors) -> Vectors:
    """Return `vectors`, shape (n, dimensions), each divided by its length."""
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths


def held_out(real: Corpus, queries: int = QUERIES, seed: int = SEED) -> tuple[Corpus, Corpus]:
    """Split `real` at random into the source of the rows and `queries` held-out queries."""
    order = np.random.default_rng([seed, 0]).permutation(len(real))
    return real.part(np.sort(order[queries:])), real.part(order[:queries])


def origins(real: int, rows: int, seed: int = SEED) -> npt.NDArray[np.int64]:
    """Return the position of the real embedding of each row; each one is used equally often, ±1."""
    return np.random.default_rng([seed, 1]).permutation(np.arange(rows) % real)


def chunks(real: Vectors, rows: int, seed: int = SEED) -> Iterator[Vectors]:
    """Yield the rows of `spread`, 10,000 at a time."""
    random = np.random.default_rng([seed, 2])
    centres = origins(len(real), rows, seed)
    deviation = np.float32(NOISE / np.sqrt(real.shape[1]))
    for start in range(0, rows, CHUNK_ROWS):
        vectors = real[centres[start : start + CHUNK_ROWS]]
        yield unit(vectors + deviation * random.standard_normal(vectors.shape, dtype=np.float32))


def spread(real: Vectors, rows: int, seed: int = SEED) -> Vectors:
    """Return `rows` vectors of unit length around those of `real`, shape (rows, dimensions)."""
    vectors = np.empty((rows, real.shape[1]), dtype=np.float32)
    for start, chunk in zip(range(0, rows, CHUNK_ROWS), chunks(real, rows, seed), strict=True):
        vectors[start : start + len(chunk)] = chunk
    return vectors


def client_sizes(rows: int) -> dict[int, int]:
    """Return the number of rows of each client by id: the known clients, then the others by Zipf's law."""
    known = {client: size for client, size in KNOWN_CLIENTS.items() if size <= rows // 4}
    rest = rows - sum(known.values())
    weights = 1 / np.arange(1, OTHER_CLIENTS + 1)
    # Differences of rounded cumulative sums add up to `rest`.
    others = np.diff(np.rint(rest * np.cumsum(weights) / weights.sum()).astype(np.int64), prepend=0)
    return known | {FIRST_OTHER_CLIENT + rank: int(size) for rank, size in enumerate(others)}


def clients(rows: int, seed: int = SEED) -> npt.NDArray[np.int64]:
    """Return the client of each row, in random order, so each client has texts on all topics."""
    sizes = client_sizes(rows)
    return np.random.default_rng([seed, 3]).permutation(np.repeat(list(sizes), list(sizes.values())))


def table_rows(real: Corpus, rows: int, seed: int = SEED) -> Iterator[tuple[int, str, str, str, Vectors]]:
    """Yield client, text, sentiment, language and embedding of each row; the text is the real sentence."""
    sentiments = np.random.default_rng([seed, 4]).choice(SENTIMENTS, rows).tolist()
    texts = (real.sentences[origin] for origin in origins(len(real), rows, seed).tolist())
    vectors = (vector for chunk in chunks(real.embeddings, rows, seed) for vector in chunk)
    for client, text, sentiment, vector in zip(clients(rows, seed).tolist(), texts, sentiments, vectors, strict=True):
        yield client, text, sentiment, LANGUAGE, vector


def load_table(url: URL, real: Corpus, rows: int, seed: int = SEED, *, index_first: bool) -> None:
    """Load the empty text_summary of the migrated database at `url` with binary COPY, then VACUUM and ANALYZE it.

    With `index_first`, the rows are inserted into the vector index of the migration, which was built on an empty
    table: the state of a service that migrates and then loads. Otherwise, the index is dropped first.

    Raises:
        ValueError: the table is not empty.
    """
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        register_vector(connection)
        if connection.execute("SELECT FROM text_summary LIMIT 1").rowcount:
            raise ValueError("text_summary is not empty; the benchmark needs an empty table")
        if not index_first:
            connection.execute(f"DROP INDEX IF EXISTS {INDEX}")
        with connection.cursor().copy(COPY) as copy:
            copy.set_types(("int8", "text", "varchar", "varchar", "vector"))
            for row in table_rows(real, rows, seed):
                copy.write_row(row)
        # Without VACUUM, an index-only scan would read the table for each row.
        connection.execute("VACUUM (ANALYZE) text_summary")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="directory written by corpus.py")
    parser.add_argument(
        "--database", type=parse_url, required=True, help="URL of a migrated database with an empty text_summary"
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--index-first", action="store_true", help="keep the index of the migration during the load")
    arguments = parser.parse_args()
    rest, _ = held_out(read_corpus(arguments.corpus))
    load_table(arguments.database, rest, arguments.rows, index_first=arguments.index_first)
