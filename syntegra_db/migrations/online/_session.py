"""What the steps of a revision run with: a connection, Alembic's operations on it, and the record of the steps."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from syntegra_db.connections import poll_in_background
from syntegra_db.migrations._blockers import read_blockers
from syntegra_db.migrations._options import limit_migration
from syntegra_db.migrations._protection import protect_tables
from syntegra_db.network import limit_session, psycopg_connection
from syntegra_db.revisions import revision_before
from syntegra_db.search_path import read_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.operations import Operations
    from sqlalchemy import Connection

    from syntegra_db.catalog import ObjectsElsewhere
    from syntegra_db.migrations._options import MigrationOptions
    from syntegra_db.recorded_steps import StepRecord

logger = logging.getLogger(__name__)

BLOCKER_SECONDS = 2.0


@dataclass(frozen=True)
class StepSession:
    """What a step runs with; `is_repeated` means that an object of the step may exist already, or no longer."""

    connection: Connection
    operations: Operations
    options: MigrationOptions
    record: StepRecord
    elsewhere: ObjectsElsewhere
    revision: str
    is_repeated: bool = False

    @property
    def schema(self) -> str:
        """The schema of the tables, where names are looked up that may be missing: the next one can have them too."""
        return read_session(self.connection).schema or ""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in a separate transaction.

        Raises:
            MigrationFailed: it changed an object in the schema of the extension.
        """
        # Before the first revision, Alembic has created its version table in the open one.
        self.connection.commit()
        with self.connection.begin():
            yield
            self.protect_tables()
            self.elsewhere.require_unchanged("A step of the revision")

    def protect_tables(self) -> None:
        """Protect the tables that the revision has created so far in the open transaction."""
        protect_tables(self.connection, revision_before(self.revision), self.revision)

    @contextmanager
    def recorded_transaction(self, number: int) -> Iterator[None]:
        """Run the block in a transaction that also records step `number` as finished."""
        with self.transaction():
            yield
            self.record.finish(number)

    def finish(self, number: int) -> None:
        """Record step `number`, whose work is committed, as finished."""
        with self.recorded_transaction(number):
            pass

    @contextmanager
    def unlimited_transaction(self, number: int) -> Iterator[None]:
        """Do the same without a limit for locks and time, for a lock that only other schema changes wait behind."""
        with self.recorded_transaction(number), self._logged_blockers():
            limit_session(self.connection, local=True, lock_timeout="0")
            yield

    @contextmanager
    def autocommit(self) -> Iterator[None]:
        """Run the block in autocommit, without those limits."""
        driver = psycopg_connection(self.connection)
        self.connection.commit()
        driver.autocommit = True
        try:
            with self._logged_blockers():
                limit_session(self.connection, lock_timeout="0")
                yield
        finally:
            if not driver.closed:
                self.connection.rollback()
                driver.autocommit = False
                limit_migration(self.connection, self.options)

    @contextmanager
    def _logged_blockers(self) -> Iterator[None]:
        """Log the sessions that the block waits for, from a second connection."""
        pid: int = self.connection.scalars(text("SELECT pg_backend_pid()")).one()
        logged: set[int] = set()

        def log(connection: Connection) -> None:
            blockers = read_blockers(connection, pid)
            if {blocker.pid for blocker in blockers} - logged:
                logger.info("Waiting for %s", "; ".join(map(str, blockers)))
                logged.update(blocker.pid for blocker in blockers)

        with poll_in_background(self.connection.engine, log, BLOCKER_SECONDS):
            yield
