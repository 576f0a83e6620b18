"""The parts of an adoption plan, its input and its result."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from syntegra_db.errors import DecisionRequired

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

COLUMN = re.compile(r"[^.]+\.[^.]+")


@dataclass(frozen=True)
class AdoptionInput:
    """What only a person can decide: values by `table.column`, the time zone of naive timestamps, and accepted losses.

    A value is a plain word, number or date that the column can store, or one SQL expression over the row's columns. An
    expression may use subqueries and functions of PostgreSQL and pgvector, but no volatile function, aggregate or
    window function, and nothing that can run a function of a user. `timezone` is None for the session's own.
    `accepted_losses` are the `table.column` whose conversion may change values.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    timezone: str | None = None
    accepted_losses: tuple[str, ...] = ()


@dataclass(frozen=True)
class SchemaChange:
    """One object that is changed without touching rows, with its statements in order."""

    object: str
    expected: str
    found: str
    statements: tuple[str, ...]


@dataclass(frozen=True)
class Backfill:
    """A column whose missing values are supplied; `expression` is SQL, `rows` the number of rows that get a value.

    `adds_column` is true if the column itself is missing.
    """

    table: str
    column: str
    expression: str
    rows: int
    adds_column: bool


@dataclass(frozen=True)
class TableRewrite:
    """A table that is rewritten under ACCESS EXCLUSIVE; `seconds` is an estimate of the duration."""

    table: str
    columns: tuple[str, ...]
    rows: int
    bytes: int
    seconds: float
    statements: tuple[str, ...]


@dataclass(frozen=True)
class AcceptedLoss:
    """A column whose conversion changes the values of `rows` rows, as accepted; `effect` says how."""

    table: str
    column: str
    effect: str
    rows: int


@dataclass(frozen=True)
class WriterRequirement:
    """What a program that writes rows must give from now on for `object`, which is `table.column` or a table."""

    object: str
    requirement: str


@dataclass(frozen=True)
class OpenQuestion:
    """A decision that a person must make first: `count` rows, of which `ids` are the first; `advice` is what to do.

    `option` is the option of the command line that is suggested, if any, as arguments.
    """

    object: str
    reason: str
    advice: str
    count: int = 0
    ids: tuple[int | str, ...] = ()
    option: tuple[str, ...] = ()


@dataclass(frozen=True)
class ColumnTextSql:
    """SQL of the values of an existing column as text, which is the same before and after the adoption."""

    column: str
    before: str
    after: str


@dataclass(frozen=True)
class AdoptionPlan:
    """The steps from the installed tables to `revision`; the groups are applied in this order.

    `stamped` is the revision in the version table. `matches` and `kept` name objects, `backfills` and `rewrites` touch
    rows; a plan with `open_questions` cannot be applied. `losses` are the values that change, as accepted.
    """

    revision: str
    stamped: str | None
    timezone: str
    matches: tuple[str, ...]
    kept: tuple[str, ...]
    preparations: tuple[SchemaChange, ...]
    backfills: tuple[Backfill, ...]
    rewrites: tuple[TableRewrite, ...]
    changes: tuple[SchemaChange, ...]
    losses: tuple[AcceptedLoss, ...]
    writers: tuple[WriterRequirement, ...]
    open_questions: tuple[OpenQuestion, ...]
    texts: Mapping[str, tuple[ColumnTextSql, ...]]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to change."""
        steps = (self.preparations, self.backfills, self.rewrites, self.changes, self.open_questions)
        return self.stamped == self.revision and not any(steps)


@dataclass(frozen=True)
class AdoptionResult:
    """The applied plan, the path of the backup, and the number of rows by table.

    Every row is unchanged, except for the losses of the plan.
    """

    plan: AdoptionPlan
    backup: Path | None
    rows: Mapping[str, int]


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """Return the values of assignments such as `processed_data.client_id=7`, by `table.column`.

    Raises:
        ValueError: one is not an assignment.
    """
    values = {}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if not value or not COLUMN.fullmatch(name):
            raise ValueError(f"--set {name}: write TABLE.COLUMN=VALUE; VALUE can be an SQL expression")
        values[name] = value
    return values


def parse_columns(names: Iterable[str]) -> tuple[str, ...]:
    """Return `names`, each a `table.column`, once.

    Raises:
        ValueError: one is not.
    """
    columns = tuple(dict.fromkeys(names))
    for name in columns:
        if not COLUMN.fullmatch(name):
            raise ValueError(f"--accept-loss {name}: write TABLE.COLUMN")
    return columns


def require_no_open_questions(plan: AdoptionPlan) -> AdoptionPlan:
    """Return `plan`; raise `DecisionRequired`, with all open questions, if it has any."""
    if plan.open_questions:
        questions = "; ".join(map(describe_question, plan.open_questions))
        raise DecisionRequired(f"Decide first: {questions}. Nothing was changed.")
    return plan


def describe_question(question: OpenQuestion) -> str:
    """Return a question with its rows, such as `column clusters.id is required but missing (3 rows, id 1, 2, 3): …`."""
    more = ", …" if question.count > len(question.ids) else ""
    ids = f"{', '.join(map(str, question.ids))}{more}"
    plural = "" if question.count == 1 else "s"
    rows = f" ({question.count:,} row{plural}, id {ids})" if question.count else ""
    return f"{question.object} {question.reason}{rows}: {question.advice}"
