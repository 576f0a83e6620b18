"""The embedding of the shipped models, and the names that its index has during a rebuild."""

from __future__ import annotations

from syntegra_db.models.embeddings import declared_embeddings

(EMBEDDING,) = declared_embeddings()
_, NEW_INDEX, OLD_INDEX = EMBEDDING.index_names
