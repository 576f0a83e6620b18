"""What `syntegra-db status --json` prints; only that command imports this module, which loads the catalog."""

from __future__ import annotations

from dataclasses import dataclass

from syntegra_db.catalog import DatabaseStatus
from syntegra_db.cli.results import IndexBuild


@dataclass(frozen=True)
class StatusResult(DatabaseStatus):
    """The state of the database, and whether the vector index of each embedding, as TABLE.COLUMN, was built on data."""

    vector_indexes: dict[str, IndexBuild]
