"""The record of a revision whose steps are committed one by one: a table that exists until the revision is complete."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sqlalchemy import BigInteger, Boolean, Column, Integer, MetaData, Table, Text, select

from syntegra_db.errors import RevisionError, escape_control_characters
from syntegra_db.revisions import VERSION_TABLE, all_revisions, revision_before
from syntegra_db.search_path import read_session
from syntegra_db.sql import (
    ORDINARY_TABLE,
    RELATION_KIND,
    catalog_query,
    execute_raw,
    lock_for_reading,
    qualify,
    qualify_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Row

Direction = Literal["upgrade", "downgrade"]
OPPOSITE: dict[Direction, Direction] = {"upgrade": "downgrade", "downgrade": "upgrade"}
STEP_TABLE = f"{VERSION_TABLE}_steps"
PROGRESS_COLUMNS = ("first_id", "final_id", "last_id", "changed_rows")
# Who may write to the table could let it run code; the owner of the version table migrates anyway.
FIND_TABLE = catalog_query(f"""
    SELECT {RELATION_KIND.format(relkind="relkind")} AS kind, row_security_active(pg_class.oid) AS hides_rows,
           rolsuper OR rolname = current_user AS is_trusted,
           rolsuper OR rolname = current_user
             OR relowner = (SELECT relowner FROM pg_class WHERE oid = to_regclass(:version)) AS is_own,
           CAST(:columns AS pg_catalog.text[]) <@ ARRAY(
             SELECT concat(attname, ' ', format_type(atttypid, atttypmod)) FROM pg_attribute
             WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
           ) AS has_columns
    FROM pg_class JOIN pg_roles ON pg_roles.oid = relowner WHERE pg_class.oid = to_regclass(:name)
