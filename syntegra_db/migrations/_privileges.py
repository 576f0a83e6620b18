"""Whether this role may migrate, before a migration locks a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import who_may_change_tables
from syntegra_db.errors import MigrationFailed
from syntegra_db.revisions import VERSION_TABLE, describe_revision
from syntegra_db.search_path import read_session
from syntegra_db.sql import catalog_query, qualify_name, quote

if TYPE_CHECKING:
    from sqlalchemy import Connection

MAY_WRITE = catalog_query("""
    SELECT has_any_column_privilege(oid, 'INSERT, UPDATE') OR has_table_privilege(oid, 'DELETE')
    FROM pg_class WHERE oid = to_regclass(:name)
""")


def require_may_migrate(connection: Connection, target: str | None, state: str) -> None:
    """Raise an error if this role may not write the version table, which every revision does.

    PostgreSQL checks some privileges only after it has locked a table. A role that may not migrate, such as a service,
    would then make writers wait, and try again for as long as another session holds the table. `state` is the sentence
    that says what the database is at.

    Raises:
        MigrationFailed: the message says who may migrate.
    """
    session = read_session(connection)
    name = qualify_name(session.schema, VERSION_TABLE)
    # None if there is no version table yet: who creates it owns it.
    if connection.scalar(MAY_WRITE, {"name": name}) is False:
        hint = who_may_change_tables(connection) or "Run this as an administrator."
        raise MigrationFailed(
            f"Migrating to {describe_revision(target)} failed: role {quote(session.role)} may not write "
            f"{VERSION_TABLE}. {state} {hint}"
        )
