"""The revision that a command names, and whether the command leads there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.errors import RevisionError
from syntegra_db.migrations.online import direction_to_undo
from syntegra_db.revisions import describe_revision, position_of, require_known_revision, resolve_revision

if TYPE_CHECKING:
    from types import ModuleType

    from syntegra_db.recorded_steps import Direction, UnfinishedRevision


def named_revision(context: ModuleType) -> str | None:
    """Return the revision that the command names; Alembic makes a tuple of `heads`, and there is one head."""
    revision: str | tuple[str, ...] | None = context.get_revision_argument()
    return revision[0] if isinstance(revision, tuple) else revision


def resolve_target(
    named: str | None, before: str | None, unfinished: UnfinishedRevision | None, direction: Direction | None
) -> str | None:
    """Return the revision `named` by a command in `direction` for a database at `before`; None is `base`.

    An unfinished upgrade counts as applied for a relative downgrade, so that `-1` undoes it.

    Raises:
        RevisionError: there is no such revision, `direction` does not lead there, or an unfinished revision would be
            undone by an upgrade, or finished by a downgrade.
        DatabaseAhead: this package does not know the unfinished revision.
    """
    if unfinished is None:
        target = resolve_revision(named, before)
    else:
        require_known_revision(unfinished.revision, None)
        is_begun = direction_to_undo(unfinished, before, before) == "downgrade"
        target = resolve_revision(named, unfinished.revision if is_begun and str(named).startswith("-") else before)
        undo = direction_to_undo(unfinished, before, target)
        if undo not in {None, direction}:
            raise RevisionError(
                f"The database is at {describe_revision(before)}, and {unfinished}. {unfinished.instructions}"
            )
    if direction is not None:
        _require_direction(direction, before, target)
    return target


def _require_direction(direction: Direction, before: str | None, target: str | None) -> None:
    steps = position_of(target) - position_of(before)
    if steps < 0 and direction == "upgrade":
        command = f"syntegra-db rollback {target or 'base'}"
    elif steps > 0 and direction == "downgrade":
        command = f"syntegra-db upgrade {target}"
    else:
        return
    relation = "older" if steps < 0 else "newer"
    raise RevisionError(
        f"The database is at {describe_revision(before)}; {target or 'base'} is {relation}, so there is nothing to "
        f"{direction}. To change to it: {command}"
    )
