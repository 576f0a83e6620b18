"""What an upgrade or a downgrade would do: the revisions, their locks, the rows that are lost, and what prevents it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from syntegra_db.compatibility import phase_of
from syntegra_db.connections import connect
from syntegra_db.errors import RevisionError
from syntegra_db.migrations._data_loss import LostRows, count_data_loss, find_data_loss
from syntegra_db.migrations._headings import read_headings
from syntegra_db.migrations._lock import current_schema, find_lock_holder, lock_key
from syntegra_db.migrations._obstacles import find_obstacle
from syntegra_db.migrations._options import load_migration_options
from syntegra_db.migrations._retry import most_attempts
from syntegra_db.migrations._target import read_route
from syntegra_db.migrations.online import direction_to_undo
from syntegra_db.recorded_steps import Direction  # noqa: TC001  pydantic reads the annotations of a plan
from syntegra_db.revisions import (
    VERSION_TABLE,
    current_revision,
    list_revisions,
    resolve_revision,
    revision_path,
    script_directory,
)
from syntegra_db.search_path import declared_search_path, with_schema
from syntegra_db.settings import describe_database

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from syntegra_db.migrations._options import MigrationOptions
    from syntegra_db.migrations._target import Route


@dataclass(frozen=True)
class PlannedRevision:
    """A revision, with the texts of its docstring; `phase` is expand, contract or None for the first ones."""

    revision: str
    title: str
    phase: str | None
    locks: str
    duration: str
    if_it_fails: str
    downgrade: str


@dataclass(frozen=True)
class LockLimits:
    """How long locks are waited for, in seconds.

    A statement waits for a lock for `lock_timeout`, and so do the sessions behind it. Then the revision is tried again,
    at most `attempts` times in `lock_retry_timeout`. Another migration is waited for during `migration_lock_timeout`.
    """

    lock_timeout: float
    lock_retry_timeout: float
    migration_lock_timeout: float
    attempts: int


@dataclass(frozen=True)
class Obstacle:
    """The error that the migration would end with."""

    exit_status: int
    message: str


@dataclass(frozen=True)
class MigrationPlan:
    """What a migration would do now to the database, which is at `revision` and would be at `target`.

    `revisions` are applied or reverted in this order; none if there is nothing to do. `held_back` are not applied
    without `--contract`. `lost` is what the migration deletes. `unfinished` is the revision that is complete in part,
    and `running` the session of a migration that runs now, both in words.
    """

    direction: Direction
    database: str
    schema: str
    revision: str | None
    target: str | None
    revisions: list[PlannedRevision]
    held_back: list[PlannedRevision]
    lost: list[LostRows]
    unfinished: str | None
    running: str | None
    limits: LockLimits
    obstacle: Obstacle | None
    planned_at: datetime


def plan_migration(  # noqa: PLR0913  those of upgrade
    engine: Engine,
    direction: Direction,
    revision: str,
    options: MigrationOptions | None = None,
    *,
    schema: str | None = None,
    contract: bool = False,
) -> MigrationPlan:
    """Return what `upgrade` or `downgrade` would do, with the same arguments; nothing is changed.

    Raises:
        RevisionError, DatabaseAhead, TablesInOtherSchema, UntrustedObject, MigrationFailed, ConnectionFailed: those of
            `upgrade` before it changes anything; an error in later steps is the `obstacle`, as far as it is known.
        LockTimeout: see `short_lock_timeout`.
    """
    if not revision:
        raise RevisionError(f"The revision is empty. {list_revisions()}")
    options = options or load_migration_options()
    with connect(with_schema(engine, schema)) as connection:
        installed_schema = current_schema(connection)
        holder = find_lock_holder(connection, lock_key(VERSION_TABLE, installed_schema))
        connection.rollback()
        with declared_search_path(connection):
            before = current_revision(connection)
            route = read_route(connection, revision, before, direction, contract=contract)
            names = _revisions(route, direction)
            lost = count_data_loss(connection, find_data_loss(route.start, route.target))
            failure = find_obstacle(connection, route) if names else None
    held_back = revision_path(route.target, resolve_revision(revision, before))[1:] if route.contraction else []
    return MigrationPlan(
        direction=direction,
        database=describe_database(engine.url),
        schema=installed_schema,
        revision=before,
        target=route.target,
        revisions=[_planned(name) for name in names],
        held_back=[_planned(name) for name in held_back if name],
        lost=lost,
        unfinished=None if route.unfinished is None else str(route.unfinished),
        running=None if holder is None else str(holder),
        limits=LockLimits(
            options.lock_timeout, options.lock_retry_timeout, options.migration_lock_timeout, most_attempts(options)
        ),
        obstacle=None if failure is None else Obstacle(failure.exit_status, str(failure)),
        planned_at=datetime.now(UTC),
    )


def _revisions(route: Route, direction: Direction) -> list[str]:
    """Return the revisions that the migration applies or reverts, in its order."""
    path = revision_path(route.start, route.target)
    names = [name for name in (path[1:] if direction == "upgrade" else path[:-1]) if name]
    unfinished = route.unfinished
    # A downgrade that is undone ends where it began.
    if unfinished and direction_to_undo(unfinished, route.before, route.target) == "upgrade":
        names = [unfinished.revision, *names]
    return names


def _planned(revision: str) -> PlannedRevision:
    script = script_directory().get_revision(revision)
    texts = read_headings(script.module.__doc__ or "")
    locks, duration, if_it_fails, downgrade = (
        texts.get(heading, "") for heading in ("Locks", "Duration", "If it fails", "Downgrade")
    )
    return PlannedRevision(
        revision, " ".join(script.doc.split()), phase_of(revision), locks, duration, if_it_fails, downgrade
    )
