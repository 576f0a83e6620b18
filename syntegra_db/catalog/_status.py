"""Where a database stands: server, revision, tables, indexes. All from the catalog; no table is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.errors import LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from syntegra_db.catalog._introspection import LOCK_TIMEOUT_MILLISECONDS
from syntegra_db.catalog._manifest import load_manifest
from syntegra_db.errors import LockTimeout
from syntegra_db.pgvector_support import VECTOR_INDEX
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
# The catalog keeps no row count of a build. What it keeps is the transaction that made an index, the same as the
# primary key's when both came with the empty table, and a file number that changes with every rewrite.
INDEX_BUILD = text("""
    SELECT made.xmin::text <> with_table.xmin::text,
           pg_relation_filenode(indexes.oid) <> indexes.oid, pg_relation_filenode(tables.oid) <> tables.oid
    FROM pg_index AS made
    JOIN pg_class AS indexes ON indexes.oid = made.indexrelid
    JOIN pg_class AS tables ON tables.oid = made.indrelid
    JOIN pg_index AS with_table ON with_table.indrelid = made.indrelid AND with_table.indisprimary
    WHERE indexes.relname = :index AND indexes.relnamespace = to_regnamespace(quote_ident(current_schema()))
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

    `extension_version` is pgvector's. `vector_index_trained` is False when the vector index came with its empty table
    and was not built anew since, and None when there is none or when the catalog cannot tell (after TRUNCATE, which
    rewrites both). True says that it was built anew, not on how many rows: no server keeps that number.
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
    vector_index_trained: bool | None


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
    names = [name for number in known for name in load_manifest(number).tables]
    tables = {"tables": list(dict.fromkeys(names))}
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
        vector_index_trained=vector_index_trained(connection),
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


def vector_index_trained(connection: Connection) -> bool | None:
    """Return whether the vector index was built anew since it came with its empty table; see `DatabaseStatus`."""
    build = connection.execute(INDEX_BUILD, {"index": VECTOR_INDEX}).first()
    if build is None:
        return None
    made_later, index_rewritten, table_rewritten = build
    if table_rewritten and not made_later:
        return None
    return bool(made_later or index_rewritten)
