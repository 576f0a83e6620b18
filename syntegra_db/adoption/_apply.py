"""Carrying a plan out: a backup, then one transaction that is taken back whole unless every row is what it was."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from psycopg.errors import InsufficientPrivilege
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from syntegra_db.adoption._fingerprints import Fingerprint, backfill, fingerprint
from syntegra_db.adoption._model import AdoptionInput, AdoptionPlan, AdoptionResult, OpenQuestion
from syntegra_db.adoption._planning import plan
from syntegra_db.catalog import ddl, load_manifest, verify
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import AdoptionFailed, DecisionRequired, ExtensionUnavailable, server_message
from syntegra_db.migrations._lock import migration_lock
from syntegra_db.migrations._options import MigrationOptions
from syntegra_db.migrations._retry import retry_in_savepoint
from syntegra_db.sql import execute_raw, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

logger = logging.getLogger(__name__)

APPLICATION_NAME = "syntegra_db adoption"
CREATE_EXTENSION = "CREATE EXTENSION vector;"
# The text of a number or a moment must not depend on who looks.
TEXT_FORMAT_SETTINGS = (
    "SET LOCAL extra_float_digits = 1",
    "SET LOCAL DateStyle = 'ISO'",
    "SET LOCAL IntervalStyle = 'postgres'",
)
# pgvector 0.8.4 refuses to build its index with less.
BUILD_MEMORY = (
    "SELECT set_config('maintenance_work_mem', greatest(setting::bigint, 65536) || 'kB', true) "
    "FROM pg_settings WHERE name = 'maintenance_work_mem'"
)
# Whoever checks rows at the end of the transaction would keep their table from being changed before.
CONSTRAINTS_NOW = "SET CONSTRAINTS ALL IMMEDIATE"
# Tables of the application that are locked as well when a foreign key between them and ours is made anew.
RELATED_TABLES = text("""
    SELECT DISTINCT other::regclass::text
    FROM pg_constraint CROSS JOIN LATERAL unnest(ARRAY[conrelid, confrelid]) AS other
    WHERE contype = 'f' AND conparentid = 0
      AND (conrelid = ANY (CAST(:tables AS regclass[])) OR confrelid = ANY (CAST(:tables AS regclass[])))
      AND other <> ALL (CAST(:tables AS regclass[])) AND has_table_privilege(other, 'UPDATE, DELETE, TRUNCATE')
    ORDER BY 1
""")
FOREIGN_KEYS = text("""
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE contype = 'f' AND conparentid = 0
      AND (conrelid::regclass::text = ANY (:ours)) <> (confrelid::regclass::text = ANY (:ours))
    ORDER BY 1, 2
""")


def apply(
    url: URL, answers: AdoptionInput | None = None, options: MigrationOptions | None = None, *, backup: bool = True
) -> AdoptionResult:
    """Bring the database at `url` to the revision that it comes closest to, and stamp it.

    Under the migration lock, the whole database is saved to a file, unless `backup` is False. The tables are then
    locked, looked at once more, changed, verified and compared with what they were, in one transaction.

    Raises:
        AdoptionRefused, DecisionNeeded: see `plan`; or the plan leaves something to decide.
        AdoptionFailed: a statement failed, or rows or catalog are not what they should be; nothing was changed.
        BackupFailed, ProgramMissing: see `save`.
        LockNotObtained: others kept a lock for longer than the options allow.
        ExtensionUnavailable: an administrator has to create the extension first.
        ConnectionFailed: there is no connection; one of its subclasses says why.
    """
    answers, options = answers or AdoptionInput(), options or MigrationOptions()
    engine = unpooled_engine(url, APPLICATION_NAME)
    with connect(engine) as connection, migration_lock(connection, options.migration_lock_timeout):
        wanted = require_no_open_questions(plan(connection, answers))
        connection.rollback()
        if wanted.is_empty:
            return AdoptionResult(wanted, None, {})
        saved = _save(connection) if backup else None
        try:
            adopted, rows = _apply_with_retries(connection, answers, options)
            connection.commit()
        except DBAPIError as error:
            raise _failure(error) from error
    return AdoptionResult(adopted, saved, rows)


def require_no_open_questions(wanted: AdoptionPlan) -> AdoptionPlan:
    """Return the plan if nothing is left to decide.

    Raises:
        DecisionNeeded: with all that is.
    """
    if wanted.open_questions:
        raise DecisionRequired(
            f"Decide first: {'; '.join(describe_question(decision) for decision in wanted.open_questions)}. Nothing "
            f"was changed."
        )
    return wanted


def describe_question(decision: OpenQuestion) -> str:
    """Return a decision with the ids that it is about, such as `column clusters.id is required (3 rows: 1, 2, 3)`."""
    shown = ", ".join(map(str, decision.ids))
    more = ", …" if decision.count > len(decision.ids) else ""
    rows = f" ({decision.count:,} row{'' if decision.count == 1 else 's'}, id {shown}{more})" if decision.count else ""
    return f"{decision.object} {decision.reason}{rows}: {decision.advice}"


def _save(connection: Connection) -> Path:
    from syntegra_db.backup._full_dump import dump_database

    logger.info("Saving the whole database")
    path = dump_database(connection)
    logger.info("Saved in %s", path)
    return path


def _apply_with_retries(
    connection: Connection, answers: AdoptionInput, options: MigrationOptions
) -> tuple[AdoptionPlan, dict[str, int]]:
    """Do everything in the connection's transaction, stepping aside and trying again for a _lock."""
    from syntegra_db.backup._session import begin_unlimited_transaction

    tables = list(plan(connection, answers).texts)
    connection.rollback()
    begin_unlimited_transaction(connection)
    return retry_in_savepoint(connection, lambda: _apply_in_transaction(connection, answers, tables), options)


