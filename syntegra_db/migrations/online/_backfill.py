"""Give columns of existing rows a value, in batches."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from syntegra_db import wording
from syntegra_db.errors import RevisionError
from syntegra_db.migrations._templates import read_template
from syntegra_db.migrations.online._script import check_own_objects
from syntegra_db.migrations.online._steps import execute
from syntegra_db.recorded_steps import BackfillProgress
from syntegra_db.sql import execute_raw, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from alembic.operations.ops import MigrateOperation
    from sqlalchemy import Connection

    from syntegra_db.migrations.online._script import StepScript
    from syntegra_db.migrations.online._session import StepSession
    from syntegra_db.migrations.online._steps import Step

logger = logging.getLogger(__name__)

# A writer waits for a row of a batch for no longer than this.
BATCH_SECONDS = 0.15
FIRST_BATCH_ROWS = 1_000
MIN_BATCH_ROWS = 50
REPORT_SECONDS = 5.0
# Which `make revision` writes for a value that only the author knows.
PLACEHOLDER = "…"
# Of one batch in a file for psql, each after 0.5 s of waiting for a lock and a pause of 0.5 s.
MAX_ATTEMPTS = 60
RANGE_OF_IDS = "SELECT min(id) AS first_id, max(id) AS final_id FROM {table}"
END_OF_BATCH = "SELECT max(id) FROM (SELECT id FROM {table} WHERE id > {last_id} ORDER BY id LIMIT {rows}) AS batch"


@dataclass(frozen=True)
class BackfillStep:
    """Set columns of the rows that fulfil a condition, in batches by id, each in its own transaction.

    `values` are SQL expressions by column. `is_reversible` means that it only replaces NULL by what another column has.
    """

    table: str
    values: Mapping[str, str]
    condition: str
    max_batch_rows: int
    is_reversible: bool = False

    @property
    def description(self) -> str:
        """The table and the columns."""
        return f"backfill {', '.join(f'{self.table}.{column}' for column in self.values)}"

    @property
    def missing_values(self) -> str | None:
        """What the author of the revision has to write instead of `PLACEHOLDER`, or None."""
        if PLACEHOLDER not in self.values.values():
            return None
        return (
            f"{self.description} has no value yet. Write its SQL expression instead of {PLACEHOLDER}; if it is a "
            "renamed column, replace op.backfill by op.keep_alike(table, old, new)."
        )

    def run(self, session: StepSession, number: int, progress: BackfillProgress | None) -> None:
        """Run batch after batch until no row is left; rows that are inserted at the same time are included."""
        with session.transaction():
            progress = progress or self._begin(session.connection)
        rows, reporter = min(FIRST_BATCH_ROWS, self.max_batch_rows), _Reporter(self.description, progress)
        while True:
            started = time.monotonic()
            with session.transaction():
                # A crash of the server loses the last batches together with their record.
                session.connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
                end = self._end_of_batch(session.connection, progress.last_id, rows)
                if end is None:
                    break
                progress = progress.advance(end, self._update(session.connection, progress.last_id, end))
                session.record.save_progress(number, progress)
            factor = BATCH_SECONDS / max(time.monotonic() - started, BATCH_SECONDS / 2)
            rows = min(max(int(rows * factor), MIN_BATCH_ROWS), self.max_batch_rows)
            reporter.report(progress)
        session.finish(number)
        logger.info("%s: changed %s", self.description, wording.rows(progress.changed_rows))

    def in_transaction(self) -> Sequence[MigrateOperation]:
        """Return one statement for all rows."""
        return [execute(f"{self._statement()} WHERE {self.condition}")]

    def script(self, script: StepScript, number: int) -> str:
        """Return a block that commits each batch."""
        return read_template("backfill").format(
            table=quote(self.table),
            update=self._statement(),
            own_objects=check_own_objects(),
            condition=self.condition,
            number=number,
            step_table=script.step_table,
            first_batch_rows=min(FIRST_BATCH_ROWS, self.max_batch_rows),
            min_batch_rows=MIN_BATCH_ROWS,
            max_batch_rows=self.max_batch_rows,
            batch_seconds=BATCH_SECONDS,
            max_attempts=MAX_ATTEMPTS,
        )

    def _begin(self, connection: Connection) -> BackfillProgress:
        ids = execute_raw(connection, RANGE_OF_IDS.format(table=quote(self.table))).one()
        first_id = 1 if ids.first_id is None else ids.first_id
        return BackfillProgress(first_id, 0 if ids.final_id is None else ids.final_id, first_id - 1)

    def _end_of_batch(self, connection: Connection, last_id: int, rows: int) -> int | None:
        query = END_OF_BATCH.format(table=quote(self.table), last_id=last_id, rows=rows)
        end: int | None = execute_raw(connection, query).scalar_one()
        return end

    def _update(self, connection: Connection, last_id: int, end: int) -> int:
        statement = f"{self._statement()} WHERE id > {last_id} AND id <= {end} AND ({self.condition})"
        return execute_raw(connection, statement).rowcount

    def _statement(self) -> str:
        assignments = ", ".join(f"{quote(column)} = {value}" for column, value in self.values.items())
        return f"UPDATE {quote(self.table)} SET {assignments}"  # noqa: S608  of a revision


class _Reporter:
    """Log the rows, the share of the ids and the time left, every few seconds."""

    def __init__(self, description: str, start: BackfillProgress) -> None:
        self._description = description
        self._first_share = start.share
        self._started = self._reported = time.monotonic()

    def report(self, progress: BackfillProgress) -> None:
        """Log `progress` if it is time."""
        now = time.monotonic()
        if now - self._reported < REPORT_SECONDS:
            return
        self._reported = now
        shares_per_second = (progress.share - self._first_share) / (now - self._started)
        left = wording.duration((1 - progress.share) / shares_per_second) if shares_per_second else "an unknown time"
        logger.info(
            "%s: changed %s, %.0f %%, about %s left",
            self._description,
            wording.rows(progress.changed_rows),
            100 * progress.share,
            left,
        )


def require_values(steps: Iterable[Step], file: Path) -> None:
    """Raise `RevisionError` if a backfill of the revision in `file` has no value yet."""
    for step in steps:
        if isinstance(step, BackfillStep) and step.missing_values:
            raise RevisionError(f"{file}: {step.missing_values} Then run this again.")
