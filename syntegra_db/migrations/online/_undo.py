"""Which steps undo a revision that was begun: those for what the record has as done, and no other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from alembic.operations.ops import AddColumnOp, CreateIndexOp

from syntegra_db.migrations.online._backfill import BackfillStep
from syntegra_db.migrations.online._steps import AutocommitStep, TransactionStep, describe, is_built_by
from syntegra_db.recorded_steps import words_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from syntegra_db.migrations.online._session import StepSession
    from syntegra_db.migrations.online._steps import Step
    from syntegra_db.recorded_steps import UnfinishedRevision

# The words of descriptions; the others are names.
WORDS = re.compile(
    "add|alter|analyze|bulk|by|check|column|constraint|create|drop|enum|execute|exists|for|foreign|if|index|insert|into|key|"
    "label|merge|month|new|not|null|of|on|partition|rows|set|sql|storage|table|the|to|trigger|unique",
    re.IGNORECASE,
)


def steps_to_undo(
    session: StepSession,
    unfinished: UnfinishedRevision,
    begun: Sequence[Step],
    undoing: Sequence[Step],
    *,
    is_resumed: bool,
) -> list[Step] | None:
    """Return those of `undoing` that undo what is done of `begun`, or None if they are not known.

    A step that undoes is found by the names in its description. SQL of a revision has none, and a backfill of a column
    that the revision did not add has no inverse. `is_resumed` means that the record is of an undo that was interrupted.
    """
    singles = list(_single_operations(undoing))
    if is_resumed:
        recorded = [step.description for step in unfinished.steps]
        return [step for step in (*singles, *_cleanup(begun)) if step.description in recorded]
    if [step.description for step in begun] != [step.description for step in unfinished.steps]:
        return None
    reached = [step for number, step in enumerate(begun) if _is_done(session, unfinished, number, step)]
    if not all(_has_inverse(step, begun) for step in reached):
        return None
    done, not_done = _names(reached), _names(step for step in begun if step not in reached)
    chosen = [step for step in singles if _names([step]) & done]
    unknown = [step for step in singles if reached and not _names([step]) & (done | not_done)]
    if unknown or any(isinstance(step, BackfillStep) for step in chosen):
        return None
    return [*chosen, *_cleanup(reached)]


def _cleanup(steps: Sequence[Step]) -> list[Step]:
    """Return the steps that drop what `steps` created only until a later one."""
    return [
        TransactionStep((operation,), f"{describe(operation)} if it is there")
        for step in reversed(steps)
        if isinstance(step, TransactionStep | AutocommitStep)
        for operation in step.cleanup
    ]


def _has_inverse(step: Step, begun: Sequence[Step]) -> bool:
    """Return whether dropping what the revision added undoes `step`."""
    if not isinstance(step, BackfillStep):
        return all(_names([single]) for single in _single_operations([step]))
    added = {
        describe(operation)
        for other in begun
        if isinstance(other, TransactionStep)
        for operation in other.operations
        if isinstance(operation, AddColumnOp)
    }
    return step.is_reversible or {f"add column {step.table}.{column}" for column in step.values} <= added


def _is_done(session: StepSession, unfinished: UnfinishedRevision, number: int, step: Step) -> bool:
    recorded = unfinished.steps[number]
    if recorded.is_finished or recorded.progress is not None:
        return True
    # An index can be built, but not recorded.
    is_next = number == unfinished.finished
    return (
        is_next
        and isinstance(step, AutocommitStep)
        and (not isinstance(step.operation, CreateIndexOp) or is_built_by(session, step.operation))
    )


def _single_operations(steps: Iterable[Step]) -> Iterator[Step]:
    """Yield the steps, with one operation each where the revision itself lists operations of Alembic."""
    for step in steps:
        if isinstance(step, TransactionStep) and step.is_collected:
            for operation in step.operations:
                yield TransactionStep((operation,), describe(operation))
        else:
            yield step


def _names(steps: Iterable[Step]) -> set[str]:
    return {word for word in words_of(steps) if not WORDS.fullmatch(word)}
