"""What a database holds, compared with what the revision it says it is at should hold."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from psycopg.errors import InternalError_, UndefinedObject, UndefinedTable
from sqlalchemy.exc import DBAPIError

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import DriftReport, Finding
from syntegra_db.catalog._introspection import LiveCatalog, introspect, require_current_schema
from syntegra_db.catalog._manifest import load_manifest, managed_tables, managed_types
from syntegra_db.catalog.compare import compare_extension, compare_privileges, compare_schemas
from syntegra_db.errors import SchemaDrift
from syntegra_db.revisions import all_revisions, current_revision, describe_revision, require_known_revision
from syntegra_db.settings import describe_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from syntegra_db.catalog._schema import Schema


# What the server says of an object that a migration drops between two looks at it.
CONCURRENT_DDL_ERRORS = (InternalError_, UndefinedObject, UndefinedTable)
MAX_READS = 5


def verify(connection: Connection) -> DriftReport:
    """Compare the current schema with the manifest of its revision, for drift and notes.

    Any role will do that may use the schema and read `alembic_version`; at no revision, nothing is expected. Tables
    of the application are ignored, and so are its indexes on ours that refuse nothing. No lock is kept, and no
    setting of the session changed. The connection must not be in AUTOCOMMIT.

    Raises:
        RevisionError, DatabaseAhead: see `current_revision` and `require_known_revision`.
        SettingsError, LockNotObtained: see `introspect`.
    """
    revision, found = _read_consistently(connection)
    differences = list(_differences(revision, found.schema))
    if any(finding.is_drift for finding in differences):
        twin = _matching_revision(revision, found.schema)
        if twin != revision:
            fix = _restamp_fix(revision, twin)
            differences = [replace(finding, fix=fix) for finding in differences]
    expected = load_manifest(revision)
    findings = [*compare_extension(expected, found), *differences, *compare_privileges(expected, found)]
    return DriftReport(
        revision=revision,
        findings=[finding for finding in findings if finding.is_drift],
        notes=[finding for finding in findings if not finding.is_drift],
    )


def require_no_drift(connection: Connection, state: str) -> None:
    """Raise `SchemaDrift` unless the schema is the one of its revision; the message begins with `state`.

    Raises:
        SchemaDrift: it is not; the message names the objects.
        RevisionError, DatabaseAhead, SettingsError, LockTimeout: see `verify`.
    """
    drift = verify(connection).findings
    if drift:
        raise SchemaDrift(
            f"{state}, but the schema of the {describe_database(connection.engine.url)} differs from the declared one: "
            f"{', '.join(finding.object for finding in drift)}. `syntegra-db verify` prints how to fix it."
        )


def unversioned_objects(connection: Connection) -> list[str]:
    """Return the tables and types that stand there though the revision that the database says comes before them.

    Raises:
        RevisionError, DatabaseAhead, SettingsError, LockNotObtained: see `check_index_health`.
    """
    revision, found = _read_consistently(connection)
    expected = load_manifest(revision)
    installed = {**found.schema.tables, **found.schema.types}
    later = [name for name in (*managed_tables(), *managed_types()) if name not in {*expected.tables, *expected.types}]
    return [name for name in later if name in installed]


def _read_consistently(connection: Connection) -> tuple[str | None, LiveCatalog]:
    """Return the revision and what is there at it: once more if a migration ended in between."""
    require_current_schema(connection)
    attempts_left = MAX_READS
    while True:
        attempts_left -= 1
        revision = current_revision(connection)
        try:
            found = introspect(connection, managed_tables(), managed_types())
        except DBAPIError as error:
            if attempts_left and isinstance(error.orig, CONCURRENT_DDL_ERRORS):
                continue
            raise
        if current_revision(connection) == revision:
            require_known_revision(revision)
            return revision, found


def _differences(revision: str | None, found: Schema) -> Iterator[Finding]:
    """Yield what differs from the manifest of `revision`, and the objects of other revisions that are there."""
    expected = load_manifest(revision)
    yield from compare_schemas(expected, found)
    tables, types = set(expected.tables), set(expected.types)
    for known in all_revisions():
        manifest = load_manifest(known)
        for name in sorted(manifest.tables.keys() & found.tables.keys() - tables):
            yield _object_of_other_revision(
                "table", name, revision, known, f"-- Where nothing needs it: DROP TABLE {name};"
            )
        for name in sorted(manifest.types.keys() & found.types.keys() - types):
            yield _object_of_other_revision("type", name, revision, known, f"DROP TYPE {name};")
        tables.update(manifest.tables)
        types.update(manifest.types)


def _object_of_other_revision(kind: str, name: str, revision: str | None, known: str, fix: str) -> Finding:
    return Finding(
        object=f"{kind} {name}",
        expected=f"no such {kind} at {describe_revision(revision)}",
        found=f"a {kind} of that name, as revision {known} has",
        impact=f"A migration that creates the {kind} fails.",
        fix=fix,
    )


def _matching_revision(revision: str | None, found: Schema) -> str | None:
    """Return the revision that the tables are exactly at, or else the one that the database says."""
    others = [known for known in (*reversed(all_revisions()), None) if known != revision]
    return next((known for known in others if not any(_drift(known, found))), revision)


def _drift(revision: str | None, found: Schema) -> Iterator[Finding]:
    return (finding for finding in _differences(revision, found) if finding.is_drift)


def _restamp_fix(revision: str | None, twin: str | None) -> str:
    """Return the statements after which the database says that it is at `twin`."""
    tell = f"-- The tables are exactly those of {describe_revision(twin)}."
    if twin is None:
        return ddl.join_statements(tell, ddl.unstamp())
    return ddl.join_statements(tell, ddl.restamp(twin) if revision else ddl.stamp(twin))
