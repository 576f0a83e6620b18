"""Apply a plan: back up, then change everything in one transaction that commits only if every row is unchanged."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from psycopg.errors import InsufficientPrivilege
from sqlalchemy.exc import DBAPIError

from syntegra_db import wording
from syntegra_db.adoption import _queries
from syntegra_db.adoption._fingerprints import Fingerprint, backfill, fingerprint
from syntegra_db.adoption._model import AdoptionInput, AdoptionPlan, AdoptionResult, require_no_open_questions
from syntegra_db.adoption._planning import plan
from syntegra_db.backup import begin_unlimited_transaction, dump_database, raise_build_memory
from syntegra_db.catalog import ddl, load_manifest, verify
from syntegra_db.connections import connect
from syntegra_db.errors import AdoptionFailed, CommitUnconfirmed, ExtensionUnavailable, server_message
from syntegra_db.interruption import report_if_interrupted
from syntegra_db.migrations import (
    MigrationOptions,
    confirmed_transaction,
    migration_lock,
    protect_tables,
    retry_in_savepoint,
)
from syntegra_db.network import keep_transaction_alive
from syntegra_db.pgvector_support import MIN_BUILD_MEMORY
from syntegra_db.search_path import declared_search_path
from syntegra_db.sql import execute_raw, quote
from syntegra_db.trusted_tables import require_trusted_version_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection, Engine

logger = logging.getLogger(__name__)


def apply(
    engine: Engine,
    supplied: AdoptionInput | None = None,
    options: MigrationOptions | None = None,
    *,
    backup: bool = True,
) -> AdoptionResult:
    """Change the tables to those of the revision that they are closest to, and stamp it.

    Under the migration lock, the whole database is saved to a file, unless `backup` is False. Then one transaction
    locks the tables, plans again, changes them, verifies the schema and compares the rows with those before.

    Raises:
        AdoptionNotPossible, DecisionRequired: see `plan`; or the plan has open questions.
        AdoptionFailed: a statement failed, or rows or schema are not as expected; nothing was changed.
        CommitUnconfirmed: see `confirmed_transaction`; the message names the backup.
        BackupFailed, InvalidBackup, ClientProgramNotFound: see `dump_database`.
        UntrustedObject: see `declared_search_path` and `require_trusted_version_table`.
        LockTimeout: other sessions held a lock for longer than the options allow.
        ExtensionUnavailable: an administrator must create the extension first.
        ConnectionFailed: no connection could be opened; one of its subclasses says why.
    """
    supplied, options = supplied or AdoptionInput(), options or MigrationOptions()
    state = "The tables are unchanged."
    with (
        report_if_interrupted(lambda: state, unless_reported=True),
        connect(engine) as connection,
        migration_lock(connection, options.migration_lock_timeout),
    ):
        first_plan = require_no_open_questions(plan(connection, supplied))
        require_trusted_version_table(connection)
        connection.rollback()
        if first_plan.is_empty:
            return AdoptionResult(first_plan, None, {})
        path = None
        if backup:
            logger.info("Backing up the whole database")
            path = dump_database(connection)
            logger.info("The backup is %s", path)
            state = f"The tables are unchanged; the backup {path} is kept."
        try:
            with (
                confirmed_transaction(connection),
                keep_transaction_alive(connection),
                report_if_interrupted(lambda: state),
            ):
                begin_unlimited_transaction(connection)
                applied, rows = retry_in_savepoint(
                    connection,
                    lambda: _apply_in_transaction(connection, supplied, list(first_plan.texts)),
                    options,
                    state=state,
                )
        except CommitUnconfirmed as error:
            if path is None:
                raise
            raise CommitUnconfirmed(f"{error} The backup of the whole database is {path}.") from error
        except DBAPIError as error:
            raise _to_adoption_error(error) from error
        state = f"The tables are adopted, at revision {applied.revision}."
    return AdoptionResult(applied, path, rows)


def _apply_in_transaction(
    connection: Connection, supplied: AdoptionInput, tables: list[str]
) -> tuple[AdoptionPlan, dict[str, int]]:
    with declared_search_path(connection):
        return _change_tables(connection, supplied, tables)


def _change_tables(
    connection: Connection, supplied: AdoptionInput, tables: list[str]
) -> tuple[AdoptionPlan, dict[str, int]]:
    related = connection.scalars(_queries.RELATED_TABLES, {"tables": tables})
    if names := ", ".join([*map(quote, tables), *related]):
        execute_raw(connection, f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
    # A table with pending checks of deferred constraints cannot be changed.
    execute_raw(connection, "SET CONSTRAINTS ALL IMMEDIATE")
    raise_build_memory(connection, MIN_BUILD_MEMORY)
    planned = require_no_open_questions(plan(connection, supplied))
    if list(planned.texts) != tables:
        raise AdoptionFailed("Tables were created or dropped during the backup. Nothing was changed. Run this again.")
    connection.execute(_queries.SET_TIMEZONE, {"zone": planned.timezone})
    foreign_keys = _external_foreign_keys(connection, planned.revision)
    before = _fingerprint_tables(connection, planned)
    _run(connection, [statement for change in planned.preparations for statement in change.statements])
    expected = _backfill(connection, planned, before)
    for rewrite in planned.rewrites:
        started = time.monotonic()
        _run(connection, rewrite.statements)
        logger.info("Rewrote %s, %s rows, in %.1f s", rewrite.table, f"{rewrite.rows:,}", time.monotonic() - started)
    _run(connection, [statement for change in planned.changes for statement in change.statements])
    _stamp(connection, planned)
    protect_tables(connection, planned.revision)
    _verify_unchanged(connection, planned, expected)
    if _external_foreign_keys(connection, planned.revision) != foreign_keys:
        raise AdoptionFailed("A foreign key of the application would have changed. Nothing was changed.")
    _run(connection, [f"ANALYZE {quote(rewrite.table)};" for rewrite in planned.rewrites])
    return planned, {table: before[table].rows for table in tables}


def _run(connection: Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        execute_raw(connection, statement)


def _external_foreign_keys(connection: Connection, revision: str) -> list[tuple[str, ...]]:
    """Return the foreign keys between the managed tables and the application's."""
    managed = list(load_manifest(revision).tables)
    return [tuple(row) for row in connection.execute(_queries.EXTERNAL_FOREIGN_KEYS, {"managed": managed})]


