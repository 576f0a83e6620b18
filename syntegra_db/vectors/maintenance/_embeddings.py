"""Which embedding a command works on."""

from __future__ import annotations

from syntegra_db.errors import RebuildFailed
from syntegra_db.models.embeddings import EmbeddingColumn, declared_embeddings
from syntegra_db.vectors._statements import column_option


def find_embedding(name: str | None) -> EmbeddingColumn:
    """Return the declared embedding with this name, as `COLUMN` or `TABLE.COLUMN`; for None, the only one.

    Raises:
        RebuildFailed: no such embedding is declared, or several are; nothing was changed.
    """
    declared = declared_embeddings()
    found = [embedding for embedding in declared if name in {None, embedding.name, embedding.attribute, str(embedding)}]
    if len(found) == 1:
        return found[0]
    names = ", ".join(map(column_option, found or declared))
    if found:
        raise RebuildFailed(f"There are several embeddings: {names}; nothing was changed. Name one with --column.")
    raise RebuildFailed(f"No embedding has the name {name!r}; nothing was changed. Name one of these: {names}.")
