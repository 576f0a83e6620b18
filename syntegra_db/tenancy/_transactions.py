"""One transaction for each change, under the lock of migrations and with short waits for tables."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from psycopg.errors import DependentObjectsStillExist, RaiseException
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from syntegra_db.catalog import require_usable_revision
from syntegra_db.connections import connect
from syntegra_db.errors import TenancyError, server_message
from syntegra_db.interruption import report_if_interrupted
from syntegra_db.migrations import (
    MigrationOptions,
    confirmed_transaction,
    current_schema,
    lock_key,
    migration_lock,
    retry_in_savepoint,
)
from syntegra_db.network import limit_session, psycopg_connection
from syntegra_db.recorded_steps import require_no_unfinished_revision
from syntegra_db.revisions import VERSION_TABLE, current_revision
from syntegra_db.search_path import read_session
from syntegra_db.sql import execute_raw, qualify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Engine

Result = TypeVar("Result")
UNCHANGED = "Nothing was changed."
LOCK_TRANSACTION = text("SELECT pg_catalog.pg_advisory_xact_lock(:key)")


def run_change(
    bind: Engine | Connection,
    change: Callable[[Connection, str | None, MigrationOptions], Result],
    options: MigrationOptions | None,
) -> Result:
    """Return the result of `change`, which gets the revision: all of it is committed, or nothing.

    It runs in the open transaction of a connection, whose caller commits; without one, in a new transaction.

    Raises:
        TenancyError: the server rejected a statement, or a connection is in autocommit.
        LockTimeout: other sessions held a table, or the migration lock, for longer than the options allow.
        TablesInOtherSchema, RevisionError, DatabaseAhead: see `require_usable_revision`; or a revision is unfinished.
        CommitUnconfirmed: see `confirmed_transaction`.
        ConnectionFailed: no connection could be opened; one of its subclasses says why.
    """
    options = options or MigrationOptions()
    state = UNCHANGED
    try:
        if isinstance(bind, Connection):
            return _run_on_connection(bind, change, options)
        with (
            report_if_interrupted(lambda: state, unless_reported=True),
            connect(bind) as connection,
            migration_lock(connection, options.migration_lock_timeout),
        ):
            with confirmed_transaction(connection), report_if_interrupted(lambda: UNCHANGED):
                limit_session(connection, local=True)
                result = _attempt(connection, change, options)
            state = "The change is complete."
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        raise TenancyError(f"The server rejected a statement: {_explain(error)}") from error
    return result


def _explain(error: DBAPIError) -> str:
    """Return the server's message and what to do; its own hints can advise to drop more, with CASCADE."""
    cause, message = error.orig, server_message(error)
    if isinstance(cause, RaiseException) and cause.diag.message_hint:
        # The hint of a block of this package.
        return f"{message}. {UNCHANGED} {cause.diag.message_hint}"
    if isinstance(cause, DependentObjectsStillExist) and cause.diag.message_detail:
        objects = ", ".join(cause.diag.message_detail.splitlines())
        return f"{message} ({objects}). {UNCHANGED} Change or drop those objects, and run it again."
    return f"{message}. {UNCHANGED} Correct the cause and run it again."


def _run_on_connection(
    connection: Connection,
    change: Callable[[Connection, str | None, MigrationOptions], Result],
    options: MigrationOptions,
) -> Result:
    if psycopg_connection(connection).autocommit:
        raise TenancyError(
            "The connection is in AUTOCOMMIT, where a part of the change could stay after a failure; nothing was "
            "changed. Pass a connection with another isolation level."
        )
    if not connection.in_transaction():
        with connection.begin():
            return _run_on_connection(connection, change, options)
    connection.execute(LOCK_TRANSACTION, {"key": lock_key(VERSION_TABLE, current_schema(connection))})
    return _attempt(connection, change, options)


def _attempt(
    connection: Connection,
    change: Callable[[Connection, str | None, MigrationOptions], Result],
    options: MigrationOptions,
) -> Result:
    def attempt() -> Result:
        revision = current_revision(connection)
        require_usable_revision(connection, revision)
        require_no_unfinished_revision(connection)
        return change(connection, revision, options)

    return retry_in_savepoint(connection, attempt, options, state=UNCHANGED)


def lock_exclusively(connection: Connection, tables: Iterable[str], options: MigrationOptions) -> None:
    """Lock `tables` until the transaction ends, or fail after the time for one lock.

    Services wait for the tables that are locked already, so all locks together get the time of one.
    """
    schema, deadline = read_session(connection).schema, time.monotonic() + options.lock_timeout
    for name in tables:
        milliseconds = max(1, round((deadline - time.monotonic()) * 1000))
        execute_raw(connection, f"SET LOCAL lock_timeout = {milliseconds}")
        execute_raw(connection, f"LOCK TABLE ONLY {qualify(schema, name)} IN ACCESS EXCLUSIVE MODE")
    execute_raw(connection, f"SET LOCAL lock_timeout = {options.lock_timeout_milliseconds}")
