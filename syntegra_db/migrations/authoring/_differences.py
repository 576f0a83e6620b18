"""What Alembic does not compare: CHECK constraints, the labels of ENUM types, and the storage of columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from alembic.operations.ops import DropConstraintOp
from sqlalchemy import CheckConstraint
from sqlalchemy.dialects import postgresql

from syntegra_db.catalog import Schema, ddl, introspect
from syntegra_db.connections import unpooled_engine
from syntegra_db.migrations.authoring._online_forms import Call, execute
from syntegra_db.sql import catalog_query, execute_raw

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from alembic.operations.ops import MigrateOperation
    from sqlalchemy.engine import URL

    from syntegra_db.migrations.online import AlikeColumns

CHECK = "CHECK "
STORAGE = catalog_query("""
    SELECT relname, attname, CASE attstorage WHEN 'p' THEN 'PLAIN' WHEN 'm' THEN 'MAIN' WHEN 'e' THEN 'EXTERNAL'
                             ELSE 'EXTENDED' END AS storage
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid JOIN pg_type ON pg_type.oid = atttypid
    WHERE relname = ANY (:tables) AND pg_table_is_visible(pg_class.oid) AND attnum > 0 AND attstorage <> typstorage
    ORDER BY 1, attnum
""")


class DeclaredModels(NamedTuple):
    """The schema that the models create, the SQL of their CHECKs, and the storage of columns that is not the type's."""

    schema: Schema
    checks: dict[tuple[str, str], str]
    storage: dict[tuple[str, str], str]


class Operations(NamedTuple):
    """Operations before and after those of Alembic.

    `restored` are the columns to keep alike again as soon as Alembic has added one of them.
    """

    first: list[MigrateOperation]
    last: list[MigrateOperation]
    restored: list[AlikeColumns]


def read_models(url: URL) -> DeclaredModels:
    """Return what the models create in the empty database at `url`; the transaction is rolled back."""
    from syntegra_db.models import Base

    metadata = Base.metadata
    with unpooled_engine(url).connect() as connection:
        execute_raw(connection, "SET LOCAL client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS vector")
        metadata.create_all(connection)
        schema = introspect(connection, list(metadata.tables)).schema
        rows = connection.execute(STORAGE, {"tables": list(metadata.tables)})
        storage = {(row.relname, row.attname): row.storage for row in rows}
        connection.rollback()
    # The default paramstyle would double a percent sign.
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    checks = {
        (table.name, str(constraint.name)): str(
            constraint.sqltext.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        )
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    return DeclaredModels(schema, checks, storage)


def differences(models: DeclaredModels, head: Schema, alike: Collection[AlikeColumns]) -> tuple[Operations, Operations]:
    """Return what the upgrade from `head` to the models, and the downgrade, do besides what Alembic finds.

    `alike` are the columns that are kept alike at `head`.
    """
    upgrade, downgrade = Operations([], [], []), Operations([], [], [])
    _compare_alike_columns(models.schema, alike, upgrade, downgrade)
    _compare_labels(models.schema, head, upgrade, downgrade)
    # The CHECK of op.keep_alike is in no model.
    without = {columns.object_name for columns in alike}
    for table in sorted(models.schema.tables.keys() & head.tables.keys()):
        _compare_checks(table, models, head, without, upgrade, downgrade)
        for name, column in models.schema.tables[table].columns.items():
            before = head.tables[table].columns.get(name)
            if before is not None and before.type == column.type and before.storage != column.storage:
                upgrade.last.append(_set_storage(table, name, column.storage))
                downgrade.first.append(_set_storage(table, name, before.storage))
    for (table, name), storage in models.storage.items():
        if table not in head.tables or name not in head.tables[table].columns:
            upgrade.last.append(_set_storage(table, name, storage))
    return upgrade, downgrade


def _compare_alike_columns(
    declared: Schema, alike: Collection[AlikeColumns], upgrade: Operations, downgrade: Operations
) -> None:
    for columns in sorted(alike):
        table = declared.tables.get(columns.table)
        kept = [name for name in (columns.old, columns.new) if table is not None and name in table.columns]
        if len(kept) == len((columns.old, columns.new)):
            continue
        upgrade.first.append(Call("stop_keeping_alike", *columns))
        if kept:
            downgrade.restored.append(columns)
        else:
            downgrade.last.append(Call("keep_alike", *columns))


def _compare_labels(declared: Schema, head: Schema, upgrade: Operations, downgrade: Operations) -> None:
    for name in sorted(declared.types.keys() & head.types.keys()):
        if declared.types[name] != head.types[name]:
            upgrade.first.extend(_change_labels(name, head, declared))
            downgrade.last.extend(_recreate(name, head))


def _compare_checks(  # noqa: PLR0913, PLR0917  what is compared, and both results
    table: str,
    models: DeclaredModels,
    head: Schema,
    without: Collection[str],
    upgrade: Operations,
    downgrade: Operations,
) -> None:
    old, new = _conditions(head, table), _conditions(models.schema, table)
    names = (old.keys() | new.keys()) - set(without)
    for name in sorted(name for name in names if old.get(name) != new.get(name)):
        if name in old:
            upgrade.first.append(DropConstraintOp(name, table, type_="check"))
            downgrade.last.append(Call("create_check_constraint_online", name, table, old[name]))
        if name in new:
            condition = models.checks.get((table, name), new[name])
            upgrade.last.append(Call("create_check_constraint_online", name, table, condition))
            downgrade.first.append(DropConstraintOp(name, table, type_="check"))


def _conditions(schema: Schema, table: str) -> dict[str, str]:
    """Return the conditions of the CHECKs by name, as the server writes them."""
    return {
        name: definition.removeprefix(CHECK).removeprefix("(").removesuffix(")")
        for name, definition in schema.tables[table].constraints.items()
        if definition.startswith(CHECK)
    }


def _change_labels(name: str, head: Schema, declared: Schema) -> Iterator[MigrateOperation]:
    old, new = head.types[name], declared.types[name]
    if [label for label in new if label in old] != list(old):
        # PostgreSQL drops and moves no label.
        yield from _recreate(name, Schema(types=declared.types, tables=head.tables))
        return
    for position, label in enumerate(new):
        if label not in old:
            neighbour = {"after": new[position - 1]} if position else {"before": old[0]}
            yield Call("add_enum_label", name, label, **neighbour)


def _recreate(name: str, schema: Schema) -> Iterator[MigrateOperation]:
    columns = [
        (table, column_name, column)
        for table, parts in schema.tables.items()
        for column_name, column in parts.columns.items()
        if column.type == name
    ]
    for statement in ddl.recreate_enum(name, schema.types[name], columns).splitlines():
        if statement not in {"BEGIN;", "COMMIT;"}:
            yield execute(statement)


def _set_storage(table: str, column: str, storage: str) -> Call:
    return execute(ddl.alter_column(table, column, f"SET STORAGE {storage}"))
