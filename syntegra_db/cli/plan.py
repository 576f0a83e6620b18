"""The output of `--dry-run`: what a migration would do, and what prevents it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from syntegra_db.cli.logs import report
from syntegra_db.cli.output import echo, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.migrations import LockLimits, MigrationPlan, PlannedRevision

LABEL_WIDTH = 12


def print_plan(plan: MigrationPlan, *, json_output: bool) -> None:
    """Print the plan of a migration; exit with the status of the error that would end it, if any."""
    if json_output:
        print_json(plan)
    else:
        echo("\n".join(_lines(plan)))
    if plan.obstacle is not None:
        message = f"This {plan.direction} would fail. {plan.obstacle.message}"
        report(message, prefix="Error: ", exit_status=plan.obstacle.exit_status)
        raise typer.Exit(plan.obstacle.exit_status)


def _lines(plan: MigrationPlan) -> Iterator[str]:
    from syntegra_db.revisions import describe_revision

    state = f"The {plan.database} is at {describe_revision(plan.revision)}"
    if plan.revisions:
        verb = "apply" if plan.direction == "upgrade" else "revert"
        yield f"{state}; this {plan.direction} would {verb} {_names(plan.revisions)}:"
        for planned in plan.revisions:
            yield from _revision(planned, plan)
        yield ""
    else:
        yield f"{state}: this {plan.direction} has nothing to do."
    if plan.unfinished is not None:
        yield f"Not complete: {plan.unfinished}."
    if plan.held_back:
        yield (
            f"Not applied without --contract: {_names(plan.held_back)}. Add it when no service of "
            f"{describe_revision(plan.target)} or before runs."
        )
    if plan.lost:
        yield f"This deletes {', '.join(f'{lost.what} ({lost.description})' for lost in plan.lost)}."
    elif plan.revisions:
        yield "This deletes no rows and no values."
    if plan.running is not None:
        yield f"Another migration runs now: {plan.running}."
    if plan.revisions:
        yield _limits(plan.limits)
    yield "Nothing was changed."


def _names(revisions: list[PlannedRevision]) -> str:
    return ", ".join(planned.revision for planned in revisions)


def _revision(planned: PlannedRevision, plan: MigrationPlan) -> Iterator[str]:
    yield f"\n  {planned.revision}  {planned.title}"
    phases = {
        "expand": "expand: services of the revision before work on it",
        "contract": "contract: services of the revision before do not work on it",
    }
    texts = {"phase": phases.get(planned.phase or "", "")}
    if plan.direction == "upgrade":
        texts |= {"locks": planned.locks, "duration": planned.duration, "if it fails": planned.if_it_fails}
    else:
        texts |= {"downgrade": planned.downgrade}
    for label, text in texts.items():
        if text:
            yield f"    {label:<{LABEL_WIDTH}} {text}"


def _limits(limits: LockLimits) -> str:
    return (
        f"A statement waits at most {limits.lock_timeout:g} s for a lock, and other sessions queue behind it for at "
        f"most this time (--lock-timeout). Then the revision is tried again after a pause, in all at most "
        f"{limits.attempts} times in {limits.lock_retry_timeout:g} s (--lock-retry-timeout). This command waits "
        f"at most {limits.migration_lock_timeout:g} s for another migration (--migration-lock-timeout)."
    )
