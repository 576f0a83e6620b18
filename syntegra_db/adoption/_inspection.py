"""Inspect the tables of a database: the revision that they are closest to, and what differs from it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from psycopg.errors import InvalidParameterValue
from sqlalchemy import text
from sqlalchemy.exc import DataError

from syntegra_db.adoption import _queries
from syntegra_db.catalog import (
    LiveCatalog,
    Schema,
    Table,
    closest_revision,
    introspect,
    load_manifest,
    managed_tables,
    managed_types,
    require_current_schema,
    require_no_tables_elsewhere,
)
from syntegra_db.catalog.conversions import Conversion, find_conversion
from syntegra_db.errors import AdoptionNotPossible
from syntegra_db.recorded_steps import require_no_unfinished_revision
from syntegra_db.revisions import (
    current_revision,
    describe_foreign_revisions,
    foreign_revisions,
    has_version_table,
    read_versions,
    require_known_revision,
)
from syntegra_db.search_path import read_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, RowMapping

    from syntegra_db.adoption._model import AdoptionInput


@dataclass(frozen=True)
class Inspection:
    """A database compared with the revision that it is closest to.

    `dependents` are the objects that prevent a change of type, by (table, column); `constraints` are the CHECKs and
    foreign keys on the managed tables, and the foreign keys to them.
    """

    revision: str
    stamped: str | None
    declared: Schema
    catalog: LiveCatalog
    supplied: AdoptionInput
    timezone: str
    server_version: int
    constraints: Sequence[RowMapping]
    dependents: dict[tuple[str, str], list[str]]
    shared_sequences: frozenset[str]

    @property
    def installed(self) -> Schema:
        """The managed tables and types that the server has."""
        return self.catalog.schema

    def tables(self) -> Iterator[tuple[str, Table, Table]]:
        """Yield the name, the declared and the installed table of each table of the revision that is installed."""
        for name, declared in self.declared.tables.items():
            if name in self.installed.tables:
                yield name, declared, self.installed.tables[name]

    def replaced_enums(self) -> list[str]:
        """Return the ENUM types of the revision that are installed with other labels."""
        installed = self.installed.types
        return [name for name, labels in self.declared.types.items() if installed.get(name, labels) != labels]

    @cached_property
    def conversions(self) -> dict[tuple[str, str], Conversion | None]:
        """How columns with another type or collation are converted, None for those that cannot be."""
        labels = {**self.installed.types, **self.declared.types}
        return {
            (name, column): find_conversion(old.type, new.type, labels, self.timezone)
            for name, declared, installed in self.tables()
            for column, new in declared.columns.items()
            if (old := installed.columns.get(column)) is not None
            and ((old.type, old.collation) != (new.type, new.collation) or new.type in self.replaced_enums())
        }


def inspect_database(connection: Connection, supplied: AdoptionInput) -> Inspection:
    """Return the installed tables and types, and set the transaction's time zone to that of naive timestamps.

    Raises:
        AdoptionNotPossible: no managed table exists, the version table belongs to other migrations, or the time zone is
            unknown.
        TablesInOtherSchema: see `require_no_tables_elsewhere`.
        DatabaseAhead, SettingsError, LockTimeout: see `require_known_revision` and `introspect`.
        RevisionError: a revision is unfinished.
    """
    require_current_schema(connection)
    stamped = _stamped_revision(connection)
    require_no_unfinished_revision(connection)
    timezone = _set_timezone(connection, supplied.timezone)
    if stamped is None:
        require_no_tables_elsewhere(connection)
    catalog = introspect(connection, managed_tables(), managed_types())
    revision = closest_revision(catalog.schema, stamped)
    if revision is None:
        raise AdoptionNotPossible(
            "There is nothing to adopt: the current schema has no table of this package. Run `syntegra-db upgrade`."
        )
    tables = {"tables": list(catalog.schema.tables)}
    dependents = defaultdict(list)
    for row in connection.execute(_queries.DEPENDENTS, tables).mappings():
        dependents[row["table"], row["column"]].append(row["dependent"])
    return Inspection(
        revision=revision,
        stamped=stamped,
        declared=load_manifest(revision),
        catalog=catalog,
        supplied=supplied,
        timezone=timezone,
        server_version=connection.scalars(_queries.SERVER_VERSION).one(),
        constraints=connection.execute(_queries.CHECKS_AND_FOREIGN_KEYS, tables).mappings().all(),
        dependents=dict(dependents),
        shared_sequences=frozenset(connection.scalars(_queries.SHARED_SEQUENCES)),
    )


def _stamped_revision(connection: Connection) -> str | None:
    """Return the revision in the version table, or None if the database has no such table."""
    if not has_version_table(connection):
        return None
    versions = read_versions(connection)
    if foreign := foreign_revisions(versions):
        raise AdoptionNotPossible(describe_foreign_revisions(foreign, read_session(connection).schema))
    revision = current_revision(connection)
    require_known_revision(revision, read_session(connection).schema)
    return revision


def _set_timezone(connection: Connection, timezone: str | None) -> str:
    if timezone is not None:
        try:
            with connection.begin_nested():
                connection.execute(_queries.SET_TIMEZONE, {"zone": timezone})
        except DataError as error:
            if not isinstance(error.orig, InvalidParameterValue):
                raise
            raise AdoptionNotPossible(
                f"The server does not know the time zone {timezone}. The view pg_timezone_names lists them."
            ) from None
    name: str = connection.scalars(text("SHOW TimeZone")).one()
    return name
