"""Session helpers of backup, restore, rollback and adoption: long transactions, table locks, row counts."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import exists, func, select

from syntegra_db.backup import _queries
from syntegra_db.catalog import load_manifest
from syntegra_db.interruption import report_if_interrupted
from syntegra_db.migrations import confirmed_transaction, read_existing_drift, retry_in_savepoint
from syntegra_db.network import keep_transaction_alive, limit_session, psycopg_connection
from syntegra_db.revisions import all_revisions
from syntegra_db.search_path import table_clause, table_name
from syntegra_db.sql import execute_raw

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from sqlalchemy import Connection

    from syntegra_db.catalog import Finding
    from syntegra_db.errors import SyntegraDBError
    from syntegra_db.migrations import MigrationOptions


class RowProgress(NamedTuple):
    """Progress: rows processed of how many, and the bytes of the file written or of the rows sent."""

    rows: int
    total_rows: int
    bytes: int


def server_version(connection: Connection) -> int:
    """Return the server's major version."""
    return psycopg_connection(connection).info.server_version // 10_000


def begin_unlimited_transaction(connection: Connection) -> None:
    """Begin a transaction, or continue the open one, for long work; hidden rows are an error in it.

    It does not take the transaction's snapshot yet. Use `keep_transaction_alive` while other programs work.
    """
    connection.exec_driver_sql("SET LOCAL row_security = off")
    limit_session(connection, local=True)


@contextmanager
def reported_transaction(connection: Connection, state: str) -> Iterator[list[Finding]]:
    """Run the block in a confirmed transaction that is kept alive, and yield the drift before it.

    `state`, which holds until the COMMIT, is added to an interruption.
    """
    with report_if_interrupted(lambda: state):
        existing_drift = read_existing_drift(connection)
    with (
        confirmed_transaction(connection),
        keep_transaction_alive(connection),
        report_if_interrupted(lambda: state),
    ):
        yield existing_drift


def raise_build_memory(connection: Connection, size: int) -> None:
    """Set `maintenance_work_mem` to `size` bytes until the transaction ends, unless it is larger."""
    connection.execute(_queries.RAISE_BUILD_MEMORY, {"bytes": size})


def tables_at_revision(revision: str) -> list[str]:
    """Return the tables of `revision`, in the order in which the revisions create them: referenced tables first."""
    known = all_revisions()
    created = (name for earlier in known[: known.index(revision) + 1] for name in load_manifest(earlier).tables)
    declared = load_manifest(revision).tables
    return [name for name in dict.fromkeys(created) if name in declared]


def nonempty_tables(connection: Connection, tables: Iterable[str]) -> list[str]:
    """Return those of `tables` that are not empty."""
    return [name for name in tables if connection.scalar(select(exists().select_from(table_clause(connection, name))))]


def count_rows(connection: Connection, tables: Iterable[str]) -> dict[str, int]:
    """Return the number of rows by table."""
    return {
        name: connection.scalars(select(func.count()).select_from(table_clause(connection, name))).one()
        for name in tables
    }


def require_no_child_tables(
    connection: Connection, tables: Iterable[str], error: type[SyntegraDBError], *, with_partitions: bool
) -> None:
    """Raise `error` if other tables inherit from one of `tables`: pg_dump does not save their rows with it."""
    parameters = {"tables": [table_name(connection, name) for name in tables], "with_partitions": with_partitions}
    if statements := connection.scalars(_queries.DETACH_CHILD_TABLES, parameters).all():
        raise error(
            "Tables that inherit from those of the package are not part of a backup; nothing was changed. Detach them "
            f"and run this again: {' '.join(statements)}"
        )


def find_partitions(
    connection: Connection, revisions: Collection[str], tables: Iterable[str], error: type[SyntegraDBError]
) -> dict[str, list[str]]:
    """Return the partitions of those of `tables` that one of `revisions` declares as partitioned, and that are.

    Raises:
        error: the rows of a partition cannot be saved.
    """
    declared = {
        name for revision in revisions for name, table in load_manifest(revision).tables.items() if table.is_partitioned
    }
    names = [table_name(connection, name) for name in tables if name in declared]
    found: dict[str, list[str]] = {}
    rejected = []
    for row in connection.execute(_queries.PARTITIONS, {"tables": names}).mappings() if names else ():
        partitions = found.setdefault(row["table_name"], [])
        if row["name"] is not None:
            partitions.append(row["name"])
            rejected += [] if row["is_ordinary"] else [row["detach"]]
    if rejected:
        raise error(
            "A partition that is a foreign table, or in another schema, is not part of a backup; nothing was changed. "
            f"Detach it and run this again: {' '.join(rejected)}"
        )
    return found


def lock_tables(connection: Connection, tables: Iterable[str], mode: str, options: MigrationOptions) -> None:
    """Lock `tables` in `mode` until the transaction ends, with retries.

    Raises:
        LockTimeout: other sessions held a lock on one of them; nothing was changed.
    """
    names = ", ".join(table_name(connection, name) for name in tables)
    if names:
        retry_in_savepoint(connection, lambda: execute_raw(connection, f"LOCK TABLE {names} IN {mode} MODE"), options)
