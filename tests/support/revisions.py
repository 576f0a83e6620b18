"""The revisions that tests name by their place: only a test about one revision names it by its number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.revisions import all_revisions

if TYPE_CHECKING:
    from support.servers import Database

REVISIONS = all_revisions()
HEAD = REVISIONS[-1]
BEFORE_HEAD = REVISIONS[-2]
# Of a sample, or of a newer version of the package.
AFTER_HEAD = f"{int(HEAD) + 1:03}"


def revision_of(database: Database) -> str:
    """Return the revision in the version table."""
    [(revision,)] = database.query("SELECT version_num FROM alembic_version")
    return str(revision)
