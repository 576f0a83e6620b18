"""The vector indexes during a restore: dropped before the rows are loaded, and built on them afterwards."""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, NamedTuple

from syntegra_db.backup import _queries
from syntegra_db.backup._session import lock_tables, raise_build_memory
from syntegra_db.catalog import tables_with_vectors
from syntegra_db.errors import LockTimeout
from syntegra_db.migrations import current_schema, find_lock_holder, lock_key
from syntegra_db.pgvector_support import MIN_BUILD_MEMORY, VECTOR_INDEX, ivfflat_build_memory
from syntegra_db.search_path import table_name
from syntegra_db.sql import execute_raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from syntegra_db.migrations import MigrationOptions

logger = logging.getLogger(__name__)

LISTS = re.compile(r"lists\s*=\s*'?(\d+)")


class DroppedIndex(NamedTuple):
    """A vector index that was dropped: its name, the statement that builds it, and the dimensions of its vectors."""

    name: str
    definition: str
    dimensions: int


def require_no_rebuild(connection: Connection, locked_tables: Iterable[str]) -> None:
    """Raise `LockTimeout` if a rebuild of a vector index runs, whose indexes the restore would drop.

    One that begins later waits for the lock on the table.
    """
    holder = find_lock_holder(connection, lock_key(VECTOR_INDEX, current_schema(connection)))
    if holder is not None and not tables_with_vectors().isdisjoint(locked_tables):
        raise LockTimeout(
            f"A rebuild of the vector index is running ({holder}); nothing was changed. Wait for it, or end it with "
            f"SELECT pg_terminate_backend({holder.pid}), and run this again."
        )


def drop_vector_indexes(
    connection: Connection, options: MigrationOptions, columns: Mapping[str, list[str] | None]
) -> list[DroppedIndex]:
    """Drop the vector indexes of `columns`, by table, None for all, and return what builds them again.

    Recall is higher if they are built on rows.
    """
    dropped: list[DroppedIndex] = []
    for table, names in columns.items():
        parameters = {"table": table_name(connection, table), "columns": names}
        found = [DroppedIndex(*row) for row in connection.execute(_queries.VECTOR_INDEXES, parameters)]
        if found:
            lock_tables(connection, [table], "ACCESS EXCLUSIVE", options)
            require_no_rebuild(connection, [table])
        for index in found:
            execute_raw(connection, f"DROP INDEX {table_name(connection, index.name)}")
        dropped += found
    return dropped


def build_vector_indexes(connection: Connection, indexes: Iterable[DroppedIndex]) -> None:
    """Build the vector indexes that `drop_vector_indexes` dropped."""
    for index in indexes:
        logger.info("Building %s on the restored rows", index.name)
        raise_build_memory(connection, _build_memory(index))
        execute_raw(connection, index.definition)


def _build_memory(index: DroppedIndex) -> int:
    """Return the bytes of `maintenance_work_mem` that building the vector index needs, for any number of rows."""
    lists = int(match[1]) if (match := LISTS.search(index.definition)) else 0
    needed = ivfflat_build_memory(lists, sys.maxsize, index.dimensions, is_half="halfvec" in index.definition)
    return max(MIN_BUILD_MEMORY, needed)
