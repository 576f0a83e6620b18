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
from syntegra_db.models import InvalidEmbedding, TextSummary
from syntegra_db.models.embeddings import declared_embeddings, text_embeddings
from syntegra_db.models.types import Embedding
from syntegra_db.sql import BIGINT, qualify, qualify_operator

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import BindParameter, TextClause

    from syntegra_db.models import EmbeddingInput
    from syntegra_db.models.embeddings import EmbeddingColumn

MAX_COSINE_DISTANCE = 2.0
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
    query: EmbeddingInput,
    *,
    embedding: str | None = None,
    client_id: int | None = None,
    sentiment: str | None = None,
    language: str | None = None,
    since: datetime | None = None,
    limit: int = 10,
    max_distance: float | None = None,
) -> Select[TextSummary, float]:
    """Return the statement that selects the texts nearest to `query` with their cosine distance, nearest first.

    The arguments are those of `search`. The statement runs with the session's settings: its recall depends on
    `ivfflat.probes` or `hnsw.ef_search`, and it cannot use an index in half precision. `search` handles both.

    Raises:
        InvalidEmbedding: not as many numbers as the column has dimensions, or NaN, infinite, or all zero.
        InvalidSearchArgument: an argument has the wrong type or is out of range, or no such embedding is declared.
    """
    validate_bounds(limit, max_distance)
    column = text_embedding(embedding)
    distance = cosine_distance(column, literal(normalize(column, query), Embedding(column.dimensions)))
    conditions = _conditions(column, Filters(client_id, sentiment, language, since).as_parameters())
    if max_distance is not None:
        conditions.append(distance <= max_distance)
    labelled = distance.label("distance")
    return select(column.model, labelled).where(*conditions).order_by(labelled).limit(limit)


def text_embedding(name: str | None = None) -> EmbeddingColumn:
    """Return the embedding of texts with this name, or the first one.

    Raises:
        InvalidSearchArgument: no such embedding is declared.
    """
    if not isinstance(name, str | None):
        raise InvalidSearchArgument(
            f"embedding is of type {type(name).__name__}; pass the name of a column, and the vector as query."
        )
    return _find_text_embedding(name)


@lru_cache
def _find_text_embedding(name: str | None) -> EmbeddingColumn:
    declared = text_embeddings()
    if name is None:
        return declared[0]
    found = next((embedding for embedding in declared if name in {embedding.attribute, embedding.name}), None)
    if found is None:
        known = " or ".join(repr(embedding.name) for embedding in declared)
        is_column = name in TextSummary.__table__.c
        reason = (
            f"The column {name} of text_summary is not" if is_column else f"text_summary has no column {name!r} with"
        )
        raise InvalidSearchArgument(f"{reason} an embedding; pass embedding={known}.")
    return found


def rebuild_command(embedding: EmbeddingColumn) -> str:
    """Return the command that rebuilds the index of `embedding`, which is named if there are several."""
    column = f" --column {column_option(embedding)}" if len(declared_embeddings()) > 1 else ""
    return f"syntegra-db vectors rebuild{column}"


def column_option(embedding: EmbeddingColumn) -> str:
    """Return how a command names `embedding`: with its table if another table has a column of that name."""
    names = [other.name for other in declared_embeddings()]
    return embedding.name if names.count(embedding.name) == 1 else str(embedding)


@lru_cache
def index_statement(
    embedding: EmbeddingColumn, filters: tuple[str, ...], extension_schema: str | None = None, *, is_half: bool
) -> Select[Any, float]:
    """Return the search that uses an index on `embedding`, or an index in half precision.

    It names the schema of pgvector's operators unless that is None. Its parameters are `query`, `limit` and the names
    in `filters`. It is cached, so SQLAlchemy finds the compiled SQL without traversing the statement again.
    """
    query = query_parameter(embedding)
    distance = cosine_distance(embedding, query, extension_schema)
    order = half_cosine_distance(embedding, query, extension_schema) if is_half else distance
    statement = select(embedding.model, distance).where(*_bind_conditions(embedding, filters))
    return statement.order_by(order).limit(bindparam("limit"))


