"""Searching texts by meaning: a statement to compose with, and a search that sets what the vector index needs."""

from syntegra_db.vectors._search import Match, async_search, search
from syntegra_db.vectors._statements import InvalidSearchArgument, nearest

__all__ = ["InvalidSearchArgument", "Match", "async_search", "nearest", "search"]
