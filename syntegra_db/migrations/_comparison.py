"""What `alembic check` and `alembic revision --autogenerate` compare, and how they write types into a revision."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

from alembic.autogenerate.render import _repr_type
from alembic.operations.ops import ExecuteSQLOp
from sqlalchemy import Enum
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator

from syntegra_db.catalog import ddl, is_accepted, load_manifest, managed_tables, verify
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alembic.autogenerate.api import AutogenContext
    from alembic.operations import MigrationScript
    from sqlalchemy import Connection, MetaData

    EnumTypes = Mapping[str, tuple[str, ...]]

KINDS = {
    "column": "columns",
    "index": "indexes",
    "unique_constraint": "constraints",
    "foreign_key_constraint": "constraints",
}


def comparison_options(connection: Connection, metadata: MetaData) -> dict[str, Any]:
    """Return the options of Alembic for a comparison of the database with the models: it accepts what `verify` does."""
    # Only a comparison reads them, and not a command such as `alembic current`.
    tables = cache(lambda: {*metadata.tables, *managed_tables()})
    report = cache(partial(verify, connection))

    def include_name(name: str | None, kind: str, _parents: dict[str, Any]) -> bool:
        return kind != "table" or name in tables()

    def include_object(item: Any, name: str, kind: str, is_installed: bool, counterpart: Any) -> bool:  # noqa: FBT001  Alembic's signature
        is_new = counterpart is None and not is_installed
        if is_new or kind not in KINDS:
            return True
        return not is_accepted(report(), KINDS[kind], item.table.name, name, is_extra=counterpart is None)

    def add_enum_types(context: Any, _revision: Any, scripts: list[MigrationScript]) -> None:
        # The operations are written with it, and the dialect of the driver would double a percent sign.
        context.impl.dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
        declared, wanted = load_manifest(report().revision).types, _enum_types(metadata)
        for script in scripts:
            upgrade, downgrade = script.upgrade_ops, script.downgrade_ops
            if upgrade is not None and downgrade is not None:
                upgrade.ops = [*_create(wanted, declared), *upgrade.ops, *_drop(declared, wanted)]
                downgrade.ops = [*_create(declared, wanted), *downgrade.ops, *_drop(wanted, declared)]

    return {
        "target_metadata": metadata,
        "compare_server_default": True,
        "include_name": include_name,
        "include_object": include_object,
        "process_revision_directives": add_enum_types,
        "render_item": _render_item,
    }


def _render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Write a type of the models as the type of the driver that it is based on: a revision imports no models."""
    if kind != "type":
        return False
    if isinstance(item, TypeDecorator):
        return _repr_type(item.impl_instance, context)
    if isinstance(item, Enum):
        # Alembic would create the type with some tables, and not with a column.
        context.imports.add("from sqlalchemy.dialects import postgresql")
        labels = ", ".join(map(repr, item.enums))
        return f"postgresql.ENUM({labels}, name={item.name!r}, create_type=False)"
    if type(item).__module__.startswith("pgvector."):
        context.imports.add("import pgvector.sqlalchemy")
        return f"pgvector.sqlalchemy.{item!r}"
    return False


def _enum_types(metadata: MetaData) -> EnumTypes:
    columns = (column for table in metadata.tables.values() for column in table.columns)
    types = (getattr(column.type, "impl_instance", column.type) for column in columns)
    return {str(type_.name): tuple(type_.enums) for type_ in types if isinstance(type_, Enum)}


def _create(types: EnumTypes, existing: EnumTypes) -> list[ExecuteSQLOp]:
    return [ExecuteSQLOp(ddl.create_enum(name, types[name])) for name in sorted(types.keys() - existing.keys())]


def _drop(types: EnumTypes, kept: EnumTypes) -> list[ExecuteSQLOp]:
    return [ExecuteSQLOp(f"DROP TYPE {quote(name)}") for name in sorted(types.keys() - kept.keys())]
