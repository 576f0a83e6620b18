"""What would have to change, and what a person has to decide first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, OperationalError

from syntegra_db.adoption.answers import fills_of
from syntegra_db.adoption.changes import changes_of, in_transaction
from syntegra_db.adoption.checks import check_rows
from syntegra_db.adoption.constraints import make_room
from syntegra_db.adoption.conversions import Conversion, conversion
from syntegra_db.adoption.looking import Situation, look
from syntegra_db.adoption.parts import Answers, Change, ColumnText, Decision, Plan
from syntegra_db.adoption.refusals import refuse_what_cannot_be_read, refuse_what_cannot_change
from syntegra_db.adoption.rewrites import convert, rewrites_of
from syntegra_db.adoption.rows import Rows
from syntegra_db.adoption.sequences import take_over
from syntegra_db.catalog import _ddl as sql
from syntegra_db.catalog._schema import Schema
from syntegra_db.catalog.compare._enums import compare_enums
from syntegra_db.catalog.compare._extension import compare_extension
from syntegra_db.errors import AdoptionFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from syntegra_db.catalog._schema import Table

Conversions = dict[tuple[str, str], Conversion | None]


@dataclass
class _Draft:
    """The shape as it will be when the preparations and rewrites are done, and what they are."""

    tables: dict[str, Table]
    preparations: list[Change] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)


def plan(connection: Connection, answers: Answers | None = None) -> Plan:
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
        return _plan(connection, look(connection, answers or Answers()))
    except OperationalError:
        # A lock that was not to be had is tried again, a connection that was lost is told of.
        raise
    except DBAPIError as error:
        reason = str(error.orig).splitlines()[0]
        raise AdoptionFailed(f"The rows could not be looked at: {reason}. Nothing was changed.") from error
    finally:
        savepoint.rollback()


def _plan(connection: Connection, situation: Situation) -> Plan:
    refuse_what_cannot_be_read(connection, situation)
    conversions = _conversions(situation)
    refuse_what_cannot_change(connection, situation, conversions)
    fills = fills_of(connection, situation)
    rows = Rows(
        connection,
        situation.expected,
        situation.found,
        conversions,
        {(fill.table, fill.column): fill.expression for fill in fills},
        situation.version,
    )
    draft = _draft(connection, situation, conversions)
    decisions = [*draft.decisions, *check_rows(situation, rows)]
    rewrites, retyped = rewrites_of(connection, situation, rows)
    tables = {name: convert(situation, name, table, conversions) for name, table in draft.tables.items()}
    changed = changes_of(situation, Schema(types=situation.expected.types, tables=tables), fills)
    return Plan(
        revision=situation.revision,
        stamped=situation.stamped,
        timezone=situation.timezone,
        matches=changed.matches,
        stays=(*changed.stays, *_applications_keys(situation)),
        preparations=(*draft.preparations, *changed.before_rows),
        fills=tuple(replace(fill, rows=rows.count_filled(fill.table, fill.column)) for fill in fills),
        rewrites=rewrites,
        changes=(*retyped, *_left_types(situation), *changed.changes),
        decisions=tuple(decisions),
        texts={name: _texts(name, situation, conversions) for name in _ours(situation)},
    )


def _ours(situation: Situation) -> list[str]:
    """Return the tables that are there and belong to the revision."""
    return [name for name in situation.expected.tables if name in situation.found.tables]


def _conversions(situation: Situation) -> Conversions:
    """Return how the columns change whose type or collation is another, None for those that cannot."""
    labels = {**situation.found.types, **situation.expected.types}
    relabelled = {
        name for name, wanted in situation.expected.types.items() if situation.found.types.get(name) != wanted
    }
    found: Conversions = {}
    for name in _ours(situation):
        for column, wanted in situation.expected.tables[name].columns.items():
            there = situation.found.tables[name].columns.get(column)
            if there is None:
                continue
            if (there.type, there.collation) != (wanted.type, wanted.collation) or wanted.type in relabelled:
                found[name, column] = conversion(there.type, wanted.type, labels, situation.timezone)
    return found


def _draft(connection: Connection, situation: Situation, conversions: Conversions) -> _Draft:
    draft = _Draft(tables={})
    draft.preparations += _extension(situation)
    draft.preparations += _types(situation)
    for name in _ours(situation):
        moved, table = take_over(connection, situation, name, situation.found.tables[name])
        room = make_room(situation, name, table, conversions)
        draft.tables[name] = room.table
        draft.preparations += [*room.changes, *moved]
        draft.decisions += room.decisions
    # A foreign key goes before the key that it points at is touched.
    draft.preparations.sort(key=lambda change: sql.FOREIGN_KEY not in change.found)
    return draft


def _extension(situation: Situation) -> Iterator[Change]:
    if situation.snapshot.extension is None:
        for finding in compare_extension(situation.expected, situation.snapshot):
            yield Change(finding.object, finding.expected, finding.found, in_transaction(finding.fix))


def _types(situation: Situation) -> Iterator[Change]:
    for finding in compare_enums(situation.expected, situation.found):
        name = finding.object.removeprefix("type ")
        create = sql.create_enum(name, situation.expected.types[name])
        aside = f"ALTER TYPE {sql.quote(name)} RENAME TO {sql.quote(f'{name}_old')};"
        statements = (aside, create) if name in situation.found.types else (create,)
        yield Change(finding.object, finding.expected, finding.found, statements)


def _left_types(situation: Situation) -> Iterator[Change]:
    """Yield the end of ENUM types that had other labels; no column has them any more."""
    for name, labels in situation.expected.types.items():
        there = situation.found.types.get(name, labels)
        if there != labels:
            old = f"{name}_old"
            yield Change(f"type {old}", "no such type", ", ".join(there), (f"DROP TYPE {sql.quote(old)};",))


def _texts(name: str, situation: Situation, conversions: Conversions) -> tuple[ColumnText, ...]:
    there = situation.found.tables[name].columns
    converted = {column: conversions.get((name, column)) or Conversion() for column in there}
    return tuple(
        ColumnText(
            column,
            each.before.replace("{}", sql.quote(column)),
            each.after.replace("{}", sql.quote(column)),
        )
        for column, each in converted.items()
    )


def _applications_keys(situation: Situation) -> Iterator[str]:
    for row in situation.constraints:
        if row["type"] == "f" and row["table"] not in situation.found.tables:
            yield f"foreign key {row['name']} of {row['table']} to {row['target']}"
