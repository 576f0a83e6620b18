"""Run the steps of revisions on a database in use, continue where an interrupted run ended, and undo one."""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from alembic import op
from alembic.operations import Operations
from alembic.runtime.migration import RevisionStep

from syntegra_db.catalog import ObjectsElsewhere, declared_names, require_own_names
from syntegra_db.errors import MigrationFailed
from syntegra_db.migrations._protection import protect_tables
from syntegra_db.migrations.online._backfill import require_values
from syntegra_db.migrations.online._collection import collect_steps
from syntegra_db.migrations.online._session import StepSession
from syntegra_db.migrations.online._steps import not_concurrently
from syntegra_db.migrations.online._undo import steps_to_undo
from syntegra_db.recorded_steps import (
    OPPOSITE,
    RecordedStep,
    StepRecord,
    UnfinishedRevision,
    read_unfinished_revision,
    require_no_unfinished_revision,
)
from syntegra_db.revisions import describe_revision, position_of, revision_before, revision_file, script_directory
from syntegra_db.trusted_tables import require_trusted_version_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import ModuleType

    from alembic.runtime.migration import MigrationContext, MigrationStep
    from sqlalchemy import Connection

    from syntegra_db.migrations._options import MigrationOptions
    from syntegra_db.migrations.online._collection import CollectedSteps
    from syntegra_db.migrations.online._steps import Step
    from syntegra_db.recorded_steps import Direction

    MigrationsFunction = Callable[[Any, MigrationContext], Iterable[MigrationStep]]

logger = logging.getLogger(__name__)


def migrations_function(context: ModuleType) -> MigrationsFunction:
    """Return the function with which the Alembic command of `context` yields the revisions that it is going to run."""
    function: MigrationsFunction = context._proxy.context_opts["fn"]  # noqa: SLF001  before `configure`, no other way
    return function


def run_online(
    function: MigrationsFunction, connection: Connection, options: MigrationOptions, target: str | None
) -> MigrationsFunction:
    """Return `function`, which yields the revisions that Alembic is going to run, with their steps run before that.

    Alembic itself runs the end of each: the removal of its record, in the transaction that writes the new revision. A
    revision that was begun, and that the way to `target` does not include, is undone first.
    """

    def with_steps(heads: tuple[str, ...], context: MigrationContext) -> Iterator[MigrationStep]:
        current = next(iter(heads), None)
        run = _Run(connection, options, Operations(context))
        run.undo(current, target)
        for migration in list(function(heads, context)) if target != current else ():
            if isinstance(migration, RevisionStep):
                revision = migration.revision.revision
                # What Alembic was asked for can lead further: beyond a contraction, or by `-2` after an undo.
                beyond = position_of(revision) - position_of(target)
                if beyond > 0 if migration.is_upgrade else beyond <= 0:
                    return
                collected = _collect(context, migration)
                direction: Direction = "upgrade" if migration.is_upgrade else "downgrade"
                names = _Names(connection, revision, direction, is_begun=run.has_begun(revision))
                if collected is None:
                    migration.migration_fn = names.checked(run.whole(revision, direction, migration.migration_fn))
                elif collected.is_divided or run.has_begun(revision):
                    names.require_before()
                    run.finish(revision, direction, collected.steps)
                    migration.migration_fn = names.checked(run.record.remove, is_begun=True)
                else:
                    migration.migration_fn = names.checked(migration.migration_fn)
            else:
                # A stamp would declare the steps finished, or never begun.
                require_no_unfinished_revision(connection)
            migration.migration_fn = _with_trusted_version_table(connection, migration.migration_fn)
            yield migration

    return with_steps


