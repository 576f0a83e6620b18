"""Verify on a new connection what a command has committed, apart from drift that existed before it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from syntegra_db.catalog import verify
from syntegra_db.catalog.compare import index_label
from syntegra_db.connections import connect
from syntegra_db.errors import (
    ConnectionFailed,
    LockTimeout,
    MigrationFailed,
    RevisionError,
    SchemaDrift,
    SchemaNotVerified,
    server_message,
)
from syntegra_db.migrations._lock import current_schema, find_lock_holder, lock_key
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.revisions import VERSION_TABLE, current_revision, describe_revision
from syntegra_db.settings import describe_database

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection, Engine

    from syntegra_db.catalog import Finding

logger = logging.getLogger(__name__)


def read_existing_drift(connection: Connection) -> list[Finding]:
    """Return the drift before a command changes anything; none if another session locks a table.

    Raises:
        RevisionError, DatabaseAhead, SettingsError: see `verify`.
    """
    try:
        return verify(connection).findings
    except LockTimeout:
        return []
    finally:
        connection.rollback()


def verify_result(engine: Engine, revision: str | None, state: str, existing_drift: Collection[Finding] | None) -> None:
    """Verify on a new connection, which sees only what is committed, that the database is at `revision`, without drift.

    `state` is what was committed, as the beginning of a sentence. Drift in `existing_drift`, or any drift if that is
    None, is logged as a warning.

    Raises:
        SchemaNotVerified: the schema could not be read; `state` is true.
        SchemaDrift: the schema differs from the declared one.
        MigrationFailed: the database is at another revision.
    """
    try:
        with connect(engine) as connection:
            try:
                found = current_revision(connection)
                if found == revision:
                    _require_no_new_drift(connection, state, existing_drift)
            except (LockTimeout, RevisionError, DBAPIError) as error:
                reason = "another session locks a table" if isinstance(error, LockTimeout) else server_message(error)
                raise _not_verified(state, f"{reason}.") from error
    except ConnectionFailed as error:
        raise _not_verified(state, str(error)) from error
    if found != revision:
        raise MigrationFailed(
            f"The changes were committed, but a new connection finds the database at {describe_revision(found)} "
            f"instead of {describe_revision(revision)}. Find out what else writes to {VERSION_TABLE}, then run "
            "`syntegra-db verify`."
        )


def _require_no_new_drift(connection: Connection, state: str, existing_drift: Collection[Finding] | None) -> None:
    drift = {finding.identity: finding.object for finding in verify(connection).findings}
    if find_lock_holder(connection, lock_key(VECTOR_INDEX, current_schema(connection))) is not None:
        # Loading the models takes a fifth of the start of a command.
        from syntegra_db.models.embeddings import declared_embeddings

        # A rebuild, which waited for the command, has begun: its unfinished index is not drift.
        rebuilding = {
            index_label(name) for column in declared_embeddings() for name in (column.new_index, column.old_index)
        }
        drift = {key: name for key, name in drift.items() if name not in rebuilding}
    known = drift.keys() if existing_drift is None else {finding.identity for finding in existing_drift}
    if existing := [name for identity, name in drift.items() if identity in known]:
        logger.warning(
            "The schema already differed from the declared one before this command: %s. `syntegra-db verify` prints "
            "how to fix it",
            ", ".join(existing),
        )
    if new := [name for identity, name in drift.items() if identity not in known]:
        raise SchemaDrift(
            f"{state}, but the schema of the {describe_database(connection.engine.url)} differs from the declared one: "
            f"{', '.join(new)}. `syntegra-db verify` prints how to fix it."
        )


def _not_verified(state: str, reason: str) -> SchemaNotVerified:
    return SchemaNotVerified(f"{state}, but the schema could not be verified: {reason} Run `syntegra-db verify`.")
