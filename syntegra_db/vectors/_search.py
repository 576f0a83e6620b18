"""Search for the nearest texts with the settings that the vector index needs."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import inspect
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import scoped_session

from syntegra_db.errors import InvalidSearchArgument
from syntegra_db.models import TextSummary
from syntegra_db.pgvector_support import DEFAULT_RECALL
from syntegra_db.vectors._index_state import (
    configure_scan,
    estimate_rows_cached,
    get_index_state,
    refresh_index_state,
    require_transaction,
)
from syntegra_db.vectors._statements import (
    Filters,
    exact_statement,
    index_statement,
    normalize,
    text_embedding,
    validate_bounds,
)
from syntegra_db.vectors._strategy import choose_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from pgvector import Vector
    from sqlalchemy import Connection, Select
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from syntegra_db.models import EmbeddingInput
    from syntegra_db.models.embeddings import EmbeddingColumn
    from syntegra_db.vectors._index_state import IndexState


class Match(NamedTuple):
    """A text and its cosine distance from the query, 0 to 2."""

    row: TextSummary
    distance: float


def search(  # noqa: PLR0913  one keyword per filter
    session: Session,
    query: EmbeddingInput,
    *,
    embedding: str | None = None,
    client_id: int | None = None,
    sentiment: str | None = None,
    language: str | None = None,
    since: datetime | None = None,
    limit: int = 10,
    max_distance: float | None = None,
    recall: float = DEFAULT_RECALL,
) -> list[Match]:
    """Return the texts nearest to `query`, nearest first.

    If at least `limit` texts match, it returns `limit` of them. If few rows pass the filters, or there is no index, or
    an index scan would not be faster, the search is exact. Otherwise it uses the vector index with the setting that
    `syntegra-db vectors rebuild` calibrated for `recall`, or with a conservative one if the index is not calibrated.
    That setting, `iterative_scan = relaxed_order` and `plan_cache_mode = force_custom_plan` also apply to the other
    statements of the transaction, until it ends.

    Args:
        session: not in autocommit, not connected through a pooler in statement mode, and not a `ShardedSession`. One
            that chooses a database for each statement is asked once per search.
        query: as many finite numbers as the embedding has dimensions, such as 384, not all of them 0.
        embedding: the column to compare it with; by default the first one that is declared, `embedding`.
        client_id: only texts of this client.
        sentiment: only texts with this sentiment, such as `negative`.
        language: only texts in this language, an ISO 639-1 code.
        since: only texts inserted at this time or later; a datetime with a time zone.
        limit: the maximum number of texts.
        max_distance: only texts at most this far: 0 is the same direction, 1 at right angles, 2 the opposite direction.
        recall: mean share of the exact nearest texts to find, above 0 and up to 1; 1 is an exact search.

    Raises:
        InvalidEmbedding: not as many numbers as the column has dimensions, or NaN, infinite, or all zero.
        InvalidSearchArgument: an argument has the wrong type or is out of range, no such embedding is declared, or the
            session cannot search: it is in autocommit or a `ShardedSession`.
    """
    validate_bounds(limit, max_distance)
    if not 0 < recall <= 1:
        raise InvalidSearchArgument(f"recall={recall} is out of range; pass a share above 0 and up to 1.")
    column = text_embedding(embedding)
    filters = Filters(client_id, sentiment, language, since)
    request = SearchRequest(column, normalize(column, query), filters, limit, recall)
    matches = request.execute(session)
    return [match for match in matches if max_distance is None or match.distance <= max_distance]


async def async_search(  # noqa: PLR0913  one keyword per filter
    session: AsyncSession,
    query: EmbeddingInput,
    *,
    embedding: str | None = None,
    client_id: int | None = None,
    sentiment: str | None = None,
    language: str | None = None,
    since: datetime | None = None,
    limit: int = 10,
    max_distance: float | None = None,
    recall: float = DEFAULT_RECALL,
) -> list[Match]:
    """Return the texts nearest to `query`: `search` for asyncio."""
    return await session.run_sync(
        search,
        query,
        embedding=embedding,
        client_id=client_id,
        sentiment=sentiment,
        language=language,
        since=since,
        limit=limit,
        max_distance=max_distance,
        recall=recall,
    )


@dataclass(frozen=True)
class SearchRequest:
    """The validated arguments of one search."""

    embedding: EmbeddingColumn
    query: Vector
    filters: Filters
    limit: int
    recall: float

    def execute(self, session: Session) -> list[Match]:
        """Return at most `limit` matches in order of distance, from an index scan or an exact search."""
        filters = tuple(self.filters.as_parameters())
        with _pinned_connection(session, exact_statement(self.embedding, filters)) as connection:
            require_transaction(connection)
            return self._execute(session, connection, filters)

    def _execute(self, session: Session, connection: Connection, filters: tuple[str, ...]) -> list[Match]:
        state = get_index_state(connection, self.embedding)
        use_index = self._configure_index_scan(connection, state)
        if use_index is None:
            state = refresh_index_state(connection, self.embedding)
            use_index = self._configure_index_scan(connection, state)
        if use_index and state.index is not None:
            statement = index_statement(self.embedding, filters, state.extension_schema, is_half=state.index.is_half)
            matches = self._run(session, statement)
            if len(matches) == self.limit:
                return matches
        return self._run(session, exact_statement(self.embedding, filters, state.extension_schema))

    def _configure_index_scan(self, connection: Connection, state: IndexState) -> bool | None:
        """Return whether to use the index, after applying its settings; None if the cached `state` is out of date."""
        if state.index is None:
            return False
        rows = estimate_rows_cached(connection, self.embedding, state, self.filters)
        settings = choose_settings(
            state.indexes, recall=self.recall, limit=self.limit, rows=rows, all_rows=state.embeddings
        )
        if settings is None:
            return False
        return configure_scan(connection, state.indexes, settings) == state.filenodes or None

    def _run(self, session: Session, statement: Select[Any, float]) -> list[Match]:
        parameters = {"query": self.query, "limit": self.limit, **self.filters.as_parameters()}
        rows = session.execute(statement, parameters)
        # The distance of a stored vector of zeros is NaN.
        matches = [Match(row, distance) for row, distance in rows if not isnan(distance)]
        return sorted(matches, key=attrgetter("distance"))


@contextmanager
def _pinned_connection(
    session: Session | scoped_session[Session], statement: Select[Any, float]
) -> Iterator[Connection]:
    """Yield the connection on which `session` runs `statement`, and let it run all others of the block there too.

    A session may route each statement to another database, where the settings of the search would not apply.
    """
    session = session() if isinstance(session, scoped_session) else session
    if isinstance(session, ShardedSession):
        raise InvalidSearchArgument(
            "A ShardedSession sends each statement to several databases, but a search runs on one; pass a Session for "
            "each of them and merge the results by distance."
        )
    if session.autoflush:
        # Not on the pinned connection, which may be a read replica.
        session.flush()
    connection = session.connection(bind_arguments={"mapper": inspect(TextSummary), "clause": statement})
    attributes = vars(session)
    own = attributes.get("get_bind")
    attributes["get_bind"] = lambda *_, **__: connection
    try:
        yield connection
    finally:
        del attributes["get_bind"]
        if own is not None:
            attributes["get_bind"] = own
