"""Replace what Alembic generates for tables that exist already by the online operations."""

from __future__ import annotations

from textwrap import TextWrapper
from typing import TYPE_CHECKING, Any

from alembic.autogenerate.render import render_op_text, renderers
from alembic.operations.ops import (
    AddColumnOp,
    AlterColumnOp,
    CreateForeignKeyOp,
    CreateIndexOp,
    CreateTableOp,
    CreateUniqueConstraintOp,
    DropIndexOp,
    DropTableOp,
    MigrateOperation,
    ModifyTableOps,
)

from syntegra_db.migrations.online import PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alembic.autogenerate.api import AutogenContext

    from syntegra_db.migrations.online import AlikeColumns

# What op.create_foreign_key_online has no argument for.
OTHER_KEY_OPTIONS = ("deferrable", "initially", "match", "use_alter")
WRAPPER = TextWrapper(
    100, break_long_words=False, break_on_hyphens=False, drop_whitespace=False, replace_whitespace=False
)


class Call(MigrateOperation):
    """A call of an operation in the text of a revision."""

    def __init__(self, name: str, *arguments: object, **options: object) -> None:
        options = {key: value for key, value in options.items() if value is not None}
        shown = [*map(_literal, arguments), *(f"{key}={_literal(value)}" for key, value in options.items())]
        self.text = f"op.{name}({', '.join(shown)})"


class Online(MigrateOperation):
    """The online operation with the arguments of `operation`, whose name it extends."""

    def __init__(self, operation: MigrateOperation) -> None:
        self.operation = operation


@renderers.dispatch_for(Call)
def _render_call(_context: AutogenContext, operation: Call) -> str:
    return operation.text


@renderers.dispatch_for(Online)
def _render_online(context: AutogenContext, operation: Online) -> str:
    return render_op_text(context, operation.operation).replace("(", "_online(", 1)


def execute(statement: str) -> Call:
    """Return the call that executes `statement`, which may end with a semicolon."""
    return Call("execute", statement.removesuffix(";"))


def with_online_forms(
    operations: Sequence[MigrateOperation], restored: Sequence[AlikeColumns] = ()
) -> list[MigrateOperation]:
    """Return operations that do the same; those of tables that exist already do not block other sessions for long.

    Of `restored`, one column exists, and the other one is kept alike from the moment that it is added.
    """
    # No service uses a table that is created or dropped.
    tables = {operation.table_name for operation in operations if isinstance(operation, CreateTableOp | DropTableOp)}
    return [form for operation in operations for form in _forms(operation, tables, restored)]


def _forms(
    operation: MigrateOperation, unused: set[str], restored: Sequence[AlikeColumns]
) -> Iterator[MigrateOperation]:
    if isinstance(operation, ModifyTableOps):
        for part in operation.ops:
            yield from _forms(part, unused, restored)
    elif vars(operation).get("table_name", vars(operation).get("source_table")) in unused:
        yield operation
    elif isinstance(operation, AddColumnOp):
        names = (operation.table_name, str(operation.column.name))
        alike = next((columns for columns in restored if names in {columns[:2], columns[::2]}), None)
        yield from _new_column(operation) if alike is None else _restored_column(operation, alike)
    elif isinstance(operation, AlterColumnOp) and operation.modify_nullable is False:
        operation.modify_nullable = None
        if operation.has_changes():
            yield operation
        yield Call("set_not_null_online", operation.table_name, operation.column_name)
    else:
        yield _form(operation)


def _form(operation: MigrateOperation) -> MigrateOperation:
    if isinstance(operation, CreateIndexOp):
        return Online(operation)
    if isinstance(operation, DropIndexOp):
        return Call("drop_index_online", operation.index_name, operation.table_name)
    if isinstance(operation, CreateUniqueConstraintOp) and not any(operation.kw.values()):
        names = (operation.constraint_name, operation.table_name)
        return Call("create_unique_constraint_online", *names, operation.columns)
    if isinstance(operation, CreateForeignKeyOp) and not any(map(operation.kw.get, OTHER_KEY_OPTIONS)):
        return _foreign_key(operation)
    return operation


def _foreign_key(key: CreateForeignKeyOp) -> Call:
    actions = {name: key.kw.get(name) for name in ("onupdate", "ondelete")}
    columns = (key.local_cols, key.remote_cols)
    return Call(
        "create_foreign_key_online", key.constraint_name, key.source_table, key.referent_table, *columns, **actions
    )


def _new_column(operation: AddColumnOp) -> Iterator[MigrateOperation]:
    column = operation.column
    if (
        column.nullable
        or column.server_default is not None
        or column.computed is not None
        or column.identity is not None
    ):
        yield operation
        return
    column.nullable = True
    yield operation
    # The author knows the values: as it is, the statement is an error.
    yield Call("backfill", operation.table_name, {str(column.name): PLACEHOLDER}, f"{column.name} IS NULL")
    yield Call("set_not_null_online", operation.table_name, str(column.name))


def _restored_column(operation: AddColumnOp, alike: AlikeColumns) -> Iterator[MigrateOperation]:
    column, table = operation.column, operation.table_name
    is_required, default = not column.nullable, column.server_default
    # With the default, existing rows would have it instead of the value of the other column.
    column.nullable, column.server_default = True, None
    yield operation
    yield Call("keep_alike", *alike)
    if default is not None:
        yield AlterColumnOp(table, str(column.name), modify_server_default=default)
    if is_required:
        yield Call("set_not_null_online", table, str(column.name))


def _literal(value: Any) -> str:
    if isinstance(value, str):
        # The formatter does not break a string that is longer than a line.
        return " ".join(map(repr, WRAPPER.wrap(value)))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)
