"""What would make a migration fail, as far as the catalogs and the rights of the session show it before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.errors import InsufficientPrivilege, LockNotAvailable
from sqlalchemy.exc import DBAPIError

from syntegra_db.catalog import load_manifest, unversioned_objects
from syntegra_db.errors import ExtensionUnavailable, MigrationFailed, server_message
from syntegra_db.migrations._privileges import require_may_migrate
from syntegra_db.revisions import describe_revision, position_of
from syntegra_db.search_path import read_session, search_path_fix
from syntegra_db.sql import catalog_query, execute_raw, quote

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syntegra_db.catalog import Schema
    from syntegra_db.migrations._target import Route

LOCK_TIMEOUT_MILLISECONDS = 500
RIGHTS = catalog_query("""
    SELECT current_setting('transaction_read_only') = 'on' AS is_read_only,
           NOT has_schema_privilege(:schema, 'CREATE') AS may_not_create
""")


def find_obstacle(connection: Connection, route: Route) -> MigrationFailed | None:
    """Return the first error that the migration would end with, or None if none is known. Nothing is changed.

    Whether the role may create the extension `vector` is tried in a transaction that is rolled back: there are servers
    on which other roles than superusers may.

    Raises:
        LockTimeout: see `short_lock_timeout`.
    """
    after = load_manifest(route.target)
    obstacle = _missing_right(connection, route)
    is_new = _has_vectors(after) and not _has_vectors(load_manifest(route.before))
    if obstacle is None and is_new:
        obstacle = _missing_extension(connection)
    if obstacle is None:
        existing = {*unversioned_objects(connection)} & {*after.tables, *after.types}
        if existing:
            obstacle = MigrationFailed(
                f"Created outside migrations: {', '.join(sorted(existing))}. Run `syntegra-db adopt`, which keeps "
                "every row."
            )
    connection.rollback()
    return obstacle


def _missing_right(connection: Connection, route: Route) -> MigrationFailed | None:
    session = read_session(connection)
    rights = connection.execute(RIGHTS, {"schema": session.schema}).one()
    if rights.is_read_only:
        return MigrationFailed(
            "Transactions are read-only here, set by default_transaction_read_only or by the session, or the server "
            "is a standby. Connect to the primary server, or change the setting."
        )
    try:
        state = f"The database is at {describe_revision(route.before)}, and nothing was changed."
        require_may_migrate(connection, route.target, state)
    except MigrationFailed as failure:
        return failure
    finally:
        connection.rollback()
    creates = position_of(route.target) > position_of(route.start)
    if creates and rights.may_not_create:
        role, schema = quote(session.role), quote(session.schema or "")
        return MigrationFailed(
            f"Role {role} may not create tables in schema {schema}. Ask its owner to run: GRANT CREATE ON SCHEMA "
            f"{schema} TO {role};"
        )
    return None


def _missing_extension(connection: Connection) -> MigrationFailed | None:
    session = read_session(connection)
    schema = session.extension_schema
    if schema is not None:
        if schema in session.schemas:
            return None
        fix = search_path_fix(session, *session.path_items(), schema).removeprefix("-- ")
        return MigrationFailed(
            f"The extension vector is in schema {quote(schema)}, which is not on the search_path. Add it: {fix}"
        )
    try:
        execute_raw(connection, f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MILLISECONDS}; CREATE EXTENSION vector")
    except DBAPIError as error:
        # Another migration is creating it.
        if isinstance(error.orig, LockNotAvailable):
            return None
        hint = (
            f"Ask an administrator to run this in database {quote(session.database)}: CREATE EXTENSION vector;"
            if isinstance(error.orig, InsufficientPrivilege)
            else "Install pgvector for this version of PostgreSQL, or use an image that has it."
        )
        return ExtensionUnavailable(f"The extension vector is missing: {server_message(error)}. {hint}")
    finally:
        connection.rollback()
    return None


def _has_vectors(schema: Schema) -> bool:
    return any(
        column.type.startswith("vector") for table in schema.tables.values() for column in table.columns.values()
    )
