"""The statements of a similarity search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import ColumnElement, Double, Select, cast, literal, select

from syntegra_db.errors import SyntegraDBError
from syntegra_db.models import EMBEDDING_DIMENSIONS, InvalidEmbedding, TextSummary
from syntegra_db.models.types import Embedding, check_embedding

if TYPE_CHECKING:
    from datetime import datetime

    from pgvector import Vector

    from syntegra_db.models import EmbeddingVector

FARTHEST = 2


class InvalidSearch(SyntegraDBError, ValueError):
    """An argument of a search that means nothing."""


@dataclass(frozen=True)
class Filters:
    """Which texts a search is about; None lets all pass."""

    client_id: int | None = None
    sentiment: str | None = None
    language: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        if self.since is not None and self.since.tzinfo is None:
            raise InvalidSearch(f"since={self.since.isoformat()} names no time zone; give it a tzinfo.")

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions of a WHERE, that there is an embedding to compare with first."""
        columns = {
            TextSummary.client_id: self.client_id,
            TextSummary.sentiment: self.sentiment,
            TextSummary.language: self.language,
        }
        conditions: list[ColumnElement[bool]] = [TextSummary.embedding.is_not(None)]
        conditions += [column == value for column, value in columns.items() if value is not None]
        if self.since is not None:
            conditions.append(TextSummary.created_at >= self.since)
        return conditions


def nearest(  # noqa: PLR0913  what a search can be narrowed by, each by name
    embedding: EmbeddingVector,
    *,
    client_id: int | None = None,
    sentiment: str | None = None,
    language: str | None = None,
    since: datetime | None = None,
    limit: int = 10,
    max_distance: float | None = None,
) -> Select[TextSummary, float]:
    """Return the statement that selects the texts nearest to `embedding` with their cosine distance, nearest first.

    It runs like any other statement, with the settings that its session has: whether it finds the true nearest is the
    matter of `ivfflat.probes` or `hnsw.ef_search`. `search` sets them.

    Args:
        embedding: 384 finite numbers, not all of them 0.
        client_id: only texts of this client.
        sentiment: only texts with this sentiment, such as `negative`.
        language: only texts in this language, an ISO 639-1 code.
        since: only texts inserted then or later; a datetime with a time zone.
        limit: so many texts at most.
        max_distance: only texts at most this far, on the scale of cosine distance: 0 is the same direction, 1 at right
            angles, 2 the opposite one.

    Raises:
        InvalidEmbedding: another length, NaN, an infinity, or only zeros.
        InvalidSearch: a limit below 1, a `max_distance` beyond its scale, a time without a zone.
    """
    check_bounds(limit, max_distance)
    distance = cosine_distance(direction(embedding))
    conditions = Filters(client_id, sentiment, language, since).conditions()
    if max_distance is not None:
        conditions.append(distance <= max_distance)
    labelled = distance.label("distance")
    return select(TextSummary, labelled).where(*conditions).order_by(labelled).limit(limit)


def check_bounds(limit: int, max_distance: float | None) -> None:
    """Refuse what no search can mean.

    Raises:
        InvalidSearch: a limit below 1, or a `max_distance` that is not between 0 and 2.
    """
    if limit < 1:
        raise InvalidSearch(f"limit={limit} asks for no row; give 1 or more.")
    if max_distance is not None and not 0 <= max_distance <= FARTHEST:
        raise InvalidSearch(f"max_distance={max_distance} is no cosine distance; give 0 to {FARTHEST}.")


def direction(embedding: EmbeddingVector) -> Vector:
    """Return `embedding` as a vector that a cosine distance can be taken from.

    Raises:
        InvalidEmbedding: another length, NaN, an infinity, or only zeros.
    """
    vector = check_embedding(embedding)
    if not any(vector.to_list()):
        raise InvalidEmbedding("A vector of zeros has no direction, so that nothing is near to it; embed a text.")
    return vector


def cosine_distance(vector: Vector) -> ColumnElement[float]:
    """Return the cosine distance of `text_summary.embedding`, 0 to 2, in the form that a `vector` index serves."""
    return TextSummary.embedding.op("<=>", return_type=Double())(vector)


def exact_order(vector: Vector) -> ColumnElement[float]:
    """Return what to order by so that no vector index serves it: the planner does not look through an addition."""
    return cosine_distance(vector) + 0


def index_order(vector: Vector, *, is_half: bool) -> ColumnElement[float]:
    """Return what to order by so that the vector index serves it, or the one in half precision."""
    if not is_half:
        return cosine_distance(vector)
    half = HALFVEC(EMBEDDING_DIMENSIONS)
    query = cast(literal(vector, Embedding()), half)
    return cast(TextSummary.embedding, half).op("<=>", return_type=Double())(query)
