"""What there is to adopt, read from the catalog, and the revision that it comes closest to."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.errors import InvalidParameterValue
from sqlalchemy import text
from sqlalchemy.exc import DataError

from syntegra_db.adoption import _queries
from syntegra_db.catalog import (
    LiveCatalog,
    introspect,
    load_manifest,
    managed_tables,
    managed_types,
    require_current_schema,
)
from syntegra_db.errors import AdoptionNotPossible
from syntegra_db.revisions import (
    SELECT_VERSIONS,
    VERSION_TABLE,
    all_revisions,
    current_revision,
    require_known_revision,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping

    from syntegra_db.adoption._model import AdoptionInput
    from syntegra_db.catalog import Schema

REVISION_ID = re.compile(r"\d{3}")


@dataclass(frozen=True)
class Inspection:
    """A database beside the manifest of the revision that it comes closest to.

    `dependents` names by (table, column) what forbids another type; `constraints` has the CHECKs and foreign keys on
    our tables, and the foreign keys to them.
    """

    revision: str
    stamped: str | None
    expected: Schema
    snapshot: LiveCatalog
    answers: AdoptionInput
    timezone: str
    version: int
    constraints: Sequence[RowMapping]
    dependents: dict[tuple[str, str], list[str]]
    shared_sequences: frozenset[str]

    @property
    def found(self) -> Schema:
        """What the server holds of our tables and types."""
        return self.snapshot.schema


def inspect_database(connection: Connection, answers: AdoptionInput) -> Inspection:
    """Return what is there, and set the transaction's time zone to the one of points in time without a zone.

    Raises:
        AdoptionRefused: there is nothing to adopt, or it stands under another history or the time zone is none.
        DatabaseAhead, SettingsError, LockNotObtained: see `require_known_revision` and `introspect`.
    """
    require_current_schema(connection)
    stamped = _stamped_revision(connection)
    timezone = _set_timezone(connection, answers.timezone)
    found = introspect(connection, managed_tables(), managed_types())
    revision = closest_revision(found.schema)
    there = {"tables": list(found.schema.tables)}
    dependents = defaultdict(list)
    for row in connection.execute(_queries.DEPENDENTS, there).mappings():
        dependents[row["table"], row["column"]].append(row["dependent"])
    return Inspection(
        revision=revision,
        stamped=stamped,
        expected=load_manifest(revision),
        snapshot=found,
        answers=answers,
        timezone=timezone,
        version=connection.scalars(_queries.SERVER_VERSION).one(),
        constraints=connection.execute(_queries.CHECKS_AND_FOREIGN_KEYS, there).mappings().all(),
        dependents=dict(dependents),
        shared_sequences=frozenset(connection.scalars(_queries.SHARED_SEQUENCES)),
    )


def closest_revision(found: Schema) -> str:
    """Return the oldest revision that has as many of the types, tables and columns in `found` as any.

    Raises:
        AdoptionRefused: none has any.
    """
    there = _object_names(found)
    shared = {revision: len(_object_names(load_manifest(revision)) & there) for revision in all_revisions()}
    most = max(shared.values())
    if most == 0:
        raise AdoptionNotPossible(
            "There is nothing to adopt: no table of this package stands in the current schema. Run "
            "`syntegra-db upgrade`."
        )
    return next(revision for revision, count in shared.items() if count == most)


def _object_names(shape: Schema) -> set[tuple[str, ...]]:
    columns = {(table, column) for table, parts in shape.tables.items() for column in parts.columns}
    return columns | {("table", name) for name in shape.tables} | {("type", name) for name in shape.types}


def _stamped_revision(connection: Connection) -> str | None:
    """Return the revision that the database says it is at."""
    if not connection.scalar(_queries.VERSION_TABLE_EXISTS):
        return None
    versions = connection.scalars(SELECT_VERSIONS).all()
    foreign = [version for version in versions if version not in all_revisions()]
    if not foreign:
        return current_revision(connection)
    if len(versions) == 1 and REVISION_ID.fullmatch(versions[0]):
        require_known_revision(versions[0])
    raise AdoptionNotPossible(
        f"{VERSION_TABLE} says {' and '.join(foreign)}, a revision of the application's own migrations, and two "
        f"histories cannot share one version table. Give the application's another name: ALTER TABLE {VERSION_TABLE} "
        "RENAME TO application_version; and version_table='application_version' in its context.configure()."
    )


def _set_timezone(connection: Connection, timezone: str | None) -> str:
    if timezone is not None:
        savepoint = connection.begin_nested()
        try:
            connection.execute(text("SELECT set_config('TimeZone', :zone, true)"), {"zone": timezone})
        except DataError as error:
            savepoint.rollback()
            if not isinstance(error.orig, InvalidParameterValue):
                raise
            raise AdoptionNotPossible(
                f"The server knows no time zone {timezone}; pg_timezone_names lists them."
            ) from None
        savepoint.commit()
    named: str = connection.scalars(text("SHOW TimeZone")).one()
    return named
