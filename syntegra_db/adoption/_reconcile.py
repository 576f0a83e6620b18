"""Which constraints and indexes of theirs make room for ours, take their name, or need a decision."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from syntegra_db.adoption import _queries
from syntegra_db.adoption._model import OpenQuestion, SchemaChange
from syntegra_db.catalog import ddl
from syntegra_db.catalog.compare import INVALID_SUFFIX, diff_definitions, references_no_column, serves_cosine_search
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.sql import execute_raw, literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from syntegra_db.adoption._conversions import Conversion
    from syntegra_db.adoption._inspection import Inspection
    from syntegra_db.catalog import Table

CHECK = "CHECK "


@dataclass
class ReconciledTable:
    """A table with what was in the way taken out of it."""

    table: Table
    changes: list[SchemaChange] = field(default_factory=list)
    decisions: list[OpenQuestion] = field(default_factory=list)


def reconcile_constraints(
    situation: Inspection, name: str, found: Table, conversions: Mapping[tuple[str, str], Conversion | None]
) -> ReconciledTable:
    """Return how the constraints and indexes of a table make room for those of its manifest."""
    room = ReconciledTable(found)
    _foreign_keys(situation, name, room)
    _checks(situation, name, room, {column for table, column in conversions if table == name})
    _unique(situation.expected.tables[name], name, room)
    _vector_index(situation.expected.tables[name], room)
    return room


def _remove_constraint(room: ReconciledTable, constraint: str) -> None:
    kept = {name: definition for name, definition in room.table.constraints.items() if name != constraint}
    room.table = replace(room.table, constraints=kept)


def _drop(room: ReconciledTable, table: str, constraint: str, expected: str) -> None:
    room.changes.append(
        SchemaChange(
            f"constraint {constraint} on {table}",
            expected,
            room.table.constraints[constraint],
            (ddl.drop_constraint(table, constraint),),
        )
    )
    _remove_constraint(room, constraint)


def _foreign_keys(situation: Inspection, name: str, room: ReconciledTable) -> None:
    """Drop those among our tables that are not as they should be, or the same as one that is."""
    wanted = situation.expected.tables[name].constraints
    difference = diff_definitions(
        {key: definition for key, definition in wanted.items() if definition.startswith(ddl.FOREIGN_KEY)},
        {
            key: definition
            for key, definition in room.table.constraints.items()
            if definition.startswith(ddl.FOREIGN_KEY)
        },
    )
    for row in situation.constraints:
        among_ours = row["type"] == "f" and row["table"] == name and row["target"] in situation.found.tables
        if among_ours and row["name"] in (*difference.extra, *difference.changed):
            ours = wanted.get(row["name"]) or next(
                (definition for definition in wanted.values() if f"REFERENCES {row['target']}(" in definition),
                "no such foreign key",
            )
            _drop(room, name, row["name"], f"replaced by {ours}")


def _checks(situation: Inspection, name: str, room: ReconciledTable, converted: set[str]) -> None:
    expected = situation.expected.tables[name]
    ours = {key: definition for key, definition in expected.constraints.items() if definition.startswith(CHECK)}
    columns = {row["name"]: set(row["columns"]) for row in situation.constraints if row["table"] == name}
    for check, definition in list(room.table.constraints.items()):
        if not definition.startswith(CHECK):
            continue
        same = definition in ours.values() or ours.get(check) in {definition, definition.removesuffix(" NOT VALID")}
        if same and not columns[check] & converted:
            continue
        rivals = [key for key, other in ours.items() if key == check or _columns(other, expected) == columns[check]]
        enums = {
            column for column in columns[check] & converted if expected.columns[column].type in situation.expected.types
        }
        if rivals:
            _drop(room, name, check, f"replaced by {ours[rivals[0]]}")
        elif enums == columns[check]:
            _drop(room, name, check, f"replaced by the ENUM type of {', '.join(sorted(enums))}")
        elif not references_no_column(definition, expected):
            _ask(room, f"constraint {check} on {name}", definition, ddl.drop_constraint(name, check))
            _remove_constraint(room, check)


def _columns(check: str, table: Table) -> set[str]:
    return {
        column
        for column in table.columns
        if not references_no_column(check, replace(table, columns={column: table.columns[column]}))
    }


def _ask(room: ReconciledTable, named: str, definition: str, drop: str) -> None:
    room.decisions.append(
        OpenQuestion(
            named, f"{definition} refuses rows that the models write in good faith", f"Where nothing needs it: {drop}"
        )
    )


def _unique(expected: Table, name: str, room: ReconciledTable) -> None:
    wanted = set(expected.constraints.values())
    for constraint, definition in list(room.table.constraints.items()):
        if definition.startswith(("UNIQUE", "EXCLUDE")) and definition not in wanted:
            _ask(room, f"constraint {constraint} on {name}", definition, ddl.drop_constraint(name, constraint))
            _remove_constraint(room, constraint)
    for index, definition in list(room.table.indexes.items()):
        if not definition.startswith("UNIQUE ") or definition.endswith(INVALID_SUFFIX):
            continue
        taken = next(
            (key for key in _missing_keys(expected, room.table) if _is_index_of(expected, key, definition)), None
        )
        if taken is not None:
            _rename(room, index, taken)
        elif index not in expected.indexes:
            _ask(room, f"index {index}", definition, f"DROP INDEX {quote(index)};")
            _move_index(room, index, None)


def _missing_keys(expected: Table, found: Table) -> Iterator[str]:
    there = set(found.constraints.values())
    return (name for name, definition in expected.constraints.items() if definition not in there)


def _is_index_of(expected: Table, constraint: str, definition: str) -> bool:
    key = ddl.KEY_CONSTRAINT.fullmatch(expected.constraints[constraint])
    return key is not None and definition == f"UNIQUE btree {key[2]}"


def _vector_index(expected: Table, room: ReconciledTable) -> None:
    """Let an index that serves the same search stand for ours, whatever it was built with."""
    if VECTOR_INDEX not in expected.indexes or VECTOR_INDEX in room.table.indexes:
        return
    twin = next((name for name, definition in room.table.indexes.items() if serves_cosine_search(definition)), None)
    if twin is not None:
        _rename(room, twin, VECTOR_INDEX)


def _rename(room: ReconciledTable, old: str, new: str) -> None:
    if old != new:
        statement = f"ALTER INDEX {quote(old)} RENAME TO {quote(new)};"
        room.changes.append(SchemaChange(f"index {new}", "of this name", f"under the name {old}", (statement,)))
    _move_index(room, old, new)


def _move_index(room: ReconciledTable, old: str, new: str | None) -> None:
    """Take an index out of the table, and put it back under its new name, if it has one."""
    indexes = dict(room.table.indexes)
    definition = indexes.pop(old)
    room.table = replace(room.table, indexes={**indexes, new: definition} if new else indexes)


NEXTVAL = re.compile(r"nextval\('(?P<name>[^']+)'::regclass\)")
IDENTITY = "IDENTITY"


def reconcile_sequence(
    connection: Connection, situation: Inspection, name: str, found: Table
) -> tuple[list[SchemaChange], Table]:
    """Return how the id of a table comes to its sequence, and the table as it is then.

    A change of type or owner is left to the comparison.
    """
    expected = situation.expected.tables[name]
    wanted = ddl.serial_sequence(name, "id")
    if "id" not in expected.columns or wanted not in expected.sequences:
        return [], found
    default = found.columns["id"].default or ""
    used = NEXTVAL.fullmatch(default)
    if default.endswith(IDENTITY):
        old = next(iter(found.sequences), wanted)
        statements = _from_identity(name, wanted, old, expected.sequences[wanted])
    elif used is None:
        statements = _create_sequence(wanted, expected.sequences[wanted])
    elif used["name"] == wanted and wanted not in situation.shared_sequences:
        return _advance_sequence(connection, name, wanted), found
    elif used["name"] in found.sequences and used["name"] not in situation.shared_sequences:
        return _rename_sequence(connection, name, wanted, used["name"], found)
    else:
        statements = _create_sequence(wanted, expected.sequences[wanted], after=used["name"])
    change = SchemaChange(
        f"sequence {wanted}", expected.sequences[wanted], default or "no default on id", tuple(statements)
    )
    column = replace(found.columns["id"], default=expected.columns["id"].default)
    reached = replace(
        found,
        columns={**found.columns, "id": column},
        sequences={**found.sequences, wanted: expected.sequences[wanted]},
    )
    return [replace(change, statements=(*change.statements, *_set_default(name, wanted)))], reached


def _from_identity(table: str, wanted: str, old: str, definition: str) -> Iterator[str]:
    aside = f"{old}_identity"
    yield f"ALTER SEQUENCE {quote(old)} RENAME TO {quote(aside)};"
    yield from _create_sequence(wanted, definition, after=quote(aside))
    yield ddl.alter_column(table, "id", f"DROP {IDENTITY}")


def _create_sequence(name: str, definition: str, after: str | None = None) -> Iterator[str]:
    """Yield what makes a sequence that goes on after every id, and after where it itself or `after`, as SQL, stood."""
    table = definition.rsplit(" ", 1)[1].split(".", maxsplit=1)[0]
    others = (quote(name), *([after] if after else []))
    stood = "".join(f", (SELECT last_value + is_called::int FROM {sequence})" for sequence in others)  # noqa: S608  likewise
    yield f"CREATE SEQUENCE IF NOT EXISTS {quote(name)};"
    yield ddl.alter_sequence(name, definition)
    upcoming = f"greatest(coalesce(max(id), 0) + 1{stood})"
    yield f"SELECT setval({literal(quote(name))}, {upcoming}, false) FROM {table};"  # noqa: S608  names of our own


def _set_default(table: str, sequence: str) -> Iterator[str]:
    yield ddl.alter_column(table, "id", f"SET DEFAULT nextval({literal(quote(sequence))})")


def _rename_sequence(
    connection: Connection, table: str, wanted: str, old: str, found: Table
) -> tuple[list[SchemaChange], Table]:
    rename = f"ALTER SEQUENCE {quote(old)} RENAME TO {quote(wanted)};"
    change = SchemaChange(f"sequence {wanted}", "of this name", f"the same under the name {old}", (rename,))
    default = f"nextval('{wanted}'::regclass)"
    sequences = {wanted if name == old else name: definition for name, definition in found.sequences.items()}
    columns = {**found.columns, "id": replace(found.columns["id"], default=default)}
    # A name that is taken belongs to a sequence that nothing uses.
    taken = connection.scalar(_queries.SEQUENCE_EXISTS, {"name": wanted})
    aside = f"ALTER SEQUENCE {quote(wanted)} RENAME TO {quote(f'{wanted}_unused')};"
    changes = [replace(change, statements=(aside, rename))] if taken else [change]
    return [*changes, *_advance_sequence(connection, table, old, wanted)], replace(
        found, columns=columns, sequences=sequences
    )


def _advance_sequence(connection: Connection, table: str, sequence: str, name: str | None = None) -> list[SchemaChange]:
    """Return what lets a sequence go on after the greatest id, where it stands before it."""
    name = name or sequence
    found = execute_raw(
        connection,
        f"SELECT coalesce(max(id), 0), (SELECT last_value + is_called::int FROM {quote(sequence)}) "  # noqa: S608  names of our own
        f"FROM {quote(table)}",
    )
    greatest, upcoming = tuple(found.one())
    if upcoming > greatest:
        return []
    # setval() would outlive a transaction that is taken back.
    move = f"ALTER SEQUENCE {quote(name)} RESTART WITH {greatest + 1};"
    return [SchemaChange(f"sequence {name}", f"goes on after {greatest}", f"goes on with {upcoming}", (move,))]
