"""Which constraints and indexes of theirs make room for ours, take their name, or need a decision."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from syntegra_db.adoption.parts import Change, Decision
from syntegra_db.catalog import _ddl as sql
from syntegra_db.catalog.compare._constraints import references_no_column
from syntegra_db.catalog.compare._diff import INVALID_SUFFIX, diff_definitions
from syntegra_db.catalog.compare._indexes import VECTOR_INDEX, serves_cosine_search

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from syntegra_db.adoption.conversions import Conversion
    from syntegra_db.adoption.looking import Situation
    from syntegra_db.catalog._schema import Table

CHECK = "CHECK "


@dataclass
class Room:
    """A table with what was in the way taken out of it."""

    table: Table
    changes: list[Change] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)


def make_room(
    situation: Situation, name: str, found: Table, conversions: Mapping[tuple[str, str], Conversion | None]
) -> Room:
    """Return how the constraints and indexes of a table make room for those of its manifest."""
    room = Room(found)
    _foreign_keys(situation, name, room)
    _checks(situation, name, room, {column for table, column in conversions if table == name})
    _unique(situation.expected.tables[name], name, room)
    _vector_index(situation.expected.tables[name], room)
    return room


def _without(room: Room, constraint: str) -> None:
    kept = {name: definition for name, definition in room.table.constraints.items() if name != constraint}
    room.table = replace(room.table, constraints=kept)


def _drop(room: Room, table: str, constraint: str, expected: str) -> None:
    room.changes.append(
        Change(
            f"constraint {constraint} on {table}",
            expected,
            room.table.constraints[constraint],
            (sql.drop_constraint(table, constraint),),
        )
    )
    _without(room, constraint)


def _foreign_keys(situation: Situation, name: str, room: Room) -> None:
    """Drop those among our tables that are not as they should be, or the same as one that is."""
    wanted = situation.expected.tables[name].constraints
    difference = diff_definitions(
        {key: definition for key, definition in wanted.items() if definition.startswith(sql.FOREIGN_KEY)},
        {
            key: definition
            for key, definition in room.table.constraints.items()
            if definition.startswith(sql.FOREIGN_KEY)
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


def _checks(situation: Situation, name: str, room: Room, converted: set[str]) -> None:
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
            _decide(room, f"constraint {check} on {name}", definition, sql.drop_constraint(name, check))
            _without(room, check)


def _columns(check: str, table: Table) -> set[str]:
    return {
        column
        for column in table.columns
        if not references_no_column(check, replace(table, columns={column: table.columns[column]}))
    }


def _decide(room: Room, named: str, definition: str, drop: str) -> None:
    room.decisions.append(
        Decision(
            named, f"{definition} refuses rows that the models write in good faith", f"Where nothing needs it: {drop}"
        )
    )


def _unique(expected: Table, name: str, room: Room) -> None:
    wanted = set(expected.constraints.values())
    for constraint, definition in list(room.table.constraints.items()):
        if definition.startswith(("UNIQUE", "EXCLUDE")) and definition not in wanted:
            _decide(room, f"constraint {constraint} on {name}", definition, sql.drop_constraint(name, constraint))
            _without(room, constraint)
    for index, definition in list(room.table.indexes.items()):
        if not definition.startswith("UNIQUE ") or definition.endswith(INVALID_SUFFIX):
            continue
        taken = next(
            (key for key in _missing_keys(expected, room.table) if _is_index_of(expected, key, definition)), None
        )
        if taken is not None:
            _rename(room, index, taken)
        elif index not in expected.indexes:
            _decide(room, f"index {index}", definition, f"DROP INDEX {sql.quote(index)};")
            _take(room, index, None)


def _missing_keys(expected: Table, found: Table) -> Iterator[str]:
    there = set(found.constraints.values())
    return (name for name, definition in expected.constraints.items() if definition not in there)


def _is_index_of(expected: Table, constraint: str, definition: str) -> bool:
    key = sql.KEY_CONSTRAINT.fullmatch(expected.constraints[constraint])
    return key is not None and definition == f"UNIQUE btree {key[2]}"


def _vector_index(expected: Table, room: Room) -> None:
    """Let an index that serves the same search stand for ours, whatever it was built with."""
    if VECTOR_INDEX not in expected.indexes or VECTOR_INDEX in room.table.indexes:
        return
    twin = next((name for name, definition in room.table.indexes.items() if serves_cosine_search(definition)), None)
    if twin is not None:
        _rename(room, twin, VECTOR_INDEX)


def _rename(room: Room, old: str, new: str) -> None:
    if old != new:
        statement = f"ALTER INDEX {sql.quote(old)} RENAME TO {sql.quote(new)};"
        room.changes.append(Change(f"index {new}", "of this name", f"under the name {old}", (statement,)))
    _take(room, old, new)


def _take(room: Room, old: str, new: str | None) -> None:
    """Take an index out of the table, and put it back under its new name, if it has one."""
    indexes = dict(room.table.indexes)
    definition = indexes.pop(old)
    room.table = replace(room.table, indexes={**indexes, new: definition} if new else indexes)
