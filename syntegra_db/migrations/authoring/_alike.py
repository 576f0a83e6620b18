"""Columns that `op.keep_alike` keeps alike: until which revision, and which calls a revision lacks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from alembic.operations.ops import AddColumnOp, AlterColumnOp, DropColumnOp, DropTableOp, RenameTableOp

from syntegra_db.migrations.authoring._effects import altered_tables, sql_of
from syntegra_db.migrations.online import AlikeColumns, KeepAlikeOp, StopKeepingAlikeOp, collect_functions, describe
from syntegra_db.revisions import revision_path, script_directory

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from alembic.operations.ops import MigrateOperation

    from syntegra_db.migrations.online import CollectedSteps

REMOVED_IN_SQL = re.compile(r'(?:DROP|RENAME) (?:COLUMN )?(?:IF EXISTS )?"?(?P<column>\w+)"?', re.IGNORECASE)


def kept_alike(revision: str | None) -> set[AlikeColumns]:
    """Return the columns that are kept alike at `revision`."""
    found: set[AlikeColumns] = set()
    for name in filter(None, revision_path(None, revision)):
        upgrade, _ = collect_functions(script_directory().get_revision(name).module)
        found = alike_after(upgrade, found)
    return found


def alike_after(collected: CollectedSteps | None, before: Collection[AlikeColumns]) -> set[AlikeColumns]:
    """Return the columns that are kept alike after a function of a revision."""
    found = set(before)
    for operation in collected.operations if collected else ():
        if isinstance(operation, KeepAlikeOp):
            found.add(operation.columns)
        elif isinstance(operation, StopKeepingAlikeOp):
            found.discard(operation.columns)
    return found


def call_of(name: str, columns: AlikeColumns) -> str:
    """Return the call of `op.keep_alike` or `op.stop_keeping_alike`, as a revision has it."""
    arguments = ", ".join(f'"{part}"' for part in columns)
    return f"op.{name}({arguments})"


def misused_columns(operations: Iterable[MigrateOperation], before: Collection[AlikeColumns]) -> Iterator[str]:
    """Yield what is wrong with the operations on columns that are kept alike; `before` are those at the beginning."""
    alike, with_default = set(before), set()
    for operation in operations:
        if isinstance(operation, AddColumnOp) and operation.column.server_default is not None:
            with_default.add((operation.table_name, operation.column.name))
        if isinstance(operation, KeepAlikeOp):
            alike.add(operation.columns)
            table, *names = operation.columns
            for name in names:
                if (table, name) in with_default:
                    yield (
                        f"{table}.{name} has a server_default, which op.keep_alike would write over the other column "
                        "of the rows of services that do not know it. Add it without a default and nullable, also in "
                        "the model; a later revision can call op.set_not_null_online."
                    )
        elif isinstance(operation, StopKeepingAlikeOp):
            if operation.columns not in alike:
                yield (
                    f"{call_of('stop_keeping_alike', operation.columns)} ends nothing, because op.keep_alike was not "
                    "called with these columns. Write its arguments, in the same order."
                )
            alike.discard(operation.columns)
        else:
            for columns in sorted(columns for columns in alike if _removes(operation, columns)):
                yield (
                    f"{describe(operation)} leaves the trigger of op.keep_alike behind, with which writes fail. Write "
                    f"before it: {call_of('stop_keeping_alike', columns)}"
                )
                alike.discard(columns)


def unreverted_columns(
    upgrade: CollectedSteps, downgrade: CollectedSteps, before: Collection[AlikeColumns]
) -> Iterator[str]:
    """Yield the calls that the downgrade lacks; `before` are the columns that earlier revisions keep alike."""
    after = alike_after(upgrade, before)
    restored = alike_after(downgrade, after)
    dropped = {columns for columns in restored for operation in downgrade.operations if _removes(operation, columns)}
    for columns in sorted(restored - set(before) - dropped):
        yield (
            "it does not end op.keep_alike of upgrade. Write, before the column is dropped: "
            f"{call_of('stop_keeping_alike', columns)}"
        )
    for columns in sorted(set(before) - restored):
        yield (
            "it does not restore what op.stop_keeping_alike of upgrade ends. Write, after the column is added: "
            f"{call_of('keep_alike', columns)}"
        )


def _removes(operation: MigrateOperation, columns: AlikeColumns) -> bool:
    """Return whether one of `columns` has not its table or name after `operation`."""
    names = vars(operation)
    if isinstance(operation, DropTableOp | RenameTableOp):
        return str(names["table_name"]) == columns.table
    if isinstance(operation, DropColumnOp) or (isinstance(operation, AlterColumnOp) and operation.modify_name):
        return names["table_name"] == columns.table and names["column_name"] in columns[1:]
    return any(
        match["column"] in columns[1:]
        for table, text in altered_tables(sql_of(operation))
        if table == columns.table
        for match in REMOVED_IN_SQL.finditer(text)
    )
