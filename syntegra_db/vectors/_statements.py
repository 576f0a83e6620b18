"""SQL statements of a similarity search, and the validation of its arguments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from math import hypot
from operator import index as to_int
from typing import TYPE_CHECKING, Any

from pgvector import Vector
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Double,
    Integer,
    Select,
    bindparam,
    cast,
    literal,
    literal_column,
    select,
    text,
)

from syntegra_db.errors import InvalidSearchArgument
from syntegra_db.models import EMBEDDING_DIMENSIONS, InvalidEmbedding, TextSummary
from syntegra_db.models.types import Embedding, embedding_to_floats
from syntegra_db.sql import qualify, qualify_operator

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import BindParameter, TextClause

    from syntegra_db.models import EmbeddingInput

MAX_COSINE_DISTANCE = 2.0
BIGINT_LIMIT = 2**63
FILTER_CONDITIONS: dict[str, Callable[[Any], ColumnElement[bool]]] = {
    "client_id": lambda value: TextSummary.client_id == value,
    "sentiment": lambda value: TextSummary.sentiment == value,
    "language": lambda value: TextSummary.language == value,
    "since": lambda value: TextSummary.created_at >= value,
}


@dataclass(frozen=True)
class Filters:
    """Conditions on the texts that a search returns; None is no condition."""

    client_id: int | None = None
    sentiment: str | None = None
    language: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        if self.client_id is not None:
            validate_bigint("client_id", self.client_id)
        for name in ("sentiment", "language"):
            if not isinstance(getattr(self, name), str | None):
                raise InvalidSearchArgument(f"{name} is of type {type(getattr(self, name)).__name__}; pass a str.")
        if not isinstance(self.since, datetime | None):
            raise InvalidSearchArgument(
                f"since is of type {type(self.since).__name__}; pass a datetime with a time zone."
            )
        if self.since is not None and self.since.tzinfo is None:
            raise InvalidSearchArgument(f"since={self.since.isoformat()} has no time zone; pass one with a tzinfo.")

    def as_parameters(self) -> dict[str, Any]:
        """Return the conditions that are not None, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


def nearest(  # noqa: PLR0913  one keyword per filter
    embedding: EmbeddingInput,
    *,
    client_id: int | None = None,
    sentiment: str | None = None,
    language: str | None = None,
    since: datetime | None = None,
    limit: int = 10,
    max_distance: float | None = None,
) -> Select[TextSummary, float]:
    """Return the statement that selects the texts nearest to `embedding` with their cosine distance, nearest first.

    The arguments are those of `search`. The statement runs with the session's settings: its recall depends on
    `ivfflat.probes` or `hnsw.ef_search`, and it cannot use an index in half precision. `search` handles both.

    Raises:
        InvalidEmbedding: not 384 numbers, or NaN, infinite, or all zero.
        InvalidSearchArgument: an argument has the wrong type or is out of range.
    """
    validate_bounds(limit, max_distance)
    distance = cosine_distance(literal(normalize(embedding), Embedding()))
    conditions = _conditions(Filters(client_id, sentiment, language, since).as_parameters())
    if max_distance is not None:
        conditions.append(distance <= max_distance)
    labelled = distance.label("distance")
    return select(TextSummary, labelled).where(*conditions).order_by(labelled).limit(limit)


@lru_cache
def index_statement(
    filters: tuple[str, ...], extension_schema: str | None = None, *, is_half: bool
) -> Select[TextSummary, float]:
    """Return the search that uses an index on the embeddings, or an index in half precision.

    It names the schema of pgvector's operators unless that is None. Its parameters are `query`, `limit` and the names
    in `filters`. It is cached, so SQLAlchemy finds the compiled SQL without traversing the statement again.
    """
    query = query_parameter()
    distance = cosine_distance(query, extension_schema)
    order = half_cosine_distance(query, extension_schema) if is_half else distance
    statement = select(TextSummary, distance).where(*_bind_conditions(filters))
    return statement.order_by(order).limit(bindparam("limit"))


@lru_cache
def exact_statement(filters: tuple[str, ...], extension_schema: str | None = None) -> Select[TextSummary, float]:
    """Return the exact search over all rows that pass the filters, with the same parameters.

    It sorts ids and distances only, and fetches the rows at the end. That takes 60 % of the time for a client of
    20,000 rows, and an index on (client_id) INCLUDE (id, embedding) serves all but the last step.
    """
    # The addition keeps the planner from using a vector index; that of equal types is always pg_catalog's.
    distance = (cosine_distance(query_parameter(), extension_schema) + cast(0, Double())).label("distance")
    candidates = select(TextSummary.id, distance).where(*_bind_conditions(filters))
    nearest_ids = candidates.order_by(distance).limit(bindparam("limit")).subquery()
    return select(TextSummary, nearest_ids.c.distance).join(nearest_ids, TextSummary.id == nearest_ids.c.id)


