"""Operations on rows and types: backfill, two columns with the same values, ENUM labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from alembic.operations.ops import CreateCheckConstraintOp

from syntegra_db.migrations.online._backfill import BackfillStep
from syntegra_db.migrations.online._registry import (
    OnlineOperation,
    as_text,
    constraint_steps,
    find_violations,
    object_name,
    register,
)
from syntegra_db.migrations.online._steps import TransactionStep, execute
from syntegra_db.sql import literal, quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alembic.operations import Operations

    from syntegra_db.migrations.online._steps import Step

MAX_BATCH_ROWS = 20_000


@register("backfill")
class BackfillOp(OnlineOperation):
    """Give columns of existing rows a value while other sessions read and write."""

    def __init__(self, step: BackfillStep) -> None:
        self._step = step

    @classmethod
    def backfill(
        cls,
        operations: Operations,
        table_name: str,
        values: Mapping[str, str],
        where: str = "true",
        *,
        batch: int = MAX_BATCH_ROWS,
    ) -> None:
        """Set columns of all rows for which the SQL condition `where` is true, in batches of rows by id.

        `values` are SQL expressions by column. Each batch is one transaction of about 0.15 s and at most `batch` rows,
        so that a writer that waits for one of its rows waits for no longer. An interrupted backfill continues after
        the last batch that was committed.
        """
        operations.invoke(cls(BackfillStep(table_name, dict(values), where, batch)))

    def steps(self) -> Sequence[Step]:
        """Return one step."""
        return [self._step]


@register("add_enum_label")
class AddEnumLabelOp(OnlineOperation):
    """Add a label to an ENUM type."""

    def __init__(self, type_: str, label: str, position: str) -> None:
        self._type, self._label, self._position = type_, label, position

    @classmethod
    def add_enum_label(
        cls, operations: Operations, type_name: str, label: str, *, before: str | None = None, after: str | None = None
    ) -> None:
        """Add a label, by default as the last one, and commit it: no statement can use it in the same transaction.

        Code of the revision before cannot read a row with the new label: write it when all services know it.
        """
        position = f" BEFORE {literal(before)}" if before else f" AFTER {literal(after)}" if after else ""
        operations.invoke(cls(type_name, label, position))

    def steps(self) -> Sequence[Step]:
        """Return one step."""
        add = f"ALTER TYPE {quote(self._type)} ADD VALUE IF NOT EXISTS {literal(self._label)}{self._position}"
        return [TransactionStep((execute(add),), f"add label {self._label} to {self._type}")]


class AlikeColumns(NamedTuple):
    """Two columns of a table with the same values: what `op.keep_alike` and `op.stop_keeping_alike` take."""

    table: str
    old: str
    new: str

    @property
    def object_name(self) -> str:
        """The name of the trigger, its function and the CHECK constraint."""
        return object_name(*self, "alike")


@register("keep_alike")
class KeepAlikeOp(OnlineOperation):
    """Keep two columns alike, for services that know only one of them."""

    def __init__(self, columns: AlikeColumns) -> None:
        self.columns = columns

    @classmethod
    def keep_alike(cls, operations: Operations, table_name: str, old_column: str, new_column: str) -> None:
        """Give each of two columns what is written to the other one, and what existing rows have in the other one.

        It is the expansion of a renamed or changed column: services of the revision before write `old_column`, and new
        ones write `new_column`, which has no default. If both are written, the new one counts. A trigger does it, and
        a CHECK constraint proves it. The types have an equality in pg_catalog. `op.stop_keeping_alike` ends it.
        """
        operations.invoke(cls(AlikeColumns(table_name, old_column, new_column)))

    def steps(self) -> Sequence[Step]:
        """Return the trigger, the backfill, and the constraint with its validation."""
        table, old, new = map(quote, self.columns)
        name = self.columns.object_name
        function, trigger = quote(name), quote(name)
        body = (
            f"BEGIN IF TG_OP = 'INSERT' AND NEW.{new} IS NULL THEN NEW.{new} := NEW.{old}; "
            f"ELSIF TG_OP = 'UPDATE' AND NEW.{new} IS NOT DISTINCT FROM OLD.{new} THEN NEW.{new} := NEW.{old}; "
            f"ELSE NEW.{old} := NEW.{new}; END IF; RETURN NEW; END"
        )
        create_function = (
            f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql "
            f"SET search_path = pg_catalog, pg_temp AS {literal(body)}"
        )
        create_trigger = (
            f"CREATE OR REPLACE TRIGGER {trigger} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW "
            f"EXECUTE FUNCTION {function}()"
        )
        condition = f"{old} IS NOT DISTINCT FROM {new}"
        values = {self.columns.new: f"coalesce({new}, {old})", self.columns.old: f"coalesce({old}, {new})"}
        return [
            TransactionStep((execute(create_function), execute(create_trigger)), f"add trigger {name}"),
            BackfillStep(
                self.columns.table, values, f"({old} IS NULL) <> ({new} IS NULL)", MAX_BATCH_ROWS, is_reversible=True
            ),
            *constraint_steps(
                name,
                self.columns.table,
                CreateCheckConstraintOp(name, self.columns.table, as_text(condition), postgresql_not_valid=True),
                find_violations(self.columns.table, condition),
            ),
        ]


@register("stop_keeping_alike")
class StopKeepingAlikeOp(OnlineOperation):
    """End what `op.keep_alike` began."""

    def __init__(self, columns: AlikeColumns) -> None:
        self.columns = columns

    @classmethod
    def stop_keeping_alike(cls, operations: Operations, table_name: str, old_column: str, new_column: str) -> None:
        """Drop the trigger and the constraint of `op.keep_alike`; both columns stay."""
        operations.invoke(cls(AlikeColumns(table_name, old_column, new_column)))

    def steps(self) -> Sequence[Step]:
        """Return one step."""
        table, name = quote(self.columns.table), self.columns.object_name
        statements = (
            f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {quote(name)}",
            f"DROP TRIGGER IF EXISTS {quote(name)} ON {table}",
            f"DROP FUNCTION IF EXISTS {quote(name)}()",
        )
        return [TransactionStep(tuple(map(execute, statements)), f"drop trigger {name}")]