""")  # noqa: S608  a constant


@dataclass(frozen=True)
class BackfillProgress:
    """The ids of a table when its backfill began, the last one that is done, and the number of changed rows."""

    first_id: int
    final_id: int
    last_id: int
    changed_rows: int = 0

    @property
    def share(self) -> float:
        """The share of the ids that are done, 0 to 1."""
        return min((self.last_id - self.first_id + 1) / max(self.final_id - self.first_id + 1, 1), 1)

    def advance(self, last_id: int, changed_rows: int) -> BackfillProgress:
        """Return the progress after a batch that ends with `last_id`."""
        return replace(self, last_id=last_id, changed_rows=self.changed_rows + changed_rows)


@dataclass(frozen=True)
class RecordedStep:
    """One step of a revision, in the order of their numbers, which begin with 1."""

    description: str
    is_finished: bool = False
    progress: BackfillProgress | None = None


@dataclass(frozen=True)
class UnfinishedRevision:
    """A revision whose first steps may be committed, while `alembic_version` has the revision before or after it.

    `is_repeated` means that the direction was changed on the way: an object of a step may exist already, or no longer.
    """

    revision: str
    direction: Direction
    is_repeated: bool
    steps: tuple[RecordedStep, ...]

    @property
    def finished(self) -> int:
        """The number of steps that are committed."""
        return sum(step.is_finished for step in self.steps)

    def __str__(self) -> str:
        number = min(self.finished + 1, len(self.steps))
        step = self.steps[number - 1]
        share = f" ({100 * step.progress.share:.0f} %)" if step.progress else ""
        return (
            f"the {self.direction} of revision {self.revision} is unfinished: step {number} of {len(self.steps)}, "
            f"{step.description}{share}"
        )

    def command(self, direction: Direction) -> str:
        """Return the command that ends it in `direction`."""
        if direction == "upgrade":
            return f"syntegra-db upgrade {self.revision}"
        # Not relative: what is relative leads further if it is run twice.
        is_known = self.revision in all_revisions()
        return f"syntegra-db downgrade {revision_before(self.revision) or 'base' if is_known else '-1'}"

    @property
    def instructions(self) -> str:
        """The commands that finish it and undo it."""
        undo = self.command(OPPOSITE[self.direction])
        return f"To finish it: {self.command(self.direction)}; to undo it: {undo}"


class Described(Protocol):
    """What has a description, such as a step of a revision and its record."""

    @property
    def description(self) -> str:
        """Words and names of objects, separated by blanks and commas."""


def words_of(steps: Iterable[Described]) -> set[str]:
    """Return the words and names in the descriptions of `steps`."""
    return {word for step in steps for word in re.split(r"[ ,]+", step.description)}


def read_unfinished_revision(connection: Connection) -> UnfinishedRevision | None:
    """Return the revision that is recorded as unfinished in the current schema, or None.

    Raises:
        RevisionError: the table of the record is not an ordinary table of a role that migrates.
    """
    if not _has_trusted_table(connection):
        return None
    lock_for_reading(connection, _table_name(connection))
    # It may have been replaced before the lock was granted.
    if not _has_trusted_table(connection):
        return None
    table = step_table(read_session(connection).schema)
    rows = connection.execute(select(table).order_by(table.c.step)).all()
    if not rows:
        return None
    steps = tuple(
        RecordedStep(
            escape_control_characters(row.description),
            row.is_finished,
            None
            if row.last_id is None
            else BackfillProgress(row.first_id, row.final_id, row.last_id, row.changed_rows),
        )
        for row in rows
    )
    first = rows[0]
    return UnfinishedRevision(
        escape_control_characters(first.revision),
        "upgrade" if first.direction == "upgrade" else "downgrade",
        first.is_repeated,
        steps,
    )


def require_no_unfinished_revision(connection: Connection) -> None:
    """Raise `RevisionError` if a revision is unfinished, so that the schema is that of no revision."""
    unfinished = read_unfinished_revision(connection)
    if unfinished is not None:
        raise RevisionError(f"Nothing was changed, because {unfinished}. {unfinished.instructions}")


class StepRecord:
    """Write the record of one revision, each time in the open transaction of `connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._table = step_table(read_session(connection).schema)

    def begin(self, revision: UnfinishedRevision) -> None:
        """Replace the record by `revision`.

        A table of another role, such as the owner of the version table, is replaced too: a trigger of it could run.
        """
        found = _find_table(self._connection)
        if found is not None and not found.is_trusted:
            self._table.drop(self._connection, checkfirst=False)
        if found is None or not found.is_trusted:
            self._table.create(self._connection, checkfirst=False)
            execute_raw(self._connection, f"GRANT SELECT ON {_table_name(self._connection)} TO PUBLIC")
        self._connection.execute(self._table.delete())
        rows = [
            {
                "step": number,
                "revision": revision.revision,
                "direction": revision.direction,
                "is_repeated": revision.is_repeated,
                "description": step.description,
                "is_finished": step.is_finished,
                **dict.fromkeys(PROGRESS_COLUMNS),
                **(vars(step.progress) if step.progress else {}),
            }
            for number, step in enumerate(revision.steps, 1)
        ]
        self._connection.execute(self._table.insert(), rows)

    def save_progress(self, number: int, progress: BackfillProgress) -> None:
        """Record how far the backfill of a step is."""
        self._update(number, **vars(progress))

    def finish(self, number: int) -> None:
        """Record a step as finished."""
        self._update(number, is_finished=True)

    def remove(self) -> None:
        """Drop the table, because the revision is complete."""
        self._table.drop(self._connection, checkfirst=False)

    def _update(self, number: int, **values: object) -> None:
        self._connection.execute(self._table.update().where(self._table.c.step == number).values(values))


def step_table(schema: str | None) -> Table:
    """Return the table of the record in `schema`."""
    return Table(
        STEP_TABLE,
        MetaData(),
        Column("step", Integer, primary_key=True, autoincrement=False),
        Column("revision", Text, nullable=False),
        Column("direction", Text, nullable=False),
        Column("is_repeated", Boolean, nullable=False),
        Column("description", Text, nullable=False),
        Column("is_finished", Boolean, nullable=False),
        *(Column(name, BigInteger) for name in PROGRESS_COLUMNS),
        schema=schema,
    )


def _has_trusted_table(connection: Connection) -> bool:
    found = _find_table(connection)
    if found is None:
        return False
    name = _table_name(connection)
    if found.kind != ORDINARY_TABLE or found.hides_rows or not found.is_own:
        raise RevisionError(
            f"The {found.kind} {name} is not an ordinary table of the owner of {VERSION_TABLE}, so its content is not "
            "trusted. Find out who created it, and drop or rename it."
        )
    if not found.has_columns:
        raise RevisionError(
            f"{name} has other columns than this package creates. Find out who created it, and drop or rename it."
        )
    return True


def _table_name(connection: Connection) -> str:
    return qualify(read_session(connection).schema, STEP_TABLE)


def _find_table(connection: Connection) -> Row[Any] | None:
    schema = read_session(connection).schema
    parameters = {
        "name": qualify_name(schema, STEP_TABLE),
        "version": qualify_name(schema, VERSION_TABLE),
        "columns": [
            f"{column.name} {column.type.compile(connection.dialect).lower()}" for column in step_table(None).c
        ],
    }
    return connection.execute(FIND_TABLE, parameters).first()
