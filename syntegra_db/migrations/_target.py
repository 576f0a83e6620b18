"""The revision that a command names, and whether the command leads there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from syntegra_db.catalog import load_manifest, require_usable_revision
from syntegra_db.errors import RevisionError
from syntegra_db.migrations._phases import contraction_to_ask_for
from syntegra_db.migrations.online import direction_to_undo
from syntegra_db.recorded_steps import read_unfinished_revision
from syntegra_db.revisions import (
    describe_revision,
    position_of,
    require_known_revision,
    resolve_revision,
    revision_before,
)
from syntegra_db.trusted_tables import require_trusted_version_table

if TYPE_CHECKING:
    from types import ModuleType

    from sqlalchemy import Connection

    from syntegra_db.recorded_steps import Direction, UnfinishedRevision


class Route(NamedTuple):
    """From where to where a command takes the database.

    `start` is the revision that `before` or an unfinished revision, which is undone, has the objects of. `contraction`
    is the revision before which an upgrade stops, if it was not asked for.
    """

    before: str | None
    start: str | None
    target: str | None
    unfinished: UnfinishedRevision | None
    contraction: str | None


def read_route(
    connection: Connection, named: str | None, before: str | None, direction: Direction | None, *, contract: bool
) -> Route:
    """Return the way of a command in `direction` to the revision `named`, from the revision `before` of the database.

    Raises:
        DatabaseAhead, RevisionError, TablesInOtherSchema: see `require_usable_revision` and `resolve_target`.
        UntrustedObject: see `require_trusted_version_table`.
    """
    require_usable_revision(connection, before)
    require_trusted_version_table(connection)
    unfinished = read_unfinished_revision(connection)
    connection.rollback()
    target, contraction = resolve_target(named, before, unfinished, direction), None
    if direction == "upgrade" and not contract:
        contraction = contraction_to_ask_for(before, target, unfinished.revision if unfinished else None)
        target = revision_before(contraction) if contraction else target
    # The revision of a checkout may have none yet; `verify_result` would notice it after the changes.
    load_manifest(target)
    # An undo takes the database from the unfinished revision to the one that it is at.
    is_undo = direction_to_undo(unfinished, before, target) == "downgrade"
    start = unfinished.revision if unfinished and is_undo else before
    return Route(before, start, target, unfinished, contraction)


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
