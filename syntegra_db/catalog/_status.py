"""The state of a database: server, revision, tables and indexes, read from the system catalogs only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from syntegra_db.catalog import _queries
from syntegra_db.catalog._introspection import require_current_schema, short_lock_timeout
from syntegra_db.catalog._manifest import managed_tables, written_manifests
from syntegra_db.catalog._other_schemas import later_schemas_with_tables, require_no_tables_elsewhere
from syntegra_db.catalog._partitions import read_month_partitions, tables_by_month
from syntegra_db.catalog._schema import Schema
from syntegra_db.client_policies import read_tenancy
from syntegra_db.recorded_steps import read_unfinished_revision
from syntegra_db.revisions import all_revisions, current_revision, head_revision
from syntegra_db.search_path import CATALOG_ONLY
from syntegra_db.sql import execute_raw

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from syntegra_db.recorded_steps import UnfinishedRevision


@dataclass(frozen=True)
class TableStatus:
    """One table: the server's row estimate, the bytes with indexes and TOAST, and the last ANALYZE."""

    name: str
    estimated_rows: int
    total_bytes: int
    last_analyze: datetime | None


@dataclass(frozen=True)
class MonthStatus:
    """A table that is partitioned by month: its partitions, and what `syntegra-db partitions create` has to do.

    `missing_months` are the current and the next month, such as `2026-11`, if they have no partition; `default_rows`
    is the estimate for the rows that are in no partition of a month.
    """

    table: str
    partitions: list[str]
    missing_months: list[str]
    default_rows: int


@dataclass(frozen=True)
class DatabaseStatus:
    """The state of a database; `extension_version` is the version of pgvector.

    `unused_schemas` have tables of the package too, but follow on the search_path. `unfinished` is the revision whose
    steps are committed in part. `tenancy_prefix` is that of the group roles if `syntegra-db tenancy enable` ran.
    """

    server_version: str
    database: str
    schema: str
    extension_version: str | None
    revision: str | None
    head: str
    pending: list[str]
    tables: list[TableStatus]
    invalid_indexes: list[str]
    unused_schemas: list[str]
    unfinished: UnfinishedRevision | None
    by_month: list[MonthStatus]
    tenancy_prefix: str | None


def read_status(connection: Connection) -> DatabaseStatus:
    """Return the state of the database. The connection must not be in AUTOCOMMIT.

    Raises:
        SettingsError, TablesInOtherSchema: see `require_current_schema`.
        RevisionError: see `current_revision`.
        LockTimeout: see `short_lock_timeout`.
        TenancyError, UntrustedObject: see `read_tenancy`.
    """
    known = all_revisions()
    schema = require_current_schema(connection).schema or ""
    parameters = {"schema": schema, "tables": managed_tables()}
    by_month = [
        MonthStatus(
            table.table,
            [part.name for part in table.partitions],
            [str(month) for month in table.missing_months],
            table.default.estimated_rows if table.default else 0,
        )
        for table in read_month_partitions(connection, _tables_by_month(connection))
    ]
    with short_lock_timeout(connection):
        revision = current_revision(connection)
        unfinished = read_unfinished_revision(connection)
        if revision is None:
            require_no_tables_elsewhere(connection)
        unused_schemas = later_schemas_with_tables(connection)
        tenancy = read_tenancy(connection)
        execute_raw(connection, f"SET LOCAL search_path TO {CATALOG_ONLY}")
        server_version, database, extension_version = connection.execute(_queries.SERVER).one()
        return DatabaseStatus(
            server_version=server_version,
            database=database,
            schema=schema,
            extension_version=extension_version,
            revision=revision,
            head=head_revision(),
            pending=[] if revision not in [None, *known] else known[known.index(revision) + 1 :] if revision else known,
            tables=[TableStatus(*row) for row in connection.execute(_queries.TABLE_SIZES, parameters)],
            invalid_indexes=list(connection.scalars(_queries.INVALID_INDEXES, parameters)),
            unused_schemas=unused_schemas,
            unfinished=unfinished,
            by_month=by_month,
            tenancy_prefix=tenancy.prefix if tenancy else None,
        )


def _tables_by_month(connection: Connection) -> dict[str, str]:
    """Return the tables that the revision of the database declares as partitioned by month, if it is known."""
    revision = current_revision(connection)
    return tables_by_month(written_manifests().get(revision or "", Schema()))
