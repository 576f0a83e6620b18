"""The sequences of the ids: theirs taken over where it is the column's own, else a new one that goes on after it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from syntegra_db.adoption import queries
from syntegra_db.adoption.parts import Change
from syntegra_db.adoption.rows import execute
from syntegra_db.catalog import _ddl as sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from syntegra_db.adoption.looking import Situation
    from syntegra_db.catalog._schema import Table

NEXTVAL = re.compile(r"nextval\('(?P<name>[^']+)'::regclass\)")
IDENTITY = "IDENTITY"


def take_over(connection: Connection, situation: Situation, name: str, found: Table) -> tuple[list[Change], Table]:
    """Return how the id of a table comes to its sequence, and the table as it is then.

    A change of type or owner is left to the comparison.
    """
    expected = situation.expected.tables[name]
    wanted = sql.serial_sequence(name, "id")
    if "id" not in expected.columns or wanted not in expected.sequences:
        return [], found
    default = found.columns["id"].default or ""
    used = NEXTVAL.fullmatch(default)
    if default.endswith(IDENTITY):
        old = next(iter(found.sequences), wanted)
        statements = _from_identity(name, wanted, old, expected.sequences[wanted])
    elif used is None:
        statements = _new(wanted, expected.sequences[wanted])
    elif used["name"] == wanted and wanted not in situation.shared_sequences:
        return _behind(connection, name, wanted), found
    elif used["name"] in found.sequences and used["name"] not in situation.shared_sequences:
        return _renamed(connection, name, wanted, used["name"], found)
    else:
        statements = _new(wanted, expected.sequences[wanted], after=used["name"])
    change = Change(f"sequence {wanted}", expected.sequences[wanted], default or "no default on id", tuple(statements))
    column = replace(found.columns["id"], default=expected.columns["id"].default)
    reached = replace(
        found,
        columns={**found.columns, "id": column},
        sequences={**found.sequences, wanted: expected.sequences[wanted]},
    )
    return [replace(change, statements=(*change.statements, *_set_default(name, wanted)))], reached


def _from_identity(table: str, wanted: str, old: str, definition: str) -> Iterator[str]:
    aside = f"{old}_identity"
    yield f"ALTER SEQUENCE {sql.quote(old)} RENAME TO {sql.quote(aside)};"
    yield from _new(wanted, definition, after=sql.quote(aside))
    yield sql.alter_column(table, "id", f"DROP {IDENTITY}")


def _new(name: str, definition: str, after: str | None = None) -> Iterator[str]:
    """Yield what makes a sequence that goes on after every id, and after where it itself or `after`, as SQL, stood."""
    table = definition.rsplit(" ", 1)[1].split(".", maxsplit=1)[0]
    others = (sql.quote(name), *([after] if after else []))
    stood = "".join(f", (SELECT last_value + is_called::int FROM {sequence})" for sequence in others)  # noqa: S608  likewise
    yield f"CREATE SEQUENCE IF NOT EXISTS {sql.quote(name)};"
    yield sql.alter_sequence(name, definition)
    upcoming = f"greatest(coalesce(max(id), 0) + 1{stood})"
    yield f"SELECT setval({sql.literal(sql.quote(name))}, {upcoming}, false) FROM {table};"  # noqa: S608  names of our own


def _set_default(table: str, sequence: str) -> Iterator[str]:
    yield sql.alter_column(table, "id", f"SET DEFAULT nextval({sql.literal(sql.quote(sequence))})")


def _renamed(connection: Connection, table: str, wanted: str, old: str, found: Table) -> tuple[list[Change], Table]:
    rename = f"ALTER SEQUENCE {sql.quote(old)} RENAME TO {sql.quote(wanted)};"
    change = Change(f"sequence {wanted}", "of this name", f"the same under the name {old}", (rename,))
    default = f"nextval('{wanted}'::regclass)"
    sequences = {wanted if name == old else name: definition for name, definition in found.sequences.items()}
    columns = {**found.columns, "id": replace(found.columns["id"], default=default)}
    # A name that is taken belongs to a sequence that nothing uses.
    taken = connection.scalar(queries.SEQUENCE_EXISTS, {"name": wanted})
    aside = f"ALTER SEQUENCE {sql.quote(wanted)} RENAME TO {sql.quote(f'{wanted}_unused')};"
    changes = [replace(change, statements=(aside, rename))] if taken else [change]
    return [*changes, *_behind(connection, table, old, wanted)], replace(found, columns=columns, sequences=sequences)


def _behind(connection: Connection, table: str, sequence: str, name: str | None = None) -> list[Change]:
    """Return what lets a sequence go on after the greatest id, where it stands before it."""
    name = name or sequence
    found = execute(
        connection,
        f"SELECT coalesce(max(id), 0), (SELECT last_value + is_called::int FROM {sql.quote(sequence)}) "  # noqa: S608  names of our own
        f"FROM {sql.quote(table)}",
    )
    greatest, upcoming = tuple(found.one())
    if upcoming > greatest:
        return []
    # setval() would outlive a transaction that is taken back.
    move = f"ALTER SEQUENCE {sql.quote(name)} RESTART WITH {greatest + 1};"
    return [Change(f"sequence {name}", f"goes on after {greatest}", f"goes on with {upcoming}", (move,))]
