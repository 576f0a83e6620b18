"""Which services work on which revision: the phases of revisions, and the comment that tells older packages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from syntegra_db.revisions import (
    VERSION_TABLE,
    all_revisions,
    head_revision,
    position_of,
    revision_before,
    revision_path,
    script_directory,
)
from syntegra_db.search_path import read_session
from syntegra_db.sql import catalog_query, qualify_name

if TYPE_CHECKING:
    from sqlalchemy import Connection

EXPAND, CONTRACT = "expand", "contract"
# The comment of the version table, for packages that do not know its revision.
COMPATIBILITY = "Services of revision {oldest} and later work on revision {revision}."
COMPATIBLE_SINCE = re.compile(COMPATIBILITY.format(oldest=r"(\d{3})", revision=r"(\d{3})"))
SELECT_COMMENT = catalog_query("SELECT obj_description(to_regclass(:table), 'pg_class')")


def phase_of(revision: str) -> str | None:
    """Return `expand` if code of the revision before works on the schema of `revision`, `contract` if not.

    A revision declares it as `phase`; the first ones, which create the tables, do not.
    """
    phase: str | None = getattr(script_directory().get_revision(revision).module, "phase", None)
    return phase


def contractions_between(before: str | None, target: str | None) -> list[str]:
    """Return the contractions of an upgrade from `before` to `target`, in their order; none for a downgrade."""
    way = revision_path(before, target)[1:] if position_of(before) < position_of(target) else []
    return [name for name in way if name and phase_of(name) == CONTRACT]


def oldest_compatible_revision(revision: str) -> str:
    """Return the oldest revision whose code works on the schema of `revision`: only expansions lie between them."""
    before = revision_before(revision) if phase_of(revision) == EXPAND else None
    return revision if before is None else oldest_compatible_revision(before)


def compatibility_comment(revision: str | None) -> str | None:
    """Return the comment of the version table at `revision`; None if only code of this revision works."""
    oldest = oldest_compatible_revision(revision) if revision else None
    return None if oldest == revision else COMPATIBILITY.format(oldest=oldest, revision=revision)


def supports_package(connection: Connection, revision: str | None) -> bool:
    """Return whether the comment of the version table says that services of this package work on `revision`.

    It is False for a revision that this package contains.
    """
    if revision in {None, *all_revisions()}:
        return False
    table = qualify_name(read_session(connection).schema, VERSION_TABLE)
    comment: str = connection.scalar(SELECT_COMMENT, {"table": table}) or ""
    since = COMPATIBLE_SINCE.fullmatch(comment)
    return since is not None and since[1] <= head_revision() and since[2] == revision