def run_inside_transaction(function: MigrationsFunction, connection: Connection) -> MigrationsFunction:
    """Return `function`, which yields the revisions that Alembic is going to run, for the caller's transaction."""

    def with_steps(heads: tuple[str, ...], context: MigrationContext) -> Iterator[MigrationStep]:
        for migration in function(heads, context):
            if isinstance(migration, RevisionStep):
                collected = _collect(context, migration)
                if collected is None:
                    # Of the operations that Alembic has installed, whose revision can have an autocommit block.
                    operations = vars(op)["_proxy"]
                    vars(operations)["invoke"] = lambda operation: Operations(context).invoke(
                        not_concurrently(operation)
                    )
                    vars(context)["autocommit_block"] = nullcontext
                elif collected.is_divided:
                    migration.migration_fn = partial(_invoke_all, Operations(context), collected.steps)
                direction: Direction = "upgrade" if migration.is_upgrade else "downgrade"
                names = _Names(connection, migration.revision.revision, direction)
                migration.migration_fn = names.checked(migration.migration_fn)
            migration.migration_fn = _with_trusted_version_table(connection, migration.migration_fn)
            yield migration

    return with_steps


def _collect(context: MigrationContext, migration: RevisionStep) -> CollectedSteps | None:
    """Return the steps of a revision; the server would not notice a missing value if the table is empty."""
    collected = collect_steps(context, migration.migration_fn)
    require_values(collected.steps if collected else (), revision_file(migration.revision.revision))
    return collected


def _with_trusted_version_table(connection: Connection, function: Callable[..., None]) -> Callable[..., None]:
    """Return `function` with the check, also in the transaction in which Alembic then writes the revision."""

    def run(**arguments: Any) -> None:
        require_trusted_version_table(connection)
        function(**arguments)
        require_trusted_version_table(connection, locked=True)

    return run


class _Names:
    """The names that a revision finds in the schema of the tables, before and after it: see `require_own_names`.

    Of a revision that was begun, only what is declared before and after it must be there. Steps drop the rest with its
    schema, and CREATE needs none.
    """

    def __init__(self, connection: Connection, revision: str, direction: Direction, *, is_begun: bool = False) -> None:
        ends = [revision_before(revision), revision]
        self._start, self._end = ends if direction == "upgrade" else reversed(ends)
        self._connection = connection
        self._is_begun = is_begun
        self._name = f"the {direction} of revision {revision}"

    def require_before(self) -> None:
        """Raise `MigrationFailed` if the revision could change or reference an object in another schema."""
        revisions = (self._start, self._end) if self._is_begun else (self._start,)
        names = declared_names(*revisions, in_all=True)
        require_own_names(self._connection, names, f"{self._name} could change that one, so it was not run")

    def checked(self, function: Callable[..., None], *, is_begun: bool = False) -> Callable[..., None]:
        """Return `function` with that check unless `is_begun`, and with one of what it has created elsewhere."""

        def run(**arguments: Any) -> None:
            if not is_begun:
                self.require_before()
            elsewhere = ObjectsElsewhere(self._connection)
            function(**arguments)
            protect_tables(self._connection, self._start, self._end)
            elsewhere.require_unchanged(self._name.capitalize())
            consequence = f"a later revision could change that one, so {self._name} was not committed"
            require_own_names(self._connection, declared_names(self._end), consequence)

        return run


def _invoke_all(operations: Operations, steps: Iterable[Step]) -> None:
    for step in steps:
        for operation in step.in_transaction():
            operations.invoke(operation)


def direction_to_undo(
    unfinished: UnfinishedRevision | None, current: str | None, target: str | None
) -> Direction | None:
    """Return in which direction an unfinished revision is undone, if the way from `current` to `target` excludes it."""
    if unfinished is None:
        return None
    position = position_of(unfinished.revision)
    is_applied = position_of(current) >= position
    if (position_of(target) >= position) != is_applied:
        return None
    return "upgrade" if is_applied else "downgrade"


