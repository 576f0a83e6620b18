"""The operations that the environment adds to Alembic's `op`, for tables that services use during the migration.

Their signatures are part of the released revisions, so they never change: a new wish gets a new operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.operations.ops import (
    CreateCheckConstraintOp,
    CreateForeignKeyOp,
    CreateIndexOp,
    DropConstraintOp,
    DropIndexOp,
)

from syntegra_db.migrations.online._registry import (
    OnlineOperation,
    as_text,
    constraint_steps,
    find_violations,
    object_name,
    register,
)
from syntegra_db.migrations.online._steps import AutocommitStep, TransactionStep, describe, execute
from syntegra_db.sql import literal, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.operations import Operations

    from syntegra_db.migrations.online._steps import Step


@register("create_index_online")
class CreateIndexOnlineOp(OnlineOperation):
    """Build an index while other sessions read and write."""

    def __init__(self, operation: CreateIndexOp) -> None:
        self._operation = operation

    @classmethod
    def create_index_online(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        columns: Sequence[Any],
        *,
        unique: bool = False,
        **options: Any,
    ) -> None:
        """Build an index with CREATE INDEX CONCURRENTLY, which blocks no reads and no writes.

        It waits for every transaction that is older than it, without a limit. An invalid index that an interrupted run
        left behind is dropped first; a valid one of this name is kept. `options` are those of `op.create_index`, such
        as `postgresql_using`, `postgresql_where` and `postgresql_ops`.
        """
        operations.invoke(
            cls(CreateIndexOp(index_name, table_name, columns, unique=unique, postgresql_concurrently=True, **options))
        )

    def steps(self) -> Sequence[Step]:
        """Return one step."""
        return [AutocommitStep(self._operation, describe(self._operation))]


@register("drop_index_online")
class DropIndexOnlineOp(OnlineOperation):
    """Drop an index while other sessions read and write."""

    def __init__(self, operation: DropIndexOp) -> None:
        self._operation = operation

    @classmethod
    def drop_index_online(cls, operations: Operations, index_name: str, table_name: str) -> None:
        """Drop an index, if it exists, with DROP INDEX CONCURRENTLY, which blocks no reads and no writes."""
        operations.invoke(cls(DropIndexOp(index_name, table_name, if_exists=True, postgresql_concurrently=True)))

    def steps(self) -> Sequence[Step]:
        """Return one step."""
        return [AutocommitStep(self._operation, describe(self._operation))]


@register("create_check_constraint_online")
class CreateCheckConstraintOnlineOp(OnlineOperation):
    """Add a CHECK constraint while other sessions read and write."""

    def __init__(self, name: str, table: str, condition: str) -> None:
        self._name, self._table, self._condition = name, table, condition

    @classmethod
    def create_check_constraint_online(
        cls, operations: Operations, constraint_name: str, table_name: str, condition: str
    ) -> None:
        """Add a CHECK constraint for new rows, then check the existing rows without blocking writes."""
        operations.invoke(cls(constraint_name, table_name, condition))

    def steps(self) -> Sequence[Step]:
        """Return the addition and the validation."""
        add = CreateCheckConstraintOp(self._name, self._table, as_text(self._condition), postgresql_not_valid=True)
        return constraint_steps(self._name, self._table, add, find_violations(self._table, self._condition))


@register("create_foreign_key_online")
class CreateForeignKeyOnlineOp(OnlineOperation):
    """Add a foreign key while other sessions read and write."""

    def __init__(self, operation: CreateForeignKeyOp) -> None:
        self._operation = operation

    @classmethod
    def create_foreign_key_online(  # noqa: PLR0913, PLR0917  as op.create_foreign_key
        cls,
        operations: Operations,
        constraint_name: str,
        source_table: str,
        referent_table: str,
        local_cols: Sequence[str],
        remote_cols: Sequence[str],
        *,
        onupdate: str | None = None,
        ondelete: str | None = None,
    ) -> None:
        """Add a foreign key for new rows, then check the existing rows without blocking writes to either table.

        Create the index of the local columns first: a deletion in the referenced table searches them.
        """
        operations.invoke(
            cls(
                CreateForeignKeyOp(
                    constraint_name,
                    source_table,
                    referent_table,
                    list(local_cols),
                    list(remote_cols),
                    onupdate=onupdate,
                    ondelete=ondelete,
                    postgresql_not_valid=True,
                )
            )
        )

    def steps(self) -> Sequence[Step]:
        """Return the addition and the validation."""
        key = self._operation
        pairs = zip(key.local_cols, key.remote_cols, strict=True)
        matching = " AND ".join(f"child.{quote(local)} = parent.{quote(remote)}" for local, remote in pairs)
        given = " AND ".join(f"child.{quote(local)} IS NOT NULL" for local in key.local_cols)
        find = (
            f"SELECT * FROM {quote(key.source_table)} AS child WHERE {given} AND NOT EXISTS "  # noqa: S608  printed
            f"(SELECT FROM {quote(key.referent_table)} AS parent WHERE {matching});"
        )
        return constraint_steps(str(key.constraint_name), key.source_table, key, find)


@register("create_unique_constraint_online")
class CreateUniqueConstraintOnlineOp(OnlineOperation):
    """Add a unique constraint while other sessions read and write."""

    def __init__(self, name: str, table: str, columns: Sequence[str]) -> None:
        self._name, self._table, self._columns = name, table, columns

    @classmethod
    def create_unique_constraint_online(
        cls, operations: Operations, constraint_name: str, table_name: str, columns: Sequence[str]
    ) -> None:
        """Build a unique index without blocking writes, then make it the index of a unique constraint."""
        operations.invoke(cls(constraint_name, table_name, columns))

    def steps(self) -> Sequence[Step]:
        """Return the build of the index and the addition of the constraint."""
        name, table = quote(self._name), quote(self._table)
        index = CreateIndexOp(self._name, self._table, list(self._columns), unique=True, postgresql_concurrently=True)
        add = f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {name}"
        add_if_missing = (
            f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = {literal(self._name)} "
            f"AND conrelid = {literal(table)}::regclass) THEN {add}; END IF; END $$"
        )
        return [
            AutocommitStep(index, describe(index), (DropIndexOp(self._name, self._table),)),
            TransactionStep((execute(add),), f"add unique constraint {self._name}", (execute(add_if_missing),)),
        ]


@register("set_not_null_online")
class SetNotNullOnlineOp(OnlineOperation):
    """Set a column NOT NULL while other sessions read and write."""

    def __init__(self, table: str, column: str) -> None:
        self._table, self._column = table, column

    @classmethod
    def set_not_null_online(cls, operations: Operations, table_name: str, column_name: str) -> None:
        """Set a column NOT NULL by way of a CHECK constraint, so that no lock is held while the rows are read.

        New rows must have a value from the first step on. See https://www.postgresql.org/docs/current/sql-altertable.html
        on SET NOT NULL: it does not read the rows if a valid CHECK proves that no NULL can exist.
        """
        operations.invoke(cls(table_name, column_name))

    def steps(self) -> Sequence[Step]:
        """Return the addition of the CHECK, its validation, and SET NOT NULL, which replaces it."""
        column, condition = quote(self._column), f"{quote(self._column)} IS NOT NULL"
        name = object_name("ck", self._table, self._column, "not_null")
        add = CreateCheckConstraintOp(name, self._table, as_text(condition), postgresql_not_valid=True)
        replace = f"ALTER TABLE {quote(self._table)} ALTER COLUMN {column} SET NOT NULL, DROP CONSTRAINT {quote(name)}"
        return [
            *constraint_steps(
                name,
                self._table,
                add,
                find_violations(self._table, condition),
                cleanup=(DropConstraintOp(name, self._table),),
            ),
            TransactionStep((execute(replace),), f"set {self._table}.{self._column} NOT NULL"),
        ]
