"""What a plan consists of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SHOWN_IDS = 10


@dataclass(frozen=True)
class AdoptionInput:
    """What only a person can say: values by `table.column`, and the time zone of points in time that name none.

    A value is a plain word, number or date that the column can hold, or an SQL expression over the row's columns.
    `timezone` is None for the session's own.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    timezone: str | None = None


@dataclass(frozen=True)
class SchemaChange:
    """One thing that is brought in line without touching a row, with its statements in their order."""

    object: str
    expected: str
    found: str
    statements: tuple[str, ...]


@dataclass(frozen=True)
class Backfill:
    """A column whose missing values an answer supplies; `expression` is SQL, `rows` how many get a value.

    `adds_column` tells whether the column itself is missing.
    """

    table: str
    column: str
    expression: str
    rows: int
    adds_column: bool


@dataclass(frozen=True)
class TableRewrite:
    """A table that is written anew under ACCESS EXCLUSIVE; `seconds` is an estimate of how long."""

    table: str
    columns: tuple[str, ...]
    rows: int
    bytes: int
    seconds: float
    statements: tuple[str, ...]


@dataclass(frozen=True)
class OpenQuestion:
    """What a person has to decide first: `count` rows, of which `ids` are the first; `advice` is what to do."""

    object: str
    reason: str
    advice: str
    count: int = 0
    ids: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class ColumnTextSql:
    """A column that was there before: SQL of its values as text, the same before and after."""

    column: str
    before: str
    after: str


@dataclass(frozen=True)
class AdoptionPlan:
    """What stands between a database and `revision`; the groups are carried out in this order.

    `stamped` is the revision that the database says it is at. `matches` and `stays` name objects, `fills` and
    `rewrites` touch rows; nothing can be applied while there are `open_questions`.
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
    open_questions: tuple[OpenQuestion, ...]
    texts: Mapping[str, tuple[ColumnTextSql, ...]]

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to do."""
        steps = (self.preparations, self.backfills, self.rewrites, self.changes, self.open_questions)
        return self.stamped == self.revision and not any(steps)


@dataclass(frozen=True)
class AdoptionResult:
    """What was done: the plan, the backup, and the rows of each table, all of which are what they were."""

    plan: AdoptionPlan
    backup: Path | None
    rows: Mapping[str, int]
