"""Expansions and contractions: what old services work on, and what waits until they are gone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import DDL

from syntegra_db.compatibility import compatibility_comment, contractions_between
from syntegra_db.revisions import VERSION_TABLE, all_revisions, revision_before
from syntegra_db.sql import literal

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext, MigrationInfo

logger = logging.getLogger(__name__)


def record_compatibility(ctx: MigrationContext, step: MigrationInfo, heads: set[str], run_args: dict[str, Any]) -> None:  # noqa: ARG001  Alembic's signature
    """Write to the comment of the version table which code works on the revision that was reached, if that changes."""
    before = step.down_revision_ids if step.is_upgrade else step.up_revision_ids
    comments = [compatibility_comment(revision) for revision in (*before, *heads) if revision in all_revisions()]
    if any(comments):
        comment = compatibility_comment(next(iter(heads), None))
        ctx.execute(DDL(f"COMMENT ON TABLE {VERSION_TABLE} IS {literal(comment)}"))  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


def contraction_to_ask_for(before: str | None, target: str | None, unfinished: str | None) -> str | None:
    """Return the first contraction on the way to `target` that waits until it is asked for.

    A database without a revision has no services, and the contraction that is `unfinished` goes on.
    """
    contractions = contractions_between(before, target) if before is not None else []
    return next((name for name in contractions if name != unfinished), None)


def log_contraction(contraction: str) -> None:
    """Log that an upgrade stops before `contraction`, and how to apply it."""
    logger.warning(
        "Stopping before revision %s, on which code of revision %s does not work. When no service uses that code: "
        "syntegra-db upgrade --contract",
        contraction,
        revision_before(contraction),
    )
