"""Plan an adoption: what must change, and what a person must decide first."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, OperationalError

from syntegra_db.adoption._backfills import plan_backfills
from syntegra_db.adoption._inspection import Inspection, inspect_database
from syntegra_db.adoption._model import AdoptionInput, AdoptionPlan, Backfill, ColumnTextSql, SchemaChange
from syntegra_db.adoption._preconditions import require_adoptable
from syntegra_db.adoption._reconcile import reconcile_table
from syntegra_db.adoption._rewrites import converted_table, plan_rewrites
from syntegra_db.adoption._row_checks import PlannedRows, accepted_losses, check_rows
from syntegra_db.adoption._supplied_expressions import Problem, find_problems
from syntegra_db.adoption._writers import writer_requirements
from syntegra_db.catalog import Column, Schema, Table, ddl
from syntegra_db.catalog.compare import compare_enums, compare_extension, compare_schemas
from syntegra_db.catalog.conversions import Conversion
from syntegra_db.errors import AdoptionFailed, server_message
from syntegra_db.search_path import declared_search_path
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from syntegra_db.catalog import Finding

CONCURRENTLY = re.compile(r"^((?:CREATE|CREATE UNIQUE|DROP|REINDEX) INDEX) CONCURRENTLY ")


def plan(connection: Connection, supplied: AdoptionInput | None = None) -> AdoptionPlan:
    """Return the steps from tables created outside migrations to the revision that they are closest to.

    Reads the catalog and the rows in a savepoint of the connection's transaction, and changes nothing. It is read-only,
    after the server has parsed the supplied expressions.

    Raises:
        AdoptionNotPossible: there is nothing to adopt, or it cannot be changed in place; the message has all reasons.
        DecisionRequired: a supplied value is for a column that needs none, or is neither a value nor an expression.
        AdoptionFailed: a query failed, for example because a supplied expression divides by zero.
        UntrustedObject: another role created a function, operator or type that the plan could call.
        DatabaseAhead, RevisionError, SettingsError, LockTimeout: see `inspect_database`.
    """
    savepoint = connection.begin_nested()
    try:
        with declared_search_path(connection):
            supplied = supplied or AdoptionInput()
            problems = find_problems(connection, supplied.values)
            connection.exec_driver_sql("SET LOCAL transaction_read_only = on")
            return _plan(connection, inspect_database(connection, supplied), problems)
    except OperationalError:
        # Lock timeouts are retried, and lost connections are reported, by the caller.
        raise
    except DBAPIError as error:
        raise AdoptionFailed(f"The rows cannot be checked: {server_message(error)}. Nothing was changed.") from error
    finally:
        savepoint.rollback()


def _plan(connection: Connection, inspection: Inspection, problems: Mapping[str, Problem]) -> AdoptionPlan:
    require_adoptable(connection, inspection)
    backfills = plan_backfills(connection, inspection, problems)
    expressions = {(backfill.table, backfill.column): backfill.expression for backfill in backfills}
    rows = PlannedRows(connection, inspection, expressions)
    losses = tuple(accepted_losses(rows))
    reconciled = [
        reconcile_table(connection, inspection, name, declared, installed)
        for name, declared, installed in inspection.tables()
    ]
    tables = {table.name: converted_table(inspection, table.name, table.table) for table in reconciled}
    added = [_add_column(inspection, tables, backfill) for backfill in backfills if backfill.adds_column]
    questions = [question for table in reconciled for question in table.questions] + list(check_rows(rows))
    rewrites, retyped = plan_rewrites(rows)
    findings = list(compare_schemas(inspection.declared, Schema(types=inspection.declared.types, tables=tables)))
    preparations = [
        *_create_extension(inspection),
        *_create_enums(inspection),
        *(change for table in reconciled for change in table.changes),
    ]
    # A foreign key is dropped before the key that it refers to is changed.
    preparations.sort(key=lambda change: not change.found.startswith(ddl.FOREIGN_KEY))
    notes = (f"{finding.object} ({finding.found})" for finding in findings if not finding.is_drift)
    return AdoptionPlan(
        revision=inspection.revision,
        stamped=inspection.stamped,
        timezone=inspection.timezone,
        matches=tuple(_describe_matches(*table) for table in inspection.tables()),
        kept=(*notes, *_external_foreign_keys(inspection)),
        preparations=(*preparations, *added),
        backfills=tuple(_count_rows(rows, backfill) for backfill in backfills),
        rewrites=rewrites,
        changes=(
            *retyped,
            *_drop_replaced_enums(inspection),
            *(_change(finding) for finding in findings if finding.is_drift),
        ),
        losses=losses,
        writers=tuple(writer_requirements(inspection)),
        open_questions=tuple(questions),
        texts={name: _texts(inspection, name, installed) for name, _, installed in inspection.tables()},
    )


def _add_column(inspection: Inspection, tables: dict[str, Table], backfill: Backfill) -> SchemaChange:
    """Return the change that adds a column without values to a table, and add it to that table of `tables`."""
    name, table = backfill.column, backfill.table
    declared = inspection.declared.tables[table].columns[name]
    column: Column = replace(declared, nullability="NULL", default=None, comment=None)
    tables[table] = replace(tables[table], columns={**tables[table].columns, name: column})
    statement = f"ALTER TABLE {quote(table)} ADD COLUMN {ddl.column_definition(table, name, column)};"
    return SchemaChange(f"column {table}.{name}", column.type, "no such column", (statement,))


def _count_rows(rows: PlannedRows, backfill: Backfill) -> Backfill:
    condition = "true" if backfill.adds_column else f"{quote(backfill.column)} IS NULL"
    return replace(backfill, rows=rows.count(backfill.table, condition))


def _create_extension(inspection: Inspection) -> Iterator[SchemaChange]:
    if inspection.catalog.extension is None:
        yield from map(_change, compare_extension(inspection.declared, inspection.catalog))


def _create_enums(inspection: Inspection) -> Iterator[SchemaChange]:
    for finding in compare_enums(inspection.declared, inspection.installed):
        name = finding.object.removeprefix("type ")
        create = ddl.create_enum(name, inspection.declared.types[name])
        rename = f"ALTER TYPE {quote(name)} RENAME TO {quote(f'{name}_old')};"
        statements = (rename, create) if name in inspection.installed.types else (create,)
        yield SchemaChange(finding.object, finding.expected, finding.found, statements)


def _drop_replaced_enums(inspection: Inspection) -> Iterator[SchemaChange]:
    """Yield the changes that drop ENUM types with other labels, which no column uses any more."""
    for name in inspection.replaced_enums():
        old, labels = f"{name}_old", ", ".join(inspection.installed.types[name])
        yield SchemaChange(f"type {old}", "no such type", labels, (f"DROP TYPE {quote(old)};",))


def _texts(inspection: Inspection, name: str, installed: Table) -> tuple[ColumnTextSql, ...]:
    texts = []
    for column in installed.columns:
        conversion = inspection.conversions.get((name, column)) or Conversion()
        loss, before = conversion.loss, conversion.before
        if loss is not None and loss.before and f"{name}.{column}" in inspection.supplied.accepted_losses:
            before = loss.before
        before, after = (sql.replace("{}", quote(column)) for sql in (before, conversion.after))
        texts.append(ColumnTextSql(column, before, after))
    return tuple(texts)


def _external_foreign_keys(inspection: Inspection) -> Iterator[str]:
    for row in inspection.constraints:
        if row["type"] == "f" and row["table"] not in inspection.installed.tables:
            yield f"foreign key {row['name']} of {row['table']} to {row['target']}"


def _change(finding: Finding) -> SchemaChange:
    return SchemaChange(finding.object, finding.expected, finding.found, transactional_statements(finding.fix))


def transactional_statements(fix: str) -> tuple[str, ...]:
    """Return the statements of a fix for use inside a transaction: without CONCURRENTLY and without comments."""
    statements = (line for line in fix.splitlines() if not line.startswith("--"))
    return tuple(CONCURRENTLY.sub(r"\1 ", statement) for statement in statements)


def _describe_matches(name: str, declared: Table, installed: Table) -> str:
    """Return how many of a table's columns, constraints and indexes are as declared."""
    counts = []
    for kind, expected, found in (
        ("columns", _column_types(declared), _column_types(installed)),
        ("constraints", declared.constraints, installed.constraints),
        ("indexes", declared.indexes, installed.indexes),
    ):
        matches = sum(found.get(key) == value for key, value in expected.items())
        counts.append(f"{matches} of {len(expected)} {kind}")
    return f"{name}: {', '.join(counts)}"


def _column_types(table: Table) -> dict[str, str]:
    return {name: column.type for name, column in table.columns.items()}
