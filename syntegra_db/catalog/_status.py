"""Where a database stands: server, revision, tables, indexes. All from the catalog; no table is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.errors import LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from syntegra_db.catalog._introspection import LOCK_TIMEOUT_MILLISECONDS
from syntegra_db.catalog._manifest import managed_tables
from syntegra_db.errors import LockTimeout
from syntegra_db.revisions import all_revisions, current_revision, head_revision, require_known_revision

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

SERVER = text("""
    SELECT current_setting('server_version'), current_database(), current_schema(),
           (SELECT extversion FROM pg_extension WHERE extname = 'vector')
""")
# reltuples is -1 until the first VACUUM or ANALYZE; until then the statistics collector's count is all there is.
TABLES = text("""
    SELECT relname, CASE WHEN reltuples < 0 THEN pg_stat_get_live_tuples(oid) ELSE reltuples::bigint END,
           pg_total_relation_size(oid),
           greatest(pg_stat_get_last_analyze_time(oid), pg_stat_get_last_autoanalyze_time(oid))
    FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'p')
      AND relname = ANY (:tables)
    ORDER BY array_position(:tables, relname::text)
""")
INVALID_INDEXES = text("""
    SELECT pg_class.relname
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_class AS tables ON tables.oid = indrelid
    WHERE tables.relnamespace = to_regnamespace(quote_ident(current_schema())) AND tables.relname = ANY (:tables)
      AND NOT (indisvalid AND indisready)
    ORDER BY 1
""")


@dataclass(frozen=True)
class TableStatus:
    """One table: rows as the server estimates them, bytes with indexes and TOAST, and its last ANALYZE."""

    name: str
    estimated_rows: int
    total_bytes: int
    last_analyze: datetime | None


@dataclass(frozen=True)
class DatabaseStatus:
    """Where a database stands.

    `extension_version` is pgvector's.
    """

    server_version: str
    database: str
    schema: str | None
    extension_version: str | None
    revision: str | None
    head: str
    pending: list[str]
    tables: list[TableStatus]
    invalid_indexes: list[str]


def read_status(connection: Connection) -> DatabaseStatus:
    """Return where the database stands, at any revision that this package knows.

    Raises:
        RevisionError, DatabaseAhead: see `current_revision` and `require_known_revision`.
        LockNotObtained: another session keeps one of the tables under ACCESS EXCLUSIVE.
    """
    # The size of a table waits for whoever holds it under ACCESS EXCLUSIVE.
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_MILLISECONDS}ms'"))
    server_version, database, schema, extension_version = connection.execute(SERVER).one()
    revision = current_revision(connection)
    require_known_revision(revision)
    known = all_revisions()
    tables = {"tables": managed_tables()}
    return DatabaseStatus(
        server_version=server_version,
        database=database,
        schema=schema,
        extension_version=extension_version,
        revision=revision,
        head=head_revision(),
        pending=known[known.index(revision) + 1 :] if revision else known,
        tables=_tables(connection, tables),
        invalid_indexes=list(connection.scalars(INVALID_INDEXES, tables)),
    )


def _tables(connection: Connection, tables: dict[str, list[str]]) -> list[TableStatus]:
    try:
        return [TableStatus(*row) for row in connection.execute(TABLES, tables)]
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        raise LockTimeout(
            "Another session keeps one of the tables under an ACCESS EXCLUSIVE lock, as a migration does, so that its "
            "size cannot be read. Wait for it to end and run this again."
        ) from None