def _fingerprint_tables(connection: Connection, planned: AdoptionPlan) -> dict[str, Fingerprint]:
    backfilled = {(column.table, column.column) for column in planned.backfills}
    return {
        table: fingerprint(
            connection,
            table,
            {text.column: text.before for text in texts},
            [text.column for text in texts if (table, text.column) in backfilled],
        )
        for table, texts in planned.texts.items()
    }


def _backfill(
    connection: Connection, planned: AdoptionPlan, before: Mapping[str, Fingerprint]
) -> dict[str, Fingerprint]:
    """Set the supplied values, and return the fingerprints that the tables must have at the end."""
    expected = dict(before)
    texts = {(table, text.column): text.before for table, columns in planned.texts.items() for text in columns}
    for column in planned.backfills:
        checksum = backfill(connection, column, texts.get((column.table, column.column), "NULL"))
        expected[column.table] = expected[column.table].with_backfilled(column.column, checksum)
    return expected


def _stamp(connection: Connection, planned: AdoptionPlan) -> None:
    if planned.stamped is None:
        create, *write = ddl.stamp(planned.revision).splitlines()
        _run(connection, [create])
        require_trusted_version_table(connection, locked=True)
        _run(connection, write)
    elif planned.stamped != planned.revision:
        require_trusted_version_table(connection, locked=True)
        _run(connection, [ddl.restamp(planned.revision)])
    if planned.stamped != planned.revision:
        _run(connection, [ddl.comment_version_table(planned.revision)])


def _verify_unchanged(connection: Connection, planned: AdoptionPlan, expected: Mapping[str, Fingerprint]) -> None:
    """Raise `AdoptionFailed` unless the schema is the one of the revision and every existing row is unchanged."""
    if drift := verify(connection).findings:
        findings = "; ".join(f"{finding.object} is {finding.found} instead of {finding.expected}" for finding in drift)
        raise AdoptionFailed(
            f"The tables would still differ from revision {planned.revision}: {findings}. Nothing was changed."
        )
    for table, texts in planned.texts.items():
        after = fingerprint(connection, table, {text.column: text.after for text in texts})
        if after.rows != expected[table].rows:
            raise AdoptionFailed(
                f"Table {table} had {wording.rows(expected[table].rows)} and would have {after.rows:,}. Nothing was "
                "changed."
            )
        changed = [name for name, value in after.checksums.items() if value != expected[table].checksums[name]]
        if changed:
            raise AdoptionFailed(
                f"Values of {table} would have changed in {', '.join(changed)}. Nothing was changed. Find the values "
                "that their new type represents differently."
            )


def _to_adoption_error(error: DBAPIError) -> AdoptionFailed | ExtensionUnavailable:
    reason = server_message(error)
    if isinstance(error.orig, InsufficientPrivilege) and "extension" in str(error.orig):
        return ExtensionUnavailable(
            f"{reason}. Ask an administrator to run this in that database: CREATE EXTENSION vector; "
            "Nothing was changed."
        )
    return AdoptionFailed(f"The server rejected a statement: {reason}. Nothing was changed.")
