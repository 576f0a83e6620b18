"""What nobody can bring in line in place, each in a sentence with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.adoption import _queries
from syntegra_db.catalog.compare import DISABLED_FOREIGN_KEY, compare_attached_objects, compare_extension
from syntegra_db.errors import AdoptionNotPossible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from syntegra_db.adoption._conversions import Conversion
    from syntegra_db.adoption._inspection import Inspection

KEY = "PRIMARY KEY"
ID_KEY = "PRIMARY KEY (id)"


def require_readable(connection: Connection, situation: Inspection) -> None:
    """Return if the role owns what it is to change, and every table is a table.

    Raises:
        AdoptionRefused: with all reasons.
    """
    _raise([*_privileges(connection, situation), *_kinds(situation)])


def require_convertible(
    connection: Connection, situation: Inspection, conversions: Mapping[tuple[str, str], Conversion | None]
) -> None:
    """Return if every table can be brought to its shape in place.

    Raises:
        AdoptionRefused: with all reasons.
    """
    _raise(
        [
            *_keys(situation),
            *_attachments(situation),
            *_types(connection, situation),
            *_extension(connection, situation),
            *_columns(situation, conversions),
            *_foreign_keys(situation, conversions),
        ]
    )


def _raise(reasons: list[str]) -> None:
    if reasons:
        raise AdoptionNotPossible(
            f"This database cannot be adopted as it is: {'; '.join(reasons)}. Nothing was changed."
        )


def _privileges(connection: Connection, situation: Inspection) -> Iterator[str]:
    here = connection.execute(_queries.SCHEMA).mappings().one()
    if not here["may_create"]:
        yield f"role {here['role']} may not create anything in schema {here['schema']}"
    for row in connection.execute(_queries.OWNERS, {"tables": list(situation.found.tables)}).mappings():
        yield (
            f"role {row['role']} is not the owner of table {row['table']}, which {row['owner']} is; adopt as that role"
        )


def _kinds(situation: Inspection) -> Iterator[str]:
    for name, table in situation.found.tables.items():
        if table.kind != "table":
            yield f"{name} is a {table.kind}, and no statement makes a table of it: rename it and copy its rows"
        elif table.parents or table.children:
            relation = f"inherits from {', '.join(table.parents)}" if table.parents else "has heirs"
            children = f" ({', '.join(table.children)})" if table.children else ""
            yield f"table {name} {relation}{children}, and keys do not hold across heirs: end it with NO INHERIT"
        elif table.row_security != "off":
            yield (
                f"table {name} has row-level security, and whoever switches it off shows rows: decide and run "
                f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY"
            )


def _keys(situation: Inspection) -> Iterator[str]:
    for name, table in situation.found.tables.items():
        if "id" not in table.columns:
            yield f"table {name} has no column id, which its rows are known by"
        for definition in table.constraints.values():
            if definition.startswith(KEY) and definition != ID_KEY:
                yield f"the primary key of table {name} is {definition.removeprefix(f'{KEY} ')} and not (id)"


def _attachments(situation: Inspection) -> Iterator[str]:
    """Yield triggers, rules and policies, and what says of each column that it is made on reading."""
    for name, table in situation.found.tables.items():
        if name not in situation.expected.tables:
            continue
        for finding in compare_attached_objects(name, situation.expected.tables[name], table):
            means = "is switched off" if finding.object.startswith(DISABLED_FOREIGN_KEY) else "acts on rows unasked"
            yield f"{finding.object} {means}; where it is not needed: {finding.fix.rstrip(';')}"
        for column, attributes in table.columns.items():
            if (attributes.default or "").endswith(" VIRTUAL") and column in situation.expected.tables[name].columns:
                yield f"column {name}.{column} is generated and holds no values"


def _types(connection: Connection, situation: Inspection) -> Iterator[str]:
    changed = [
        name for name, labels in situation.expected.types.items() if situation.found.types.get(name, labels) != labels
    ]
    parameters = {"types": changed, "tables": list(situation.found.tables)}
    for row in connection.execute(_queries.TYPE_USERS, parameters).mappings():
        yield f"type {row['type']} has other labels, and column {row['column']} of the application uses it too"


def _extension(connection: Connection, situation: Inspection) -> Iterator[str]:
    extension = situation.snapshot.extension
    for finding in compare_extension(situation.expected, situation.snapshot):
        if extension is None:
            if not connection.scalar(_queries.VECTOR_AVAILABLE):
                yield "the extension vector (pgvector) is not installed on this server"
        elif finding.is_drift or extension.search_path is not None:
            yield f"{finding.object} is {finding.found}: {finding.fix.splitlines()[-1].rstrip(';')}"


def _columns(situation: Inspection, conversions: Mapping[tuple[str, str], Conversion | None]) -> Iterator[str]:
    for (table, column), conversion in conversions.items():
        found = situation.found.tables[table].columns[column].type
        expected = situation.expected.tables[table].columns[column].type
        if conversion is None:
            yield f"column {table}.{column} is {found}, and no conversion to {expected} keeps every value"
            continue
        for dependent in situation.dependents.get((table, column), ()):
            yield (
                f"{dependent} depends on column {table}.{column}, which is {found} and has to become {expected}: "
                "drop it and make it again afterwards"
            )


def _foreign_keys(situation: Inspection, conversions: Mapping[tuple[str, str], Conversion | None]) -> Iterator[str]:
    """Yield the application's foreign keys that a change of type would break; others PostgreSQL takes along."""
    ours = situation.found.tables
    for row in situation.constraints:
        if row["type"] != "f" or (row["table"] in ours and row["target"] in ours):
            continue
        table, columns = (
            (row["table"], row["columns"]) if row["table"] in ours else (row["target"], row["target_columns"])
        )
        for column in columns:
            conversion = conversions.get((table, column))
            if conversion is not None and not conversion.preserves_foreign_keys:
                yield (
                    f"foreign key {row['name']} of {row['table']} to {row['target']} depends on the type of column "
                    f"{table}.{column}, which has to change: drop it first"
                )
