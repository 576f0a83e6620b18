"""What would have to change, and what a person has to decide first."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, OperationalError

from syntegra_db.adoption._backfills import plan_backfills
from syntegra_db.adoption._conversions import Conversion, find_conversion
from syntegra_db.adoption._inspection import Inspection, inspect_database
from syntegra_db.adoption._model import AdoptionInput, AdoptionPlan, ColumnTextSql, OpenQuestion, SchemaChange
from syntegra_db.adoption._preconditions import require_convertible, require_readable
from syntegra_db.adoption._reconcile import reconcile_constraints, reconcile_sequence
from syntegra_db.adoption._rewrites import converted_table, plan_rewrites
from syntegra_db.adoption._row_checks import PlannedRows, check_rows
from syntegra_db.catalog import Schema, ddl
from syntegra_db.catalog.compare import compare_enums, compare_extension, compare_schemas
from syntegra_db.errors import AdoptionFailed
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from syntegra_db.adoption._model import Backfill
    from syntegra_db.catalog import Column, Finding, Table

Conversions = dict[tuple[str, str], Conversion | None]


@dataclass
class _Draft:
    """The shape as it will be when the preparations and rewrites are done, and what they are."""

    tables: dict[str, Table]
    preparations: list[SchemaChange] = field(default_factory=list)
    decisions: list[OpenQuestion] = field(default_factory=list)


def plan(connection: Connection, answers: AdoptionInput | None = None) -> AdoptionPlan:
    """Return what stands between a database that was made by hand and the revision that it comes closest to.

    Reads the catalog and the rows, and changes nothing. It works in a savepoint of the connection's transaction.

    Raises:
        AdoptionRefused: no statement brings it in line, or there is nothing to adopt; the message has all reasons.
        DecisionNeeded: an answer names no column that needs one, or is no value.
        AdoptionFailed: a statement that looks failed, as an answer can that divides by zero.
        DatabaseAhead, RevisionError, SettingsError, LockNotObtained: see `check_index_health`.
    """
    savepoint = connection.begin_nested()
    try:
        return _plan(connection, inspect_database(connection, answers or AdoptionInput()))
    except OperationalError:
        # A lock that was not to be had is tried again, a connection that was lost is told of.
        raise
    except DBAPIError as error:
        reason = str(error.orig).splitlines()[0]
        raise AdoptionFailed(f"The rows could not be looked at: {reason}. Nothing was changed.") from error
    finally:
        savepoint.rollback()


def _plan(connection: Connection, situation: Inspection) -> AdoptionPlan:
    require_readable(connection, situation)
    conversions = _conversions(situation)
    require_convertible(connection, situation, conversions)
    fills = plan_backfills(connection, situation)
    rows = PlannedRows(
        connection,
        situation.expected,
        situation.found,
        conversions,
        {(fill.table, fill.column): fill.expression for fill in fills},
        situation.version,
    )
    draft = _draft(connection, situation, conversions)
    decisions = [*draft.decisions, *check_rows(situation, rows)]
    rewrites, retyped = plan_rewrites(connection, situation, rows)
    tables = {name: converted_table(situation, name, table, conversions) for name, table in draft.tables.items()}
    changed = plan_schema_changes(situation, Schema(types=situation.expected.types, tables=tables), fills)
    return AdoptionPlan(
        revision=situation.revision,
        stamped=situation.stamped,
        timezone=situation.timezone,
        matches=changed.matches,
        kept=(*changed.stays, *_external_foreign_keys(situation)),
        preparations=(*draft.preparations, *changed.before_rows),
        backfills=tuple(replace(fill, rows=rows.count_filled(fill.table, fill.column)) for fill in fills),
        rewrites=rewrites,
        changes=(*retyped, *_drop_replaced_enums(situation), *changed.changes),
        open_questions=tuple(decisions),
        texts={name: _texts(name, situation, conversions) for name in _package_tables(situation)},
    )


def _package_tables(situation: Inspection) -> list[str]:
    """Return the tables that are there and belong to the revision."""
    return [name for name in situation.expected.tables if name in situation.found.tables]


def _conversions(situation: Inspection) -> Conversions:
    """Return how the columns change whose type or collation is another, None for those that cannot."""
    labels = {**situation.found.types, **situation.expected.types}
    relabelled = {
        name for name, wanted in situation.expected.types.items() if situation.found.types.get(name) != wanted
    }
    found: Conversions = {}
    for name in _package_tables(situation):
        for column, wanted in situation.expected.tables[name].columns.items():
            there = situation.found.tables[name].columns.get(column)
            if there is None:
                continue
            if (there.type, there.collation) != (wanted.type, wanted.collation) or wanted.type in relabelled:
                found[name, column] = find_conversion(there.type, wanted.type, labels, situation.timezone)
    return found


def _draft(connection: Connection, situation: Inspection, conversions: Conversions) -> _Draft:
    draft = _Draft(tables={})
    draft.preparations += _extension(situation)
    draft.preparations += _types(situation)
    for name in _package_tables(situation):
        moved, table = reconcile_sequence(connection, situation, name, situation.found.tables[name])
        room = reconcile_constraints(situation, name, table, conversions)
        draft.tables[name] = room.table
        draft.preparations += [*room.changes, *moved]
        draft.decisions += room.decisions
    # A foreign key goes before the key that it points at is touched.
    draft.preparations.sort(key=lambda change: ddl.FOREIGN_KEY not in change.found)
    return draft


def _extension(situation: Inspection) -> Iterator[SchemaChange]:
    if situation.snapshot.extension is None:
        for finding in compare_extension(situation.expected, situation.snapshot):
            yield SchemaChange(finding.object, finding.expected, finding.found, transactional_statements(finding.fix))


def _types(situation: Inspection) -> Iterator[SchemaChange]:
    for finding in compare_enums(situation.expected, situation.found):
        name = finding.object.removeprefix("type ")
        create = ddl.create_enum(name, situation.expected.types[name])
        aside = f"ALTER TYPE {quote(name)} RENAME TO {quote(f'{name}_old')};"
        statements = (aside, create) if name in situation.found.types else (create,)
        yield SchemaChange(finding.object, finding.expected, finding.found, statements)


def _drop_replaced_enums(situation: Inspection) -> Iterator[SchemaChange]:
    """Yield the end of ENUM types that had other labels; no column has them any more."""
    for name, labels in situation.expected.types.items():
        there = situation.found.types.get(name, labels)
        if there != labels:
            old = f"{name}_old"
            yield SchemaChange(f"type {old}", "no such type", ", ".join(there), (f"DROP TYPE {quote(old)};",))


def _texts(name: str, situation: Inspection, conversions: Conversions) -> tuple[ColumnTextSql, ...]:
    there = situation.found.tables[name].columns
    converted = {column: conversions.get((name, column)) or Conversion() for column in there}
    return tuple(
        ColumnTextSql(
            column,
            each.before.replace("{}", quote(column)),
            each.after.replace("{}", quote(column)),
        )
        for column, each in converted.items()
    )


def _external_foreign_keys(situation: Inspection) -> Iterator[str]:
    for row in situation.constraints:
        if row["type"] == "f" and row["table"] not in situation.found.tables:
            yield f"foreign key {row['name']} of {row['table']} to {row['target']}"


CONCURRENTLY = re.compile(r"^((?:CREATE|CREATE UNIQUE|DROP|REINDEX) INDEX) CONCURRENTLY ")


@dataclass(frozen=True)
class SchemaChanges:
    """What is equal, what stays though it is not ours, and what changes, before rows get values and after."""

    matches: tuple[str, ...]
    stays: tuple[str, ...]
    before_rows: tuple[SchemaChange, ...]
    changes: tuple[SchemaChange, ...]


def plan_schema_changes(situation: Inspection, reached: Schema, fills: Sequence[Backfill]) -> SchemaChanges:
    """Return what stands between `reached`, the shape after the rewrites, and the manifest."""
    before, tables = [], dict(reached.tables)
    for fill in fills:
        if fill.adds_column:
            column = situation.expected.tables[fill.table].columns[fill.column]
            before.append(_added(fill.table, fill.column, column))
            tables[fill.table] = _with_column(tables[fill.table], fill.column, column)
    findings = list(compare_schemas(situation.expected, replace(reached, tables=tables)))
    return SchemaChanges(
        matches=tuple(
            _describe_matches(situation, name) for name in situation.expected.tables if name in situation.found.tables
        ),
        stays=tuple(f"{finding.object} ({finding.found})" for finding in findings if not finding.is_drift),
        before_rows=tuple(before),
        changes=tuple(_change(finding) for finding in findings if finding.is_drift),
    )


def transactional_statements(remedy: str) -> tuple[str, ...]:
    """Return the statements of a remedy as they are run inside a transaction: none CONCURRENTLY, and no comments."""
    statements = (line for line in remedy.splitlines() if not line.startswith("--"))
    return tuple(CONCURRENTLY.sub(r"\1 ", statement) for statement in statements)


def _change(finding: Finding) -> SchemaChange:
    return SchemaChange(finding.object, finding.expected, finding.found, transactional_statements(finding.fix))


def _added(table: str, name: str, column: Column) -> SchemaChange:
    definition = ddl.column_definition(table, name, _bare(column))
    statement = f"ALTER TABLE {quote(table)} ADD COLUMN {definition};"
    return SchemaChange(f"column {table}.{name}", column.type, "no such column", (statement,))


def _bare(column: Column) -> Column:
    """Return a column that can be added to a table with rows before it has its values."""
    return replace(column, nullability="NULL", default=None, comment=None)


def _with_column(table: Table, name: str, column: Column) -> Table:
    return replace(table, columns={**table.columns, name: _bare(column)})


def _describe_matches(situation: Inspection, name: str) -> str:
    """Return what of a table is as it should be, counted by kind."""
    expected, found = situation.expected.tables[name], situation.found.tables[name]
    counts = [
        (len(wanted), sum(there.get(key) == value for key, value in wanted.items()), kind)
        for kind, wanted, there in (
            ("columns", _column_types(expected), _column_types(found)),
            ("constraints", expected.constraints, found.constraints),
            ("indexes", expected.indexes, found.indexes),
        )
    ]
    return f"{name}: {', '.join(f'{there} of {wanted} {kind}' for wanted, there, kind in counts)}"


def _column_types(table: Table) -> dict[str, str]:
    return {name: column.type for name, column in table.columns.items()}
