"""Searching with the settings that the index needs, on any session."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from syntegra_db.models import TextSummary
from syntegra_db.vectors._index_state import (
    configure_scan,
    estimate_rows_cached,
    get_index_state,
    refresh_index_state,
    require_transaction,
)
from syntegra_db.vectors._statements import (
    Filters,
    InvalidSearchArgument,
    exact_statement,
    index_statement,
    normalize,
    validate_bounds,
)
from syntegra_db.vectors._strategy import choose_settings

if TYPE_CHECKING:
    from datetime import datetime

    from pgvector import Vector
    from sqlalchemy import Connection, Select
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from syntegra_db.models import EmbeddingInput
    from syntegra_db.vectors._index_state import IndexState


class Match(NamedTuple):
    """A text that was found, and its cosine distance from the query: 0 to 2."""

    row: TextSummary
    distance: float


def search(  # noqa: PLR0913  what a search can be narrowed by, each by name
    session: Session,
    embedding: EmbeddingInput,
    *,
    client_id: int | None = None,
    sentiment: str | None = None,
    language: str | None = None,
    since: datetime | None = None,
    limit: int = 10,
    max_distance: float | None = None,
    recall: float = 0.95,
) -> list[Match]:
    """Return the texts nearest to `embedding`, nearest first.

    There are `limit` of them whenever so many match. Where the filters leave few rows, or there is no index, or it
    could not be faster, all rows that match are compared, and the answer is exact. Otherwise the vector index is asked
    with the setting that was measured for `recall` when `syntegra-db vectors rebuild` built it, or with a careful one
    where it was built by other means. The setting, `iterative_scan = relaxed_order` and `plan_cache_mode =
    force_custom_plan` last until the transaction of `session` ends, for its other statements too.

    Args:
        session: one in a transaction, or about to begin one; not in autocommit, and not one that takes another server
            for each statement.
        embedding: 384 finite numbers, not all of them 0.
        client_id: only texts of this client.
        sentiment: only texts with this sentiment, such as `negative`.
        language: only texts in this language, an ISO 639-1 code.
        since: only texts inserted then or later; a datetime with a time zone.
        limit: so many texts at most.
        max_distance: only texts at most this far: 0 is the same direction, 1 at right angles, 2 the opposite one.
        recall: share of the true nearest texts to be found on average, above 0 and up to 1; 1 compares all rows.

    Raises:
        InvalidEmbedding: another length, NaN, an infinity, or only zeros.
        InvalidSearch: a limit below 1, a `max_distance` or a `recall` beyond its scale, a time without a zone, another
            argument of the wrong type, a session in autocommit.
    """
    validate_bounds(limit, max_distance)
    if not 0 < recall <= 1:
        raise InvalidSearchArgument(f"recall={recall} is no share of the nearest rows; give more than 0 and at most 1.")
    asked = SearchRequest(normalize(embedding), Filters(client_id, sentiment, language, since), limit, recall)
    matches = asked.execute(session)
    return [match for match in matches if max_distance is None or match.distance <= max_distance]


async def async_search(  # noqa: PLR0913  likewise
    session: AsyncSession,
    embedding: EmbeddingInput,
    *,
    client_id: int | None = None,
    sentiment: str | None = None,
    language: str | None = None,
    since: datetime | None = None,
    limit: int = 10,
    max_distance: float | None = None,
    recall: float = 0.95,
) -> list[Match]:
    """Return the texts nearest to `embedding`: the asyncio twin of `search`, same arguments, same errors."""
    return await session.run_sync(
        search,
        embedding,
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
    """One search."""

    query: Vector
    filters: Filters
    limit: int
    recall: float

    def execute(self, session: Session) -> list[Match]:
        """Return at most `limit` matches in order of distance, by the way that costs least."""
        connection = session.connection(bind_arguments={"mapper": TextSummary})
        require_transaction(connection)
        standing = get_index_state(connection)
        prepared = self._configure_index_scan(connection, standing)
        if prepared is None:
            # Something else stands than what is remembered.
            standing = refresh_index_state(connection)
            prepared = self._configure_index_scan(connection, standing)
        if prepared and standing.index is not None:
            found = self._run(session, index_statement(self._filters, is_half=standing.index.is_half))
            if len(found) == self.limit:
                return found
        return self._run(session, exact_statement(self._filters))

    @property
    def _filters(self) -> tuple[str, ...]:
        return tuple(self.filters.as_parameters())

    def _configure_index_scan(self, connection: Connection, standing: IndexState) -> bool | None:
        """Return whether the index is to be asked, once it is set; None when it is not the one that stands."""
        if standing.index is None:
            return False
        rows = estimate_rows_cached(connection, standing, self.filters)
        settings = choose_settings(
            standing.indexes, recall=self.recall, limit=self.limit, rows=rows, all_rows=standing.embeddings
        )
        if settings is None:
            return False
        return configure_scan(connection, standing.indexes, settings) == standing.filenodes or None

    def _run(self, session: Session, statement: Select[TextSummary, float]) -> list[Match]:
        parameters = {"query": self.query, "limit": self.limit, **self.filters.as_parameters()}
        # A stored vector of zeros is at distance NaN, and not near to anything.
        rows = session.execute(statement, parameters)
        matches = [Match(row, distance) for row, distance in rows if not isnan(distance)]
        return sorted(matches, key=attrgetter("distance"))
