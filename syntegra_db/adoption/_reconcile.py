"""Reconcile installed constraints, indexes and sequences with the declared ones: drop, rename or report."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from syntegra_db.adoption import _queries
from syntegra_db.adoption._model import OpenQuestion, SchemaChange
from syntegra_db.catalog import ddl
from syntegra_db.catalog.compare import (
    INVALID_SUFFIX,
    accepts_inserts,
    column_label,
    diff_definitions,
    preventing_actions,
    serves_same_search,
)
from syntegra_db.sql import execute_query, literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from syntegra_db.adoption._inspection import Inspection
    from syntegra_db.catalog import Table

CHECK = "CHECK "
NOT_VALID = " NOT VALID"
NAMES = re.compile(r"\w+")
# `verify` prints it for a column without a value, and it changes no row.
DROP_NOT_NULL = ("DROP NOT NULL",)
NEXTVAL = re.compile(r"nextval\('(?P<name>[^']+)'::regclass\)")
IDENTITY = "IDENTITY"


@dataclass
class ReconciledTable:
    """An installed table as it is after `changes`, with the questions about objects that need a decision."""

    name: str
    declared: Table
    table: Table
    changes: list[SchemaChange] = field(default_factory=list)
    questions: list[OpenQuestion] = field(default_factory=list)

    def drop_constraint(self, constraint: str, replacement: str | None) -> None:
        """Drop a constraint that `replacement` replaces, or that no declared constraint replaces."""
        found, statement = self.table.constraints[constraint], ddl.drop_constraint(self.name, constraint)
        label = f"constraint {constraint} on {self.name}"
        expected = f"replaced by {replacement}" if replacement else "dropped: no declared constraint replaces it"
        self.changes.append(SchemaChange(label, expected, found, (statement,)))
        self._remove_constraint(constraint)

    def ask_about_constraint(self, constraint: str) -> None:
        """Ask whether a constraint that rejects valid rows is needed."""
        label = f"constraint {constraint} on {self.name}"
        self._ask(label, self.table.constraints[constraint], ddl.drop_constraint(self.name, constraint))
        self._remove_constraint(constraint)

    def ask_about_index(self, index: str) -> None:
        """Ask whether an index that rejects valid rows is needed."""
        self._ask(f"index {index}", self.table.indexes[index], f"DROP INDEX {quote(index)};")
        self._move_index(index, None)

    def ask_about_column(self, column: str, actions: tuple[str, ...]) -> None:
        """Ask whether what `actions` change in an application's column, which rejects valid rows, is needed."""
        fix = ddl.alter_column(self.name, column, *actions)
        self._ask(column_label(self.name, column), "its type, default or expression", fix)
        self.table = replace(
            self.table,
            rejections=tuple(
                replace(each, parts=tuple(part for part in each.parts if (part.kind, part.part) != ("columns", column)))
                for each in self.table.rejections
            ),
        )

    def rename_index(self, old: str, new: str) -> None:
        """Rename an index, unless it has the name already."""
        if old != new:
            statement = f"ALTER INDEX {quote(old)} RENAME TO {quote(new)};"
            self.changes.append(SchemaChange(f"index {new}", f"named {new}", f"named {old}", (statement,)))
            self._move_index(old, new)

    def accepts_inserts(self, kind: str, definition: str) -> bool:
        """Return whether an installed constraint or index accepts each insert; see `compare.accepts_inserts`."""
        return accepts_inserts(self.declared, self.table, kind, definition)

    def _ask(self, label: str, definition: str, drop: str) -> None:
        reason = f"{definition} rejects rows that the models write"
        self.questions.append(OpenQuestion(label, reason, f"If it is not needed: {drop}"))

    def _remove_constraint(self, constraint: str) -> None:
        kept = {name: definition for name, definition in self.table.constraints.items() if name != constraint}
        self.table = replace(self.table, constraints=kept)

    def _move_index(self, old: str, new: str | None) -> None:
        indexes = dict(self.table.indexes)
        definition = indexes.pop(old)
        self.table = replace(self.table, indexes={**indexes, new: definition} if new else indexes)


def reconcile_table(
    connection: Connection, inspection: Inspection, name: str, declared: Table, installed: Table
) -> ReconciledTable:
    """Return the changes and questions after which the declared constraints, indexes and sequence can be created."""
    reconciled = ReconciledTable(name, declared, installed)
    _reconcile_columns(reconciled)
    _reconcile_foreign_keys(inspection, reconciled)
    _reconcile_checks(inspection, reconciled)
    _reconcile_unique(reconciled)
    _reconcile_vector_indexes(reconciled)
    reconcile_sequence(connection, inspection, reconciled)
    return reconciled


