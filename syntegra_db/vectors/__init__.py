"""Search texts by meaning: a composable statement, and a search that applies the settings of the vector index."""

from syntegra_db.errors import InvalidSearchArgument
from syntegra_db.models.embeddings import EmbeddingColumn, declared_embeddings
from syntegra_db.vectors._index import SETTING_NAMES, read_primary_index, was_built_on_data
from syntegra_db.vectors._search import Match, async_search, search
from syntegra_db.vectors._statements import nearest, rebuild_command
from syntegra_db.vectors._strategy import EXACT_SCAN_MAX_ROWS

__all__ = [
    "EXACT_SCAN_MAX_ROWS",
    "SETTING_NAMES",
    "EmbeddingColumn",
    "InvalidSearchArgument",
    "Match",
    "async_search",
    "declared_embeddings",
    "nearest",
    "read_primary_index",
    "rebuild_command",
    "search",
    "was_built_on_data",
]
