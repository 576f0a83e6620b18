"""The result of a comparison: findings, each with its impact and its fix."""

from __future__ import annotations

from dataclasses import dataclass

NO_ACTION = "-- No action needed."


@dataclass(frozen=True)
class Finding:
    """One difference between the declared and the installed schema.

    `fix` is SQL for psql, one statement per line, to run outside a transaction; a line that begins with `--` is an
    instruction to the operator. A finding that is not drift is a note: it is harmless or may be intended.
    """

    object: str
    expected: str
    found: str
    impact: str
    fix: str
    is_drift: bool = True

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes two findings of different comparisons the same one."""
        return self.object, self.expected, self.found


@dataclass(frozen=True)
class DriftReport:
    """The drift and the notes found in a database that is stamped with `revision`.

    `compared_with` is the revision that the comparison was asked for, or `base`; None for that of the database.
    """

    revision: str | None
    findings: list[Finding]
    notes: list[Finding]
    compared_with: str | None = None