def _apply_in_transaction(
    connection: Connection, answers: AdoptionInput, tables: list[str]
) -> tuple[AdoptionPlan, dict[str, int]]:
    _lock_tables(connection, tables)
    for setting in (*TEXT_FORMAT_SETTINGS, CONSTRAINTS_NOW, BUILD_MEMORY):
        execute_raw(connection, setting)
    wanted = require_no_open_questions(plan(connection, answers))
    connection.execute(text("SELECT set_config('TimeZone', :zone, true)"), {"zone": wanted.timezone})
    keys = _foreign_keys(connection, wanted.revision)
    before = _fingerprint_tables(connection, wanted)
    _run(connection, [statement for change in wanted.preparations for statement in change.statements])
    expected = _fill(connection, wanted, before)
    for rewrite in wanted.rewrites:
        began = time.monotonic()
        _run(connection, rewrite.statements)
        logger.info("Rewrote %s, %s rows, in %.1f s", rewrite.table, f"{rewrite.rows:,}", time.monotonic() - began)
    _run(connection, [statement for change in wanted.changes for statement in change.statements])
    _run(connection, _stamp(wanted))
    _verify_unchanged(connection, wanted, expected)
    if _foreign_keys(connection, wanted.revision) != keys:
        raise AdoptionFailed("A foreign key of the application did not come through as it was; nothing was changed.")
    _run(connection, [f"ANALYZE {quote(rewrite.table)};" for rewrite in wanted.rewrites])
    return wanted, {table: print_.rows for table, print_ in before.items()}


def _lock_tables(connection: Connection, tables: list[str]) -> None:
    neighbours = connection.scalars(RELATED_TABLES, {"tables": tables}).all()
    names = ", ".join([*map(quote, tables), *neighbours])
    if names:
        execute_raw(connection, f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")


def _run(connection: Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        logger.debug("%s", statement)
        execute_raw(connection, statement)


def _foreign_keys(connection: Connection, revision: str) -> list[tuple[str, ...]]:
    """Return the foreign keys between our tables and the application's."""
    ours = list(load_manifest(revision).tables)
    return [tuple(row) for row in connection.execute(FOREIGN_KEYS, {"ours": ours})]


def _fingerprint_tables(connection: Connection, wanted: AdoptionPlan) -> dict[str, Fingerprint]:
    filled = {(each.table, each.column) for each in wanted.backfills}
    return {
        table: fingerprint(
            connection,
            table,
            {each.column: each.before for each in texts},
            [each.column for each in texts if (table, each.column) in filled],
        )
        for table, texts in wanted.texts.items()
    }


def _fill(connection: Connection, wanted: AdoptionPlan, before: Mapping[str, Fingerprint]) -> dict[str, Fingerprint]:
    """Give rows the values of the answers, and return the fingerprints that are to be found at the end."""
    expected = dict(before)
    texts = {(table, each.column): each.before for table, columns in wanted.texts.items() for each in columns}
    for each in wanted.backfills:
        checksum = backfill(connection, each, texts.get((each.table, each.column), "NULL"))
        expected[each.table] = expected[each.table].with_filled({each.column: checksum})
    return expected


def _stamp(wanted: AdoptionPlan) -> list[str]:
    if wanted.stamped == wanted.revision:
        return []
    if wanted.stamped is not None:
        return [ddl.restamp(wanted.revision)]
    return ddl.stamp(wanted.revision).splitlines()


def _verify_unchanged(connection: Connection, wanted: AdoptionPlan, expected: Mapping[str, Fingerprint]) -> None:
    """Return if the catalog is that of the revision, and every row that was there is what it was.

    Raises:
        AdoptionFailed: it is not so.
    """
    drift = verify(connection).findings
    if drift:
        told = "; ".join(f"{finding.object} is {finding.found} and should be {finding.expected}" for finding in drift)
        raise AdoptionFailed(
            f"The tables did not become those of revision {wanted.revision}: {told}. Nothing was changed."
        )
    for table, texts in wanted.texts.items():
        after = fingerprint(connection, table, {each.column: each.after for each in texts})
        if after.rows != expected[table].rows:
            raise AdoptionFailed(
                f"Table {table} had {expected[table].rows:,} rows and would have {after.rows:,}. Nothing was changed."
            )
        changed = [name for name, value in after.checksums.items() if value != expected[table].checksums[name]]
        if changed:
            raise AdoptionFailed(
                f"Values of {table} would have changed in {', '.join(changed)}. Nothing was changed; look at what they "
                "hold that their new type writes otherwise."
            )


def _failure(error: DBAPIError) -> AdoptionFailed | ExtensionUnavailable:
    if isinstance(error.orig, InsufficientPrivilege) and "extension" in str(error.orig):
        return ExtensionUnavailable(
            f"{server_message(error)}. Ask an administrator to run this in that database: {CREATE_EXTENSION} "
            "Nothing was changed."
        )
    return AdoptionFailed(f"The server refused a statement: {server_message(error)}. Nothing was changed.")