def _reconcile_columns(reconciled: ReconciledTable) -> None:
    """Ask about columns of the application that reject valid rows for another reason than a missing value."""
    for name in reconciled.table.columns.keys() - reconciled.declared.columns.keys():
        actions = preventing_actions(reconciled.declared, reconciled.table, "columns", name)
        if actions and actions != DROP_NOT_NULL:
            reconciled.ask_about_column(name, actions)


def _reconcile_foreign_keys(inspection: Inspection, reconciled: ReconciledTable) -> None:
    """Drop foreign keys between managed tables that differ from the declared ones or duplicate one.

    An application's own foreign key is kept if it accepts each insert of the models. One to another table is asked
    about if not.
    """
    declared, installed = (
        {name: definition for name, definition in table.constraints.items() if definition.startswith(ddl.FOREIGN_KEY)}
        for table in (reconciled.declared, reconciled.table)
    )
    difference = diff_definitions(declared, installed)
    for row in inspection.constraints:
        if row["type"] != "f" or row["table"] != reconciled.name:
            continue
        extra = [name for name in difference.extra if not reconciled.accepts_inserts("constraints", installed[name])]
        if row["target"] not in inspection.installed.tables:
            if row["name"] in extra:
                reconciled.ask_about_constraint(row["name"])
        elif row["name"] in (*extra, *difference.changed):
            same_target = (key for key in declared.values() if f"REFERENCES {row['target']}(" in key)
            replacement = declared.get(row["name"]) or next(same_target, None)
            reconciled.drop_constraint(row["name"], replacement)


def _reconcile_checks(inspection: Inspection, reconciled: ReconciledTable) -> None:
    """Drop CHECKs that the declared ones or an ENUM type replace, and ask about the others."""
    table = reconciled.declared
    declared = {name: definition for name, definition in table.constraints.items() if definition.startswith(CHECK)}
    converted = {column for name, column in inspection.conversions if name == reconciled.name}
    columns = {row["name"]: set(row["columns"]) for row in inspection.constraints if row["table"] == reconciled.name}
    for check, definition in list(reconciled.table.constraints.items()):
        if not definition.startswith(CHECK):
            continue
        is_declared = definition in declared.values() or declared.get(check) == definition.removesuffix(NOT_VALID)
        if is_declared and not columns[check] & converted:
            continue
        replacements = [
            other for name, other in declared.items() if name == check or _columns(other, table) == columns[check]
        ]
        enums = {name for name in columns[check] & converted if table.columns[name].type in inspection.declared.types}
        if replacements:
            reconciled.drop_constraint(check, declared.get(check, replacements[0]))
        elif enums and enums == columns[check]:
            reconciled.drop_constraint(check, f"the ENUM type of {', '.join(sorted(enums))}")
        elif not reconciled.accepts_inserts("constraints", definition):
            reconciled.ask_about_constraint(check)


def _columns(check: str, table: Table) -> set[str]:
    """Return the columns that a declared CHECK references."""
    return table.columns.keys() & set(NAMES.findall(check))


def _reconcile_unique(reconciled: ReconciledTable) -> None:
    """Rename unique indexes that ADD CONSTRAINT … USING INDEX can take, and ask about others that reject rows."""
    declared = reconciled.declared
    for constraint, definition in list(reconciled.table.constraints.items()):
        is_key = definition.startswith(("UNIQUE", "EXCLUDE")) and definition not in declared.constraints.values()
        if is_key and not reconciled.accepts_inserts("constraints", definition):
            reconciled.ask_about_constraint(constraint)
    for index, definition in list(reconciled.table.indexes.items()):
        if definition.endswith(INVALID_SUFFIX):
            continue
        usable = (
            key for key in _missing_constraints(reconciled) if _is_index_of(declared.constraints[key], definition)
        )
        if key := next(usable, None):
            reconciled.rename_index(index, key)
        elif index not in declared.indexes and not reconciled.accepts_inserts("indexes", definition):
            reconciled.ask_about_index(index)


def _missing_constraints(reconciled: ReconciledTable) -> Iterator[str]:
    installed = set(reconciled.table.constraints.values())
    return (name for name, definition in reconciled.declared.constraints.items() if definition not in installed)


def _is_index_of(constraint: str, index: str) -> bool:
    key = ddl.KEY_CONSTRAINT.fullmatch(constraint)
    return key is not None and index == f"UNIQUE btree {key[2]}"


def _reconcile_vector_indexes(reconciled: ReconciledTable) -> None:
    """Give the name of each vector index that is missing to one that serves the same search, with any method."""
    declared = reconciled.declared
    for missing, definition in declared.indexes.items():
        if missing in reconciled.table.indexes:
            continue
        others = ((name, other) for name, other in reconciled.table.indexes.items() if name not in declared.indexes)
        equivalent = next(
            (name for name, other in others if serves_same_search(definition, declared.columns, other)), None
        )
        if equivalent is not None:
            reconciled.rename_index(equivalent, missing)


