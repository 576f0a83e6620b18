"""Create the partitions of the next months while services read and write."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.errors import InsufficientPrivilege
from sqlalchemy.exc import DBAPIError

from syntegra_db import wording
from syntegra_db.catalog import (
    CREATE_COMMAND,
    FIRST_MOMENT,
    LAST_MOMENT,
    MonthPartitions,
    load_manifest,
    read_month_partitions,
    require_usable_revision,
    tables_by_month,
    who_may_change_tables,
)
from syntegra_db.connections import connect
from syntegra_db.errors import ConnectionFailed, MigrationFailed, server_message
from syntegra_db.interruption import report_if_interrupted
from syntegra_db.migrations._commit import confirmed_transaction, connection_was_lost
from syntegra_db.migrations._lock import current_schema, migration_lock
from syntegra_db.migrations._options import MigrationOptions
from syntegra_db.migrations._retry import retry_in_savepoint
from syntegra_db.recorded_steps import require_no_unfinished_revision
from syntegra_db.revisions import current_revision, describe_revision
from syntegra_db.settings import describe_database
from syntegra_db.sql import MAX_NAME_BYTES, catalog_query, execute_raw, literal, qualify, quote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Connection, CursorResult, Engine

    from syntegra_db.catalog import Month, Partition

logger = logging.getLogger(__name__)

MAX_MONTHS = 120
TABLE = catalog_query("""
    SELECT pg_get_userbyid(relowner) AS owner,
           relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user) AS own,
           EXISTS (SELECT FROM pg_constraint WHERE confrelid = pg_class.oid AND contype = 'f') AS is_referenced,
           ARRAY(SELECT attname::text FROM pg_attribute
                 WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
                 ORDER BY attnum) AS columns
    FROM pg_class WHERE oid = to_regclass(:name)
""")
# A table has a type of its name too.
NAME_USE = catalog_query("""
    SELECT coalesce(pg_describe_object(CAST('pg_class' AS pg_catalog.regclass), to_regclass(:name), 0),
                    pg_describe_object(CAST('pg_type' AS pg_catalog.regclass), to_regtype(:name), 0)) AS description,
           EXISTS (SELECT FROM pg_class WHERE oid = to_regclass(:name) AND relkind IN ('r', 'p') AND NOT relispartition)
             AS is_attachable,
           to_regclass(:name) IS NOT NULL OR to_regtype(:name) IS NOT NULL AS is_used
