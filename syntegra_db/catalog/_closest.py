"""Compare the installed schema with a revision, and find the revision that it is closest to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog._findings import Finding
from syntegra_db.catalog._manifest import load_manifest, written_manifests
from syntegra_db.catalog.compare import compare_schemas
from syntegra_db.revisions import describe_revision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._schema import Schema


def compare_with_revision(revision: str | None, installed: Schema) -> Iterator[Finding]:
    """Yield what differs from the manifest of `revision`, and the installed objects of other revisions."""
    declared = load_manifest(revision)
    yield from compare_schemas(declared, installed)
    tables, types = set(declared.tables), set(declared.types)
    for other, manifest in written_manifests().items():
        for name in sorted(manifest.tables.keys() & installed.tables.keys() - tables):
            yield _object_of_other_revision("table", name, revision, other)
        for name in sorted(manifest.types.keys() & installed.types.keys() - types):
            yield _object_of_other_revision("type", name, revision, other)
        tables.update(manifest.tables)
        types.update(manifest.types)


def closest_revision(installed: Schema, stamped: str | None = None) -> str | None:
    """Return the revision with the fewest different objects, or None if no managed object is installed.

    A revision is no candidate if it is older than an installed object of its name, whatever is missing: its upgrade
    would fail because the object exists. A comment is no different object, because tables created outside migrations
    rarely have any; a note is one, because a column that a later revision drops is only a note. Of equals, the revision
    that declares most of the installed objects is returned, because a dropped column can differ in many attributes;
    then the one with the fewest findings, then `stamped`, and then the oldest, because an upgrade does the rest.
    """
    existing = _object_names(installed)
    candidates: list[str] = []
    names: dict[str, set[tuple[str, ...]]] = {}
    known: set[tuple[str, ...]] = set()
    for revision, manifest in written_manifests().items():
        names[revision] = _object_names(manifest)
        candidates = [revision] if existing & names[revision] - known else [*candidates, revision]
        known |= names[revision]
    if not existing & known:
        return None

    def distance(revision: str) -> tuple[int, int, int, int, bool]:
        findings = list(compare_with_revision(revision, installed))
        # Of a table that is partitioned in one of them only, nothing else is compared.
        other_kinds = sum(
            table.is_partitioned != installed.tables[name].is_partitioned
            for name, table in load_manifest(revision).tables.items()
            if name in installed.tables
        )
        objects = {finding.object for finding in findings if not finding.fix.startswith("COMMENT ON")}
        return other_kinds, len(objects), -len(existing & names[revision]), len(findings), revision != stamped

    return min(candidates, key=distance)


def _object_names(schema: Schema) -> set[tuple[str, ...]]:
    """Return the objects whose creation fails if one of that name exists."""
    parts = {
        (kind, table, name)
        for table, parts in schema.tables.items()
        for kind in ("columns", "constraints", "indexes")
        for name in getattr(parts, kind)
    }
    return parts | {("table", name) for name in schema.tables} | {("type", name) for name in schema.types}


def _object_of_other_revision(kind: str, name: str, revision: str | None, other: str) -> Finding:
    return Finding(
        object=f"{kind} {name}",
        expected=f"no such {kind} at {describe_revision(revision)}",
        found=f"a {kind} of that name, as in revision {other}",
        impact=f"A migration that creates the {kind} fails.",
        fix=f"-- Run `syntegra-db adopt`, which keeps every row. Rename a {kind} of another application.",
    )
