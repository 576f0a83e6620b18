"""The revisions that tests name by their place: only a test about one revision names it by its number."""

from __future__ import annotations

from syntegra_db.revisions import all_revisions

REVISIONS = all_revisions()
HEAD = REVISIONS[-1]
BEFORE_HEAD = REVISIONS[-2]
# Of a sample, or of a newer version of the package.
AFTER_HEAD = f"{int(HEAD) + 1:03}"
