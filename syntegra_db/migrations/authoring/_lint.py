"""Check the revisions before their release: online forms, phases, names, docstrings, downgrades, releases."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from alembic.operations.ops import (
    AddColumnOp,
    AddConstraintOp,
    CreateIndexOp,
    CreateTableOp,
    DropConstraintOp,
    DropIndexOp,
)
from sqlalchemy import Column, Constraint, PrimaryKeyConstraint

from syntegra_db.catalog import Schema, written_manifests
from syntegra_db.client_policies import SHARED_TABLES
from syntegra_db.client_setting import CLIENT_COLUMN
from syntegra_db.compatibility import CONTRACT, EXPAND, phase_of
from syntegra_db.errors import MigrationFailed
from syntegra_db.migrations._failures import describe_bugs
from syntegra_db.migrations._headings import HEADINGS, read_headings
from syntegra_db.migrations.authoring._alike import alike_after, kept_alike, misused_columns, unreverted_columns
from syntegra_db.migrations.authoring._checkout import releases_of_revisions, require_checkout
from syntegra_db.migrations.authoring._docstring import outdated_headings
from syntegra_db.migrations.authoring._effects import effects
from syntegra_db.migrations.authoring._phase_rules import divide_by_phase
from syntegra_db.migrations.authoring._squawk import report_of_squawk
from syntegra_db.migrations.online import PLACEHOLDER, BackfillStep, collect_functions, describe
from syntegra_db.revision_files import script_location
from syntegra_db.revisions import (
    all_revisions,
    revision_before,
    revision_file,
    revision_path,
    script_directory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    from alembic.operations.ops import MigrateOperation

    from syntegra_db.migrations.online import CollectedSteps
    from syntegra_db.recorded_steps import Direction

# Released before there were phases; they create the tables.
WITHOUT_PHASE = ("001", "002", "003")
ONLINE_OPERATION = re.compile(r"op\.(?:create|drop|set)_\w+_online")


class Remark(NamedTuple):
    """What has to be changed in the file of a revision before its release."""

    path: Path
    text: str


class _Review:
    """The check of one revision."""

    def __init__(self, revision: str, root: Path, releases: Mapping[str, str]) -> None:
        self.module: ModuleType = script_directory().get_revision(revision).module
        self.revision, self.root, self.releases = revision, root, releases
        self.before = _known_schema(revision_before(revision))
        # Without its manifest, nothing is known of what the upgrade changes.
        self.after = written_manifests().get(revision)
        self.upgrade, self.downgrade = collect_functions(self.module)
        self.alike = kept_alike(revision_before(revision))

    def texts(self) -> Iterator[str]:
        """Yield what has to be changed."""
        if self.after is None:
            yield "it has no manifest yet. When the rest is corrected, write it: make generate"
        yield from _of_docstring(self.module.__doc__ or "")
        if self.revision not in WITHOUT_PHASE:
            yield from self._of_phase()
        if self.upgrade is not None and self.downgrade is not None:
            headings = read_headings(self.module.__doc__ or "")
            before = revision_before(self.revision)
            yield from outdated_headings(headings, self.upgrade, self.downgrade, self.before, before)
        parts: tuple[tuple[Direction, CollectedSteps | None, Schema], ...] = (
            ("upgrade", self.upgrade, self.before),
            ("downgrade", self.downgrade, self.after or Schema()),
        )
        for direction, collected, schema in parts:
            if collected is None:
                yield (
                    f"{direction} uses the connection (op.get_bind() or op.batch_alter_table()), so its operations "
                    "cannot be checked, and not be divided into steps. Use others, such as op.execute and op.backfill."
                )
            else:
                for text in self._of_function(direction, collected, schema):
                    yield f"{direction}: {text}"
        changes = (
            [] if self.upgrade is None else [step for step in self.upgrade.steps if not isinstance(step, BackfillStep)]
        )
        if changes and self.downgrade is not None and not self.downgrade.steps:
            yield "downgrade does nothing. It drops or restores everything that upgrade changed."
        yield from self._of_alike_columns()

    def _of_function(self, direction: Direction, collected: CollectedSteps, schema: Schema) -> Iterator[str]:
        reported: list[MigrateOperation] = []
        if direction == "upgrade" and not collected.steps:
            yield "it does nothing. Write its operations, or delete the revision."
        for operation, found in effects(collected.steps, schema):
            for effect in found:
                form = effect.online_form
                # The opposite of an online operation can need a rewrite.
                if operation is not None and form and (direction == "upgrade" or ONLINE_OPERATION.match(form)):
                    reported.append(operation)
                    yield (f"{describe(operation)} locks {effect.table} ({effect.lock}) {effect.duration}. Use {form}.")
            if operation is not None:
                yield from _missing_names(operation)
            if direction == "upgrade" and isinstance(operation, CreateTableOp):
                yield from _missing_client(operation)
        for step in collected.steps:
            if isinstance(step, BackfillStep) and step.missing_values:
                yield step.missing_values
        yield from report_of_squawk(self.root, collected.steps, direction, reported)

    def _of_alike_columns(self) -> Iterator[str]:
        if self.upgrade is None:
            return
        for text in misused_columns(self.upgrade.operations, self.alike):
            yield f"upgrade: {text}"
        if self.downgrade is None:
            return
        for text in misused_columns(self.downgrade.operations, alike_after(self.upgrade, self.alike)):
            yield f"downgrade: {text}"
        for text in unreverted_columns(self.upgrade, self.downgrade, self.alike):
            yield f"downgrade: {text}"

    def _of_phase(self) -> Iterator[str]:
        phase = phase_of(self.revision)
        if phase not in {EXPAND, CONTRACT}:
            yield (
                'phase is missing. Write phase = "expand" if services of the revision before work on the new schema, '
                'and phase = "contract" if not.'
            )
        if self.upgrade is None:
            return
        found = divide_by_phase(self.upgrade.operations, self.before, self.alike)
        if found.ending and (found.beginning or phase == EXPAND):
            ending = ", ".join(dict.fromkeys(found.ending))
            if not found.beginning:
                yield (
                    f"upgrade: services of the revision before do not work after this: {ending}. Write "
                    'phase = "contract".'
                )
            else:
                beginning = ", ".join(dict.fromkeys(found.beginning))
                yield (
                    f"upgrade has two phases: an expansion ({beginning}) and a contraction ({ending}). Move the "
                    "contraction to a revision of a later release; op.keep_alike keeps two columns alike until then."
                )
        elif found.beginning and phase == CONTRACT:
            yield (
                f"upgrade: phase is contract, but this is an expansion: {', '.join(dict.fromkeys(found.beginning))}. "
                "Move it to an earlier revision, so that services can use it before the contraction."
            )
        yield from self._of_release(phase, found.tables)

    def _of_release(self, phase: str | None, tables: set[str]) -> Iterator[str]:
        release = self.releases.get(self.revision)
        if release is None:
            yield f"CHANGELOG.md has no entry of the revision. Add this line: - Revision {self.revision}: …"
        if release is None or phase != CONTRACT:
            return
        for earlier in revision_path(None, revision_before(self.revision))[1:]:
            if earlier and self.releases.get(earlier) == release and phase_of(earlier) == EXPAND:
                shared = _tables_changed_by(earlier) & tables
                if shared:
                    yield (
                        f"upgrade: this contraction of {', '.join(sorted(shared))} is in release {release} like its "
                        f"expansion, revision {earlier}. Services need a release between them: move it to a later one."
                    )


def lint_revisions() -> list[Remark]:
    """Return what has to be changed in the revisions of the checkout, in their order.

    Raises:
        RevisionError: the package is not a checkout, or squawk cannot run.
    """
    root = require_checkout()
    releases = releases_of_revisions(root)
    remarks: list[Remark] = []
    for revision in all_revisions():
        try:
            with describe_bugs(lambda: "Its operations are not known."):
                review = _Review(revision, root, releases)
        except MigrationFailed as bug:
            # The revisions after it depend on what it does.
            return [*remarks, Remark(revision_file(revision), str(bug))]
        remarks += [Remark(revision_file(revision), text) for text in review.texts()]
    return remarks


def _known_schema(revision: str | None) -> Schema:
    """Return the declared schema of `revision`, or of the newest one before it that has its manifest."""
    written = written_manifests()
    return next((written[name] for name in revision_path(revision, None) if name in written), Schema())


def _tables_changed_by(revision: str) -> set[str]:
    upgrade, _ = collect_functions(script_directory().get_revision(revision).module)
    if upgrade is None:
        return set()
    before = revision_before(revision)
    return divide_by_phase(upgrade.operations, _known_schema(before), kept_alike(before)).tables


def _of_docstring(docstring: str) -> Iterator[str]:
    headings, template = read_headings(docstring), read_headings(_template())
    for heading in HEADINGS:
        if heading not in headings:
            yield f"the docstring has no heading {heading!r}. The headings are {', '.join(HEADINGS)}."
        elif PLACEHOLDER in headings[heading] or headings[heading] == template[heading]:
            yield f"the docstring has no text under {heading!r} yet."


def _template() -> str:
    return (script_location() / "script.py.mako").read_text(encoding="utf-8")


def _missing_client(operation: CreateTableOp) -> Iterator[str]:
    name = operation.table_name
    columns = {item.name for item in operation.columns if isinstance(item, Column)}
    if CLIENT_COLUMN not in columns and name not in SHARED_TABLES:
        yield (
            f"table {name} has no column {CLIENT_COLUMN}, so under `syntegra-db tenancy` no service may read it. Add "
            "the column, or, if its rows are for every client, add its name to SHARED_TABLES in "
            "syntegra_db/client_policies.py."
        )


def _missing_names(operation: MigrateOperation) -> Iterator[str]:
    text = f"{describe(operation)} has no name. Give it one, which the downgrade and later revisions use."
    if isinstance(operation, CreateIndexOp | DropIndexOp) and operation.index_name is None:
        yield text
    if isinstance(operation, AddConstraintOp | DropConstraintOp) and vars(operation)["constraint_name"] is None:
        yield text
    items: Sequence[object] = ()
    if isinstance(operation, CreateTableOp):
        items = operation.columns
    elif isinstance(operation, AddColumnOp):
        items = [operation.column]
    table = str(vars(operation).get("table_name"))
    has_key = any(isinstance(item, PrimaryKeyConstraint) for item in items)
    kinds = ("unique", "index", *(() if has_key else ("primary_key",)))
    for item in items:
        if isinstance(item, Constraint) and item.name is None:
            yield f"create table {table}: a {type(item).__name__} has no name. Give it one."
        if isinstance(item, Column):
            unnamed = [kind for kind in kinds if getattr(item, kind)]
            unnamed += ["foreign key" for key in item.foreign_keys if key.name is None]
            for kind in unnamed:
                yield (
                    f"{table}.{item.name}: {kind} in the column has no name. Write it as a constraint or an index "
                    "with a name."
                )
