"""Searching texts by meaning: a statement to compose with, and a search that sets what the vector index needs."""

from syntegra_db.vectors.searching import Match, async_search, search
from syntegra_db.vectors.statements import InvalidSearch, nearest

__all__ = ["InvalidSearch", "Match", "async_search", "nearest", "search"]