def reconcile_sequence(connection: Connection, inspection: Inspection, reconciled: ReconciledTable) -> None:
    """Make `id` use its declared sequence; `compare_schemas` reports a wrong type or owner of the sequence."""
    name, declared, table = reconciled.name, reconciled.declared, reconciled.table
    sequence = ddl.serial_sequence(name, "id")
    if "id" not in declared.columns or sequence not in declared.sequences:
        return
    definition = declared.sequences[sequence]
    default = table.columns["id"].default or ""
    used = match["name"] if (match := NEXTVAL.fullmatch(default)) else None
    is_exclusive = used not in inspection.shared_sequences
    if used == sequence and is_exclusive:
        reconciled.changes += _advance_sequence(connection, name, sequence)
        return
    if used is not None and used in table.sequences and is_exclusive:
        reconciled.changes += _rename_sequence(connection, name, sequence, used)
        sequences = {sequence if other == used else other: found for other, found in table.sequences.items()}
    else:
        if default.endswith(IDENTITY):
            statements = _replace_identity(name, sequence, next(iter(table.sequences), sequence), definition)
        else:
            statements = _create_sequence(sequence, definition, previous=used)
        set_default = ddl.alter_column(name, "id", f"SET DEFAULT nextval({literal(quote(sequence))})")
        reconciled.changes.append(
            SchemaChange(f"sequence {sequence}", definition, default or "no default on id", (*statements, set_default))
        )
        sequences = {**table.sequences, sequence: definition}
    column = replace(table.columns["id"], default=declared.columns["id"].default)
    reconciled.table = replace(table, columns={**table.columns, "id": column}, sequences=sequences)


def _replace_identity(table: str, sequence: str, old: str, definition: str) -> Iterator[str]:
    renamed = f"{old}_identity"
    yield f"ALTER SEQUENCE {quote(old)} RENAME TO {quote(renamed)};"
    yield from _create_sequence(sequence, definition, previous=quote(renamed))
    yield ddl.alter_column(table, "id", f"DROP {IDENTITY}")


def _create_sequence(sequence: str, definition: str, previous: str | None) -> Iterator[str]:
    """Yield statements that create a sequence, or advance an existing one, beyond every id and last value.

    `previous` is the quoted name of the sequence that the table used. The next value only grows, so it is safe that a
    rollback does not undo setval().
    """
    table = definition.rsplit(" ", 1)[1].split(".", maxsplit=1)[0]
    others = filter(None, (quote(sequence), previous))
    last_values = "".join(f", (SELECT last_value + is_called::int FROM {other})" for other in others)  # noqa: S608  declared names
    yield f"CREATE SEQUENCE IF NOT EXISTS {quote(sequence)};"
    yield ddl.alter_sequence(sequence, definition)
    next_value = f"greatest(coalesce(max(id), 0) + 1{last_values})"
    yield f"SELECT setval({literal(quote(sequence))}, {next_value}, false) FROM {table};"  # noqa: S608  declared names


def _rename_sequence(connection: Connection, table: str, sequence: str, old: str) -> list[SchemaChange]:
    statements = [f"ALTER SEQUENCE {quote(old)} RENAME TO {quote(sequence)};"]
    # An existing sequence of the declared name is not used by this table.
    if connection.scalar(_queries.SEQUENCE_EXISTS, {"name": sequence}):
        statements.insert(0, f"ALTER SEQUENCE {quote(sequence)} RENAME TO {quote(f'{sequence}_unused')};")
    change = SchemaChange(f"sequence {sequence}", f"named {sequence}", f"named {old}", tuple(statements))
    return [change, *_advance_sequence(connection, table, old, sequence)]


def _advance_sequence(
    connection: Connection, table: str, sequence: str, new_name: str | None = None
) -> list[SchemaChange]:
    """Return the change that lets a sequence continue after the greatest id, if it is behind."""
    name = new_name or sequence
    values = execute_query(
        connection,
        f"SELECT coalesce(max(id), 0), (SELECT last_value + is_called::int FROM {quote(sequence)}) "  # noqa: S608  declared names
        f"FROM {quote(table)}",
    )
    greatest, next_value = tuple(values.one())
    if next_value > greatest:
        return []
    # In one transaction with the rest of the plan; a rollback would not undo setval().
    restart = f"ALTER SEQUENCE {quote(name)} RESTART WITH {greatest + 1};"
    label, expected, found = f"sequence {name}", f"continues after {greatest}", f"continues with {next_value}"
    return [SchemaChange(label, expected, found, (restart,))]
