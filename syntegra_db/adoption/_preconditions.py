"""What prevents an adoption in place, each as a sentence with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.adoption import _queries
from syntegra_db.catalog import Table, read_month_partitions, require_all_rows, tables_by_month
from syntegra_db.catalog.compare import (
    DISABLED_FOREIGN_KEY,
    compare_attached_objects,
    compare_extension,
    compare_partitions,
    describe_kind,
)
from syntegra_db.errors import AdoptionNotPossible
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from syntegra_db.adoption._inspection import Inspection

PRIMARY_KEY = "PRIMARY KEY"
ID_KEY = "PRIMARY KEY (id)"


def require_adoptable(connection: Connection, inspection: Inspection) -> None:
    """Raise `AdoptionNotPossible`, with all reasons, unless the tables can be changed in place by this role."""
    require_all_rows(connection, inspection.installed.tables, AdoptionNotPossible)
    basic = [*_privileges(connection, inspection), *_kinds(inspection), *_partitions(connection, inspection)]
    # The other checks need tables that are tables.
    reasons = basic or [
        *_keys(inspection),
        *_attached_objects(inspection),
        *_types(connection, inspection),
        *_extension(connection, inspection),
        *_columns(inspection),
        *_foreign_keys(inspection),
    ]
    if reasons:
        raise AdoptionNotPossible(
            f"This database cannot be adopted as it is: {'; '.join(reasons)}. Nothing was changed."
        )


def _privileges(connection: Connection, inspection: Inspection) -> Iterator[str]:
    row = connection.execute(_queries.SCHEMA).mappings().one()
    if not row["may_create"]:
        schema, role = quote(row["schema"]), quote(row["role"])
        yield (
            f"role {role} cannot create objects in schema {schema}: ask the owner of the schema to run GRANT CREATE ON "
            f"SCHEMA {schema} TO {role}"
        )
    for row in connection.execute(_queries.OWNERS, {"tables": list(inspection.installed.tables)}).mappings():
        role, owner = quote(row["role"]), quote(row["owner"])
        yield f"role {role} does not own table {row['table']}: run this as its owner, {owner}"


def _kinds(inspection: Inspection) -> Iterator[str]:
    protection = inspection.catalog.protection
    if protection is not None and (protection.problem or not protection.is_recorded):
        yield "the record of `syntegra-db tenancy` is missing or damaged: run the fix that `syntegra-db verify` prints"
    for name, table in inspection.installed.tables.items():
        declared = inspection.declared.tables.get(name, Table())
        if (table.kind, table.partition_key) != (declared.kind, declared.partition_key):
            yield f"{name} is a {describe_kind(table)}, not a {describe_kind(declared)}: rename it and copy its rows"
        elif table.parents:
            statements = "; ".join(f"ALTER TABLE {quote(name)} NO INHERIT {parent}" for parent in table.parents)
            yield f"table {name} inherits from {', '.join(table.parents)}: detach it with {statements}"
        elif table.children:
            statements = "; ".join(f"ALTER TABLE {child} NO INHERIT {quote(name)}" for child in table.children)
            yield (
                f"table {name} has child tables ({', '.join(table.children)}), and keys do not cover inherited rows: "
                f"detach them with {statements}"
            )
        elif table.row_security != "off":
            yield (
                f"table {name} has row-level security, and without it more roles see its rows: if that is acceptable, "
                f"run ALTER TABLE {name} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY"
            )


def _partitions(connection: Connection, inspection: Inspection) -> Iterator[str]:
    """Yield the differences of partitions: the adoption changes none, and its verification would find them."""
    for table in read_month_partitions(connection, tables_by_month(inspection.declared)):
        for finding in compare_partitions(table):
            if finding.is_drift:
                yield f"{finding.object} has {finding.found}: run {finding.fix.rstrip(';')}"


def _keys(inspection: Inspection) -> Iterator[str]:
    for name, table in inspection.installed.tables.items():
        if "id" not in table.columns:
            yield f"table {name} has no column id, which identifies its rows"
        for definition in table.constraints.values():
            if definition.startswith(PRIMARY_KEY) and definition != (declared := _declared_key(inspection, name)):
                yield f"the primary key of table {name} is {_key_columns(definition)}, not {_key_columns(declared)}"


def _declared_key(inspection: Inspection, table: str) -> str:
    constraints = inspection.declared.tables.get(table, Table()).constraints.values()
    return next((definition for definition in constraints if definition.startswith(PRIMARY_KEY)), ID_KEY)


def _key_columns(definition: str) -> str:
    return definition.removeprefix(f"{PRIMARY_KEY} ")


def _attached_objects(inspection: Inspection) -> Iterator[str]:
    """Yield triggers, rules and policies, disabled foreign keys, and virtual generated columns."""
    for name, declared, installed in inspection.tables():
        for finding in compare_attached_objects(name, declared, installed):
            effect = "is disabled" if finding.object.startswith(DISABLED_FOREIGN_KEY) else "can change or hide rows"
            yield f"{finding.object} {effect}: if it is not needed, run {finding.fix.rstrip(';')}"
        for column, attributes in installed.columns.items():
            if (attributes.default or "").endswith(" VIRTUAL") and column in declared.columns:
                yield f"column {name}.{column} is a virtual generated column, which stores no values"


def _types(connection: Connection, inspection: Inspection) -> Iterator[str]:
    parameters = {"types": inspection.replaced_enums(), "tables": list(inspection.installed.tables)}
    for row in connection.execute(_queries.TYPE_USERS, parameters).mappings():
        yield f"type {row['type']} has other labels, and column {row['column']} of the application also uses it"


def _extension(connection: Connection, inspection: Inspection) -> Iterator[str]:
    extension = inspection.catalog.extension
    for finding in compare_extension(inspection.declared, inspection.catalog):
        if extension is None:
            if not connection.scalar(_queries.VECTOR_AVAILABLE):
                yield "the extension vector (pgvector) is not installed on this server"
        elif finding.is_drift or extension.search_path_fix is not None:
            fix = finding.fix.splitlines()[-1].removeprefix("-- ").rstrip(";")
            yield f"{finding.object} is {finding.found}: {fix}"


def _columns(inspection: Inspection) -> Iterator[str]:
    for (table, column), conversion in inspection.conversions.items():
        old, new = (schema.tables[table].columns[column].type for schema in (inspection.installed, inspection.declared))
        if conversion is None:
            yield f"column {table}.{column} is {old}, and no conversion to {new} keeps every value: change it first"
            continue
        for dependent in inspection.dependents.get((table, column), ()):
            yield (
                f"{dependent} depends on column {table}.{column}, which must change from {old} to {new}: drop it and "
                "recreate it afterwards"
            )


def _foreign_keys(inspection: Inspection) -> Iterator[str]:
    """Yield foreign keys of the application that a change of type would break; PostgreSQL adapts the others."""
    installed = inspection.installed.tables
    for row in inspection.constraints:
        if row["type"] != "f" or (row["table"] in installed and row["target"] in installed):
            continue
        table, columns = (
            (row["table"], row["columns"]) if row["table"] in installed else (row["target"], row["target_columns"])
        )
        for column in columns:
            conversion = inspection.conversions.get((table, column))
            if conversion is not None and not conversion.preserves_foreign_keys:
                yield (
                    f"foreign key {row['name']} of {row['table']} to {row['target']} depends on the type of column "
                    f"{table}.{column}, which must change: drop it first"
                )