@lru_cache
def estimate_statement(filters: tuple[str, ...], schema: str | None) -> TextClause:
    """Return EXPLAIN for the rows with an embedding that pass the filters, with a parameter per name in `filters`."""
    return explain(select(literal_column("1", Integer)).where(*_bind_conditions(filters)), schema, "(FORMAT JSON)")


def explain(statement: ClauseElement, schema: str | None, options: str = "") -> TextClause:
    """Return EXPLAIN for a statement on the tables in `schema`, or on those of the search_path for None."""
    if schema is None:
        return text(f"EXPLAIN {options} {statement}")
    # In the text, a colon begins a parameter.
    translation = {None: schema.replace(":", r"\:")}
    compiled = statement.compile(schema_translate_map=translation, render_schema_translate=True)
    return text(f"EXPLAIN {options} {compiled}")


def validate_bigint(name: str, value: int) -> None:
    """Raise `InvalidSearchArgument` unless `value` is an integer of 64 bits."""
    try:
        fits = not isinstance(value, bool) and -BIGINT_LIMIT <= to_int(value) < BIGINT_LIMIT
    except TypeError:
        fits = False
    if not fits:
        raise InvalidSearchArgument(f"{name} is not an integer of 64 bits; pass one.")


def validate_bounds(limit: int, max_distance: float | None) -> None:
    """Raise `InvalidSearchArgument` unless `limit` is at least 1 and `max_distance` is between 0 and 2."""
    validate_bigint("limit", limit)
    if limit < 1:
        raise InvalidSearchArgument(f"limit={limit} requests zero rows; pass 1 or more.")
    if max_distance is not None and not 0 <= max_distance <= MAX_COSINE_DISTANCE:
        raise InvalidSearchArgument(
            f"max_distance={max_distance} is not a cosine distance; pass 0 to {MAX_COSINE_DISTANCE:g}."
        )


def normalize(embedding: EmbeddingInput) -> Vector:
    """Return the vector of length 1 with the direction of `embedding`.

    Raises:
        InvalidEmbedding: not 384 numbers, or NaN, infinite, or all zero.
    """
    # In double precision: the server's sums of squares overflow or vanish for very long or short vectors.
    numbers = embedding_to_floats(embedding)
    length = hypot(*numbers)
    if not length:
        raise InvalidEmbedding("A vector of zeros has no direction, so no text is near it; pass a text's embedding.")
    return Vector([number / length for number in numbers])


def query_parameter() -> BindParameter[Vector]:
    """Return the parameter `query`, for a vector that `normalize` returned."""
    return bindparam("query", type_=VECTOR(EMBEDDING_DIMENSIONS))


def cosine_distance(query: ColumnElement[Any], extension_schema: str | None = None) -> ColumnElement[float]:
    """Return the cosine distance between `text_summary.embedding` and `query`, 0 to 2."""
    return TextSummary.embedding.op(qualify_operator(extension_schema, "<=>"), return_type=Double())(query)


def half_cosine_distance(query: ColumnElement[Any], extension_schema: str | None = None) -> ColumnElement[float]:
    """Return the cosine distance in half precision, the expression of an index on `embedding::halfvec(384)`."""
    half = QualifiedHalfvec(extension_schema)
    operator = qualify_operator(extension_schema, "<=>")
    return cast(TextSummary.embedding, half).op(operator, return_type=Double())(cast(query, half))


class QualifiedHalfvec(HALFVEC):
    """`halfvec(384)` with the schema of pgvector, unless that is None."""

    cache_ok = True

    def __init__(self, schema: str | None) -> None:
        super().__init__(EMBEDDING_DIMENSIONS)
        self.schema = schema

    def get_col_spec(self, **_: Any) -> str:
        """Return the name of the type in SQL."""
        return f"{qualify(self.schema, 'halfvec')}({EMBEDDING_DIMENSIONS})"


def _conditions(values: dict[str, Any]) -> list[ColumnElement[bool]]:
    return [TextSummary.embedding.is_not(None), *(FILTER_CONDITIONS[name](value) for name, value in values.items())]


def _bind_conditions(filters: tuple[str, ...]) -> list[ColumnElement[bool]]:
    return _conditions({name: bindparam(name) for name in filters})
