"""What a comparison says: one difference, what follows from it, and the statements that mend it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One difference between what a server holds and what it should.

    `fix` is SQL for psql, a statement a line, to be run outside a transaction; a line that begins with `--` is for
    a person, where no statement can decide. A finding that is no drift is a note: it is right, or may be on purpose.
    """

    object: str
    expected: str
    found: str
    impact: str
    fix: str
    is_drift: bool = True


@dataclass(frozen=True)
class DriftReport:
    """What was found in a database that says it is at `revision`, drift and notes apart."""

    revision: str | None
    findings: list[Finding]
    notes: list[Finding]