class _Run:
    """The steps of revisions on `connection`, from the first one that is not recorded as finished."""

    def __init__(self, connection: Connection, options: MigrationOptions, operations: Operations) -> None:
        self.record = StepRecord(connection)
        self._connection = connection
        self._session = partial(StepSession, connection, operations, options, self.record, ObjectsElsewhere(connection))
        self._context = operations.migration_context

    def has_begun(self, revision: str) -> bool:
        """Return whether steps of `revision` are recorded."""
        unfinished = read_unfinished_revision(self._connection)
        return unfinished is not None and unfinished.revision == revision

    def undo(self, current: str | None, target: str | None) -> None:
        """Run the opposite of a revision that was begun, if the way from `current` to `target` does not include it.

        Only what the record has as begun is undone.

        Raises:
            MigrationFailed: what one of the directions does is not known or would change values; or see
                `require_own_names`, for all that is declared before or after the revision.
        """
        unfinished = read_unfinished_revision(self._connection)
        direction = direction_to_undo(unfinished, current, target)
        if unfinished is None or direction is None:
            return
        names = declared_names(revision_before(unfinished.revision), unfinished.revision)
        require_own_names(self._connection, names, "an undo could drop that one, so it was not run")
        module = script_directory().get_revision(unfinished.revision).module
        begun, undoing = (
            collect_steps(self._context, getattr(module, name)) for name in (OPPOSITE[direction], direction)
        )
        session = self._session(unfinished.revision)
        steps = None
        if begun is not None and undoing is not None:
            steps = steps_to_undo(
                session, unfinished, begun.steps, undoing.steps, is_resumed=unfinished.direction == direction
            )
        if begun is None or steps is None:
            raise MigrationFailed(
                f"The database is at {describe_revision(current)}, and {unfinished}. It cannot be undone: it is not "
                "known how to undo each of the steps without changing other values. Finish it: "
                f"{unfinished.command(OPPOSITE[direction])}"
            )
        if steps:
            self.finish(unfinished.revision, direction, steps)
        with session.transaction():
            self.record.remove()

    def finish(self, revision: str, direction: Direction, steps: Sequence[Step]) -> None:
        """Run the steps of `revision` that are not finished.

        Raises:
            MigrationFailed: the revision was changed after it was begun.
        """
        planned = self._plan(revision, direction, steps)
        session = self._session(revision, is_repeated=planned.is_repeated)
        with session.transaction():
            self.record.begin(planned)
        for number, (step, recorded) in enumerate(zip(steps, planned.steps, strict=True), 1):
            if not recorded.is_finished:
                logger.info("%s, step %d of %d: %s", revision, number, len(steps), step.description)
                step.run(session, number, recorded.progress)

    def whole(self, revision: str, direction: Direction, function: Callable[[], None]) -> Callable[[], None]:
        """Return `function` with an autocommit block that works on this connection.

        What the revision does cannot be divided, so only the fact that it was begun is recorded, with the first block.
        """
        session = self._session(revision)

        @contextmanager
        def autocommit_block() -> Iterator[None]:
            step = RecordedStep("the whole revision, which uses the connection itself")
            self.record.begin(UnfinishedRevision(revision, direction, is_repeated=False, steps=(step,)))
            session.protect_tables()
            with session.autocommit():
                yield
            # Alembic commits it with the new revision.
            self._context._transaction = self._connection.begin()  # noqa: SLF001

        def run() -> None:
            vars(self._context)["autocommit_block"] = autocommit_block
            function()
            if self.has_begun(revision):
                self.record.remove()

        return run

    def _plan(self, revision: str, direction: Direction, steps: Sequence[Step]) -> UnfinishedRevision:
        """Return the steps to record, with what is finished of them."""
        planned = tuple(RecordedStep(step.description) for step in steps)
        unfinished = read_unfinished_revision(self._connection)
        if unfinished is None:
            return UnfinishedRevision(revision, direction, is_repeated=False, steps=planned)
        if unfinished.direction != direction:
            return UnfinishedRevision(revision, direction, is_repeated=True, steps=planned)
        if [step.description for step in unfinished.steps] != [step.description for step in planned]:
            raise MigrationFailed(
                f"Revision {revision} was changed after its {direction} was begun; {unfinished}. Give it its earlier "
                "steps, and run this again."
            )
        return unfinished