@lru_cache
def exact_statement(
    embedding: EmbeddingColumn, filters: tuple[str, ...], extension_schema: str | None = None
) -> Select[Any, float]:
    """Return the exact search over all rows that pass the filters, with the same parameters.

    It sorts ids and distances only, and fetches the rows at the end. That takes 60 % of the time for a client of
    20,000 rows, and an index on (client_id) INCLUDE (id, embedding) serves all but the last step.
    """
    # The addition keeps the planner from using a vector index; that of equal types is always pg_catalog's.
    distance = cosine_distance(embedding, query_parameter(embedding), extension_schema)
    ranked = (distance + cast(0, Double())).label("distance")
    row_id = row_id_of(embedding)
    candidates = select(row_id, ranked).where(*_bind_conditions(embedding, filters))
    nearest_ids = candidates.order_by(ranked).limit(bindparam("limit")).subquery()
    return select(embedding.model, nearest_ids.c.distance).join(nearest_ids, row_id == nearest_ids.c.id)


@lru_cache
def estimate_statement(embedding: EmbeddingColumn, filters: tuple[str, ...], schema: str | None) -> TextClause:
    """Return EXPLAIN for the rows with an embedding that pass the filters, with a parameter per name in `filters`."""
    conditions = _bind_conditions(embedding, filters)
    return explain(select(literal_column("1", Integer)).where(*conditions), schema, "(FORMAT JSON)")


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
        fits = not isinstance(value, bool) and to_int(value) in BIGINT
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


def normalize(embedding: EmbeddingColumn, query: EmbeddingInput) -> Vector:
    """Return the vector of length 1 with the direction of `query`, which is compared with `embedding`.

    Raises:
        InvalidEmbedding: not as many numbers as the column has dimensions, or NaN, infinite, or all zero.
    """
    # In double precision: the server's sums of squares overflow or vanish for very long or short vectors.
    numbers = embedding.type.to_floats(query)
    length = hypot(*numbers)
    if not length:
        raise InvalidEmbedding("A vector of zeros has no direction, so no text is near it; pass a text's embedding.")
    return Vector([number / length for number in numbers])


def row_id_of(embedding: EmbeddingColumn) -> ColumnElement[int]:
    """Return the primary key of the rows with `embedding`."""
    row_id: ColumnElement[int] = embedding.model.id
    return row_id


def query_parameter(embedding: EmbeddingColumn) -> BindParameter[Vector]:
    """Return the parameter `query`, for a vector that `normalize` returned."""
    return bindparam("query", type_=VECTOR(embedding.dimensions))


def cosine_distance(
    embedding: EmbeddingColumn, query: ColumnElement[Any], extension_schema: str | None = None
) -> ColumnElement[float]:
    """Return the cosine distance between `embedding` and `query`, 0 to 2."""
    distance: ColumnElement[float] = embedding.sql.op(qualify_operator(extension_schema, "<=>"), return_type=Double())(
        query
    )
    return distance


def half_cosine_distance(
    embedding: EmbeddingColumn, query: ColumnElement[Any], extension_schema: str | None = None
) -> ColumnElement[float]:
    """Return the cosine distance in half precision, the expression of an index on, say, `embedding::halfvec(384)`."""
    half = QualifiedHalfvec(embedding.dimensions, extension_schema)
    operator = qualify_operator(extension_schema, "<=>")
    return cast(embedding.sql, half).op(operator, return_type=Double())(cast(query, half))


class QualifiedHalfvec(HALFVEC):
    """`halfvec` of `dim` numbers with the schema of pgvector, unless that is None."""

    cache_ok = True

    def __init__(self, dim: int, schema: str | None) -> None:
        super().__init__(dim)
        self.schema = schema

    def get_col_spec(self, **_: Any) -> str:
        """Return the name of the type in SQL."""
        return f"{qualify(self.schema, 'halfvec')}({self.dim})"


def _conditions(embedding: EmbeddingColumn, values: dict[str, Any]) -> list[ColumnElement[bool]]:
    return [embedding.sql.is_not(None), *(FILTER_CONDITIONS[name](value) for name, value in values.items())]


def _bind_conditions(embedding: EmbeddingColumn, filters: tuple[str, ...]) -> list[ColumnElement[bool]]:
    return _conditions(embedding, {name: bindparam(name) for name in filters})
