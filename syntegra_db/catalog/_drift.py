"""Compare the installed schema with the one that its revision declares."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from psycopg.errors import InternalError_, UndefinedObject, UndefinedTable
from sqlalchemy.exc import DBAPIError

from syntegra_db.catalog import ddl
from syntegra_db.catalog._closest import closest_revision, compare_with_revision
from syntegra_db.catalog._findings import NO_ACTION, DriftReport, Finding
from syntegra_db.catalog._introspection import LiveCatalog, introspect
from syntegra_db.catalog._lossy_rows import count_lossy_rows
from syntegra_db.catalog._manifest import load_manifest, managed_tables, managed_types, written_manifests
from syntegra_db.catalog._other_schemas import later_schemas_with_tables
from syntegra_db.catalog._partitions import read_month_partitions, tables_by_month
from syntegra_db.catalog._schema import Schema, Table
from syntegra_db.catalog.compare import (
    DECLARED_VERSION_TABLE,
    column_label,
    compare_extension,
    compare_owner,
    compare_partitions,
    compare_privileges,
    compare_schemas,
    compare_tenancy,
    constraint_label,
    index_label,
)
from syntegra_db.compatibility import compatibility_comment, contractions_between
from syntegra_db.errors import RevisionError
from syntegra_db.recorded_steps import read_unfinished_revision, words_of
from syntegra_db.revisions import (
    VERSION_TABLE,
    current_revision,
    describe_revision,
    list_revisions,
    position_of,
    require_known_revision,
    resolve_revision,
    revision_before,
)
from syntegra_db.search_path import read_session
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

    from syntegra_db.recorded_steps import UnfinishedRevision

# The errors for an object that a migration drops between two queries.
CONCURRENT_DDL_ERRORS = (InternalError_, UndefinedObject, UndefinedTable)
MAX_READS = 5
LABELS: dict[str, Callable[[str, str], str]] = {
    "columns": column_label,
    "constraints": constraint_label,
    "indexes": lambda _, name: index_label(name),
}


def verify(connection: Connection, at: str | None = None) -> DriftReport:
    """Compare the current schema with the manifest of its revision, and report drift and notes.

    With `at`, such as `head` or `002`, that revision is declared, and another revision of the database is drift.
    The role must be allowed to use the schema and to read `alembic_version`. Tables of other applications are ignored,
    and so are their indexes on managed tables unless they are unique or invalid or can reject an insert. Another object
    of an application is a note if it can reject no insert of the models. No lock is kept, and no setting of the session
    is changed. The connection must not be in AUTOCOMMIT.

    Raises:
        RevisionError, DatabaseAhead: see `current_revision`, `require_known_revision` and `resolve_revision`.
        SettingsError, LockTimeout: see `introspect`.
    """
    if at == "":
        raise RevisionError(f"The revision is empty. {list_revisions()}")
    revision, unfinished, installed = _read_consistently(connection)
    version_table = installed.schema.tables.pop(VERSION_TABLE, None)
    expected = revision if at is None else resolve_revision(at, revision)
    declared, own = load_manifest(expected), load_manifest(revision)
    found = compare_with_revision(expected, installed.schema)
    if unfinished is not None and expected == revision:
        found = _without_steps(found, unfinished, revision, installed.schema)
    other_revision: list[Finding] = []
    differences = count_lossy_rows(connection, declared, installed, found)
    if expected != revision:
        fix = _migration_fix(revision, expected, is_needed=any(finding.is_drift for finding in differences))
        differences = [*_with_migration(differences, fix, revision, installed.schema)]
        other_revision = [_other_revision(revision, expected, fix)]
    elif unfinished is None and any(finding.is_drift for finding in differences):
        matching = _matching_revision(revision, installed.schema)
        if matching != revision:
            differences = [replace(finding, fix=_stamp_fix(revision, matching)) for finding in differences]
    findings = [
        *other_revision,
        *([_unfinished_revision(unfinished)] if unfinished else []),
        *compare_extension(declared, installed),
        *_compare_version_table(revision, version_table),
        *differences,
        *(
            finding
            for partitions in read_month_partitions(connection, tables_by_month(own))
            for finding in compare_partitions(partitions)
        ),
        *compare_tenancy(own, installed),
        *compare_owner(installed.privileges.owners),
        *compare_privileges(own, installed),
        *(_unused_set(schema) for schema in later_schemas_with_tables(connection)),
    ]
    return DriftReport(
        revision=revision,
        findings=[finding for finding in findings if finding.is_drift],
        notes=[finding for finding in findings if not finding.is_drift],
        compared_with=None if at is None else expected or "base",
    )


def is_accepted(report: DriftReport, kind: str, table: str, name: str, *, is_extra: bool) -> bool:
    """Return whether `verify` accepts an installed object that the models do not have, or have with other attributes.

    `kind` is columns, constraints or indexes. What the revision declares is accepted with other attributes only if that
    is a note, and an application's own object unless it is drift.
    """
    label = LABELS[kind](table, name)
    is_declared = name in getattr(load_manifest(report.revision).tables.get(table, Table()), kind)
    if is_extra:
        return not is_declared and all(finding.object != label for finding in report.findings)
    return is_declared and any(note.object == label for note in report.notes)


def unversioned_objects(connection: Connection) -> list[str]:
    """Return managed tables and types that exist although the stamped revision predates them.

    Raises:
        RevisionError, DatabaseAhead, SettingsError, LockTimeout: see `verify`.
    """
    revision, _, installed = _read_consistently(connection)
    declared = load_manifest(revision)
    existing = {*installed.schema.tables, *installed.schema.types} - {*declared.tables, *declared.types}
    return [name for name in (*managed_tables(), *managed_types()) if name in existing]


def _read_consistently(connection: Connection) -> tuple[str | None, UnfinishedRevision | None, LiveCatalog]:
    """Return the revision, the unfinished one and the installed schema; repeat if a revision ended in between."""
    attempts_left = MAX_READS
    while True:
        attempts_left -= 1
        revision, unfinished = current_revision(connection), read_unfinished_revision(connection)
        try:
            installed = introspect(connection, [*managed_tables(), VERSION_TABLE], managed_types())
        except DBAPIError as error:
            if attempts_left and isinstance(error.orig, CONCURRENT_DDL_ERRORS):
                continue
            raise
        is_unfinished = read_unfinished_revision(connection) is not None
        if current_revision(connection) == revision and is_unfinished == (unfinished is not None):
            require_known_revision(revision, read_session(connection).schema)
            return revision, unfinished, installed


def _unused_set(schema: str) -> Finding:
    return Finding(
        object=f"schema {quote(schema)}",
        expected="no tables of this package",
        found="tables of this package",
        impact="No command uses them, because another schema comes first on the search_path.",
        fix=NO_ACTION,
        is_drift=False,
    )


def _compare_version_table(revision: str | None, installed: Table | None) -> Iterator[Finding]:
    if installed is not None:
        declared_table = replace(DECLARED_VERSION_TABLE, comment=compatibility_comment(revision))
        declared = Schema(tables={VERSION_TABLE: declared_table})
        yield from compare_schemas(declared, Schema(tables={VERSION_TABLE: installed}))


def _without_steps(
    differences: Iterator[Finding], unfinished: UnfinishedRevision, revision: str | None, installed: Schema
) -> Iterator[Finding]:
    """Yield the differences that the steps of an unfinished revision do not explain.

    An object may be as in the revision before or after them, and in any state between the two if a step names it; see
    `_is_no_state_between`.
    """
    if unfinished.revision not in written_manifests():
        yield from differences
        return
    other = revision_before(revision) if revision == unfinished.revision else unfinished.revision
    others = [finding for finding in compare_with_revision(other, installed) if finding.is_drift]
    differing = {finding.object for finding in others}
    named = words_of(unfinished.steps)
    # Found in neither revision: what both declare is missing, or has another attribute than in both.
    in_neither = {(finding.object, finding.found) for finding in others}
    for finding in differences:
        if (
            not finding.is_drift
            or (finding.object in differing and finding.object.split()[1] not in named)
            or (
                (finding.object, finding.found) in in_neither
                and _is_no_state_between(finding, load_manifest(revision), load_manifest(other), installed)
            )
        ):
            yield finding


def _is_no_state_between(finding: Finding, before: Schema, after: Schema, installed: Schema) -> bool:
    """Return whether no step makes `finding`, which both revisions have, although a step may name its object.

    A step names the table whose rows it reads, and columns that it fills. It may drop and create an index or constraint
    again, and change a column in several steps, but it removes no table, type or column that both revisions declare.
    """
    kind, name = finding.object.split()[:2]
    if kind == "type" and name in before.types and name in after.types:
        old, new, labels = (set(schema.types.get(name, ())) for schema in (before, after, installed))
        return not old & new <= labels <= old | new
    return (kind == "table" and name in before.tables and name in after.tables) or finding.found == "no such column"


def _unfinished_revision(unfinished: UnfinishedRevision) -> Finding:
    return Finding(
        object=f"revision {unfinished.revision}",
        expected="finished, or not begun",
        found=str(unfinished),
        impact="The schema is between two revisions. What its steps change is not drift.",
        fix=f"-- {unfinished.instructions}",
        is_drift=False,
    )


def _other_revision(revision: str | None, expected: str | None, fix: str) -> Finding:
    return Finding(
        object="revision of the database",
        expected=describe_revision(expected),
        found=f"the database is at {describe_revision(revision)}",
        impact="What only a migration changes is different too.",
        fix=fix,
    )


def _migration_fix(revision: str | None, expected: str | None, *, is_needed: bool) -> str:
    """Return what takes a database at `revision` to the revision `expected`; only the stamp if that `is_needed` not."""
    if not is_needed:
        return _stamp_fix(revision, expected)
    if position_of(revision) > position_of(expected):
        return f"-- Run `syntegra-db rollback {expected or 'base'}`, which first saves the rows that it deletes."
    option = " --contract" if revision is not None and contractions_between(revision, expected) else ""
    return f"-- Run `syntegra-db upgrade {expected}{option}`."


def _with_migration(
    differences: Sequence[Finding], fix: str, revision: str | None, installed: Schema
) -> Iterator[Finding]:
    """Yield `differences` with the `fix` that migrates, except those from `revision`, which no migration corrects."""
    own = {finding.identity for finding in compare_with_revision(revision, installed)}
    for finding in differences:
        yield finding if finding.identity in own or not finding.is_drift else replace(finding, fix=fix)


def _stamp_fix(revision: str | None, matching: str | None) -> str:
    stamp = ddl.stamp(matching) if matching and revision is None else ddl.restamp(matching)
    return ddl.join_statements(f"-- The tables are exactly those of {describe_revision(matching)}.", stamp)


def _matching_revision(revision: str | None, installed: Schema) -> str | None:
    """Return the closest revision if the schema has no drift from it, or else `revision`."""
    closest = closest_revision(installed, revision)
    has_drift = any(finding.is_drift for finding in compare_with_revision(closest, installed))
    return revision if has_drift else closest