""")


@dataclass(frozen=True)
class CreatedPartitions:
    """What `create_month_partitions` did for one table; `moved_rows` are from its default partition."""

    table: str
    created: list[str]
    moved_rows: int


def list_month_partitions(engine: Engine) -> list[MonthPartitions]:
    """Return the partitions of the tables that the revision of the database declares as partitioned by month.

    Raises:
        RevisionError, DatabaseAhead, TablesInOtherSchema: see `require_usable_revision`.
        LockTimeout: a migration holds a lock.
        ConnectionFailed: no connection could be opened; one of its subclasses says why.
    """
    with connect(engine) as connection:
        return read_month_partitions(connection, _tables(connection))


def create_month_partitions(
    engine: Engine, months: int = 3, *, move_rows: bool = False, options: MigrationOptions | None = None
) -> list[CreatedPartitions]:
    """Create the partitions of the current month and the `months` after it that do not exist, one by one.

    Months are in UTC. It changes nothing if all exist. Services continue to read and write: each partition is created
    as a table and attached, in one transaction that other sessions wait for at most a moment. If rows of a month are in
    the default partition, it fails, or moves them with `move_rows`: other sessions wait for the default partition until
    they are moved. What was created before an error is kept.

    Raises:
        MigrationFailed: the database is at no revision, a table is not partitioned as declared, a month has rows in the
            default partition, a name is in use or too long, or the server rejected a statement.
        LockTimeout: other sessions kept a table or the migration lock.
        RevisionError, DatabaseAhead, TablesInOtherSchema: see `require_usable_revision`.
        CommitUnconfirmed: see `confirmed_transaction`.
        ConnectionFailed: no connection could be opened, and one of its subclasses says why; or it was lost.
    """
    if not 0 <= months <= MAX_MONTHS:
        raise ValueError(f"months must be from 0 to {MAX_MONTHS}, not {months}")
    options = options or MigrationOptions()
    created: list[str] = []
    with (
        report_if_interrupted(lambda: _describe_created(created), unless_reported=True),
        connect(engine) as connection,
        migration_lock(connection, options.migration_lock_timeout),
    ):
        tables = _tables(connection)
        installed = read_month_partitions(connection, tables, months)
        if missing := tables.keys() - {table.table for table in installed}:
            raise MigrationFailed(
                f"{', '.join(sorted(missing))} of the {describe_database(engine.url)} is not partitioned by month, as "
                "its revision declares. Nothing was changed. `syntegra-db verify` reports the difference."
            )
        connection.rollback()
        creator = _Creator(connection, options, created, move_rows=move_rows)
        return [creator.create(table, tables[table.table]) for table in installed]


def _tables(connection: Connection) -> dict[str, str]:
    revision = current_revision(connection)
    require_usable_revision(connection, revision)
    require_no_unfinished_revision(connection)
    if revision is None:
        raise MigrationFailed(
            f"The {describe_database(connection.engine.url)} is at {describe_revision(None)}, so it has no partitions. "
            "Correct the name of the database, or migrate it: syntegra-db upgrade."
        )
    return tables_by_month(load_manifest(revision))


def _describe_created(partitions: list[str]) -> str:
    return f"Created before: {', '.join(partitions)}." if partitions else "Nothing was changed."


class _Creator:
    """Create the partitions of tables one by one, each in its own transaction."""

    def __init__(
        self, connection: Connection, options: MigrationOptions, created: list[str], *, move_rows: bool
    ) -> None:
        self._connection, self._options, self._created, self._move_rows = connection, options, created, move_rows

    def create(self, table: MonthPartitions, column: str) -> CreatedPartitions:
        """Create the partitions of the months that `table` has none of."""
        partitions = [
            _MonthPartition(self._connection, table, column, month, move_rows=self._move_rows)
            for month in table.missing_months
        ]
        moved = sum(self._create(partition) for partition in partitions)
        return CreatedPartitions(table.table, [partition.name for partition in partitions], moved)

    def _create(self, partition: _MonthPartition) -> int:
        state = _describe_created(self._created)
        try:
            with confirmed_transaction(self._connection), report_if_interrupted(lambda: state):
                moved = retry_in_savepoint(self._connection, partition.create, self._options, state=state)
        except DBAPIError as error:
            failure = f"The partition {partition.name} was not created: {server_message(error)}. {state}"
            if connection_was_lost(error):
                self._connection.invalidate()
                raise ConnectionFailed(f"{failure} Run this again when the server answers.") from None
            is_denied = isinstance(error.orig, InsufficientPrivilege)
            hint = who_may_change_tables(self._connection) if is_denied else None
            raise MigrationFailed(f"{failure} {hint or 'Correct the cause and run this again.'}") from None
        self._created.append(partition.name)
        logger.info("Created %s", partition.name)
        return moved


class _MonthPartition:
    """The partition of one month, which does not exist yet."""

    def __init__(
        self, connection: Connection, table: MonthPartitions, column: str, month: Month, *, move_rows: bool
    ) -> None:
        self._connection = connection
        self._table = table
        self._column = quote(column)
        self._month = month
        self._move_rows = move_rows
        self._schema = current_schema(connection)
        self.name = month.partition_name(table.table)
        connection.rollback()
        if len(self.name.encode()) > MAX_NAME_BYTES:
            raise MigrationFailed(
                f"The name {self.name} of a partition has more than {MAX_NAME_BYTES} bytes, at which PostgreSQL cuts "
                f"it. Rename the table {quote(table.table)}, or create the partition with another name."
            )

    def create(self) -> int:
        """Create and attach the table in the open transaction, and return how many rows were moved to it."""
        parent, new = qualify(self._schema, self._table.table), qualify(self._schema, self.name)
        state = self._connection.execute(TABLE, {"name": parent}).mappings().one()
        self._require_free_month()
        self._require_free_name(new)
        self._run("SET LOCAL TimeZone TO UTC")
        self._run(f"CREATE TABLE {new} (LIKE {parent} INCLUDING ALL EXCLUDING IDENTITY)")
        if not state["own"]:
            self._run(f"ALTER TABLE {new} OWNER TO {quote(state['owner'])}")
        # With the CHECK, the rows are not read again.
        check, first, last = quote(f"ck_{self.name}"), self._limit(self._month.start), self._limit(self._end)
        in_month = f"{self._column} >= {first} AND {self._column} < {last}"
        self._run(f"ALTER TABLE {new} ADD CONSTRAINT {check} CHECK ({in_month})")
        moved = self._move(new, in_month, state["columns"], is_referenced=state["is_referenced"])
        self._run(f"ALTER TABLE {parent} ATTACH PARTITION {new} FOR VALUES FROM ({first}) TO ({last})")
        self._run(f"ALTER TABLE {new} DROP CONSTRAINT {check}")
        return moved

    @property
    def _end(self) -> datetime:
        return self._month.later(1).start

    def _month_is_shared(self) -> Partition | None:
        """Return a partition that has a part of the month, if any."""
        for part in self._table.partitions:
            is_before = part.upper is not None and part.upper <= self._month.start
            is_after = part.lower is not None and part.lower >= self._end
            if not (part.is_default or is_before or is_after):
                return part
        return None

    def _require_free_month(self) -> None:
        part = self._month_is_shared()
        if part is not None:
            raise MigrationFailed(
                f"The month {self._month} of {self._table.table} is in part in the partition {part.name}, so it gets "
                f"none. Create one for each rest of the month: {' '.join(self._statements_for_the_rest())}"
            )

    def _statements_for_the_rest(self) -> Iterator[str]:
        """Yield the statement for each range of the month that no partition has."""
        first = self._month.start
        parts = [part for part in self._table.partitions if not part.is_default and part.upper != part.lower]
        for part in sorted(parts, key=lambda part: part.lower or FIRST_MOMENT):
            lower, upper = part.lower or FIRST_MOMENT, part.upper or LAST_MOMENT
            if lower > first:
                yield self._statement_for(first, min(lower, self._end))
            first = max(first, upper)
            if first >= self._end:
                return
        yield self._statement_for(first, self._end)

    def _statement_for(self, first: datetime, end: datetime) -> str:
        new = qualify(self._schema, f"{self.name}_from_{first:%d_%H%M}")
        parent = qualify(self._schema, self._table.table)
        limits = f"FROM ({self._limit(first)}) TO ({self._limit(end)})"
        return f"CREATE TABLE {new} PARTITION OF {parent} FOR VALUES {limits};"

    def _require_free_name(self, new: str) -> None:
        use = self._connection.execute(NAME_USE, {"name": new}).one()
        if not use.is_used:
            return
        table, month = self._table.table, self._month
        reason = f"The {use.description} exists, but is no partition of {table}, so the month {month} gets none."
        if not use.is_attachable:
            raise MigrationFailed(f"{reason} Rename it, and run this again.")
        raise MigrationFailed(
            f"{reason} Rename it, or attach it if it has the rows of {month}: ALTER TABLE {quote(table)} ATTACH "
            f"PARTITION {quote(self.name)} FOR VALUES FROM ({self._limit(month.start)}) TO ({self._limit(self._end)});"
        )

    def _move(self, new: str, in_month: str, columns: list[str], *, is_referenced: bool) -> int:
        default = self._table.default
        if default is None:
            return 0
        # Attaching takes this lock too: no row of the month is written in between.
        self._run(f"LOCK TABLE {default.qualified} IN ACCESS EXCLUSIVE MODE")
        count = f"SELECT pg_catalog.count(*) FROM {default.qualified} WHERE {in_month}"  # noqa: S608  quoted names
        rows = int(self._run(count).scalar_one())
        if not rows:
            return 0
        if is_referenced or not self._move_rows:
            self._reject_move(default, rows, is_referenced=is_referenced)
        names = ", ".join(map(quote, columns))
        return self._run(
            f"WITH moved AS (DELETE FROM {default.qualified} WHERE {in_month} RETURNING {names}) "  # noqa: S608  quoted names
            f"INSERT INTO {new} ({names}) SELECT {names} FROM moved"
        ).rowcount

    def _reject_move(self, default: Partition, rows: int, *, is_referenced: bool) -> None:
        where = f"{wording.rows(rows)} of {self._month} of {self._table.table} are in {default.name}"
        if is_referenced:
            raise MigrationFailed(
                f"{where}, and cannot be moved, because a foreign key references the table. Drop the foreign key, and "
                f"run this again: {CREATE_COMMAND} --move-rows"
            )
        raise MigrationFailed(
            f"{where}, so the month gets no partition. Other sessions wait for {default.name} while they are moved: "
            f"{CREATE_COMMAND} --move-rows"
        )

    @staticmethod
    def _limit(moment: datetime) -> str:
        return literal(f"{moment:%Y-%m-%d %H:%M:%S}+00")

    def _run(self, statement: str) -> CursorResult[Any]:
        return execute_raw(self._connection, statement)
