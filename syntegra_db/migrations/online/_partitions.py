"""Operations on partitions: divide the rows of a table by month, and join them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

from alembic.operations.ops import CreateIndexOp, DropConstraintOp, DropIndexOp

from syntegra_db.catalog import YEARS_END, ddl, month_name_expression
from syntegra_db.client_policies import BINDINGS_TABLE, MARK, POLICIES
from syntegra_db.errors import MigrationFailed
from syntegra_db.migrations._templates import read_template
from syntegra_db.migrations.online._registry import OnlineOperation, find_violations, object_name, register
from syntegra_db.migrations.online._steps import AutocommitStep, TransactionStep, ValidationStep, describe, execute
from syntegra_db.sql import MAX_NAME_BYTES, literal, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.operations import Operations

    from syntegra_db.migrations.online._steps import Step

# The longest that is added to the name of the table in those of its partitions.
LONGEST_SUFFIX = "_default"
# The parts that are templates too, each after those that it has.
CHECKS = ("require_table", "index_name", "names", "checks")
FRAGMENTS = {
    "partition_check": CHECKS,
    "partition_limit": ("require_table",),
    "partition_by_month": CHECKS,
    "partition_past": ("require_table", "require_past"),
    "merge_partitions": ("require_table", "require_past"),
}


# The policies of `syntegra-db tenancy` stay on the first partition, and the new table gets them before the commit.
POLICY_NAMES = ", ".join(literal(policy.name) for policy in POLICIES)
IS_SEPARATED = f"""EXISTS (
      SELECT FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(current_schema()))
        AND relname = {literal(BINDINGS_TABLE)} AND starts_with(obj_description(oid, 'pg_class'), {literal(MARK)})
    )"""


class _Names(NamedTuple):
    """The table and column of an operation, and the names of what it creates."""

    table: str
    column: str
    key: tuple[str, ...]

    @classmethod
    def of(cls, table: str, column: str, key: Sequence[str]) -> Self:
        """Return the names for `table`, unless PostgreSQL would cut those of its partitions to the same one.

        Raises:
            MigrationFailed: the name of the table is too long.
        """
        if len(table.encode()) > (most := MAX_NAME_BYTES - len(LONGEST_SUFFIX)):
            raise MigrationFailed(
                f"The table {quote(table)} cannot be partitioned by month: its name has more than {most} bytes, and "
                f"PostgreSQL cuts the names of partitions, such as {quote(f'{table}_2026_11')}, at {MAX_NAME_BYTES} "
                "bytes. Rename the table first."
            )
        return cls(table, column, tuple(key))

    @property
    def past(self) -> str:
        """The partition with the rows that the table had."""
        return object_name(self.table, "past")

    @property
    def default(self) -> str:
        """The partition with the rows of months without a partition."""
        return ddl.default_partition_name(self.table)

    @property
    def check(self) -> str:
        """The CHECK that proves that the rows are before the first month."""
        return object_name("ck", self.past)

    @property
    def partition_key(self) -> str:
        """The primary key of the partition, with the column."""
        return object_name(self.past, "pkey")

    @property
    def past_key(self) -> str:
        """The index that becomes the primary key without the column."""
        return object_name(self.past, "id")

    def render(self, template: str, **values: object) -> str:
        """Return a template with the names as string constants."""
        names = ("table", "column", "past", "default", "check", "partition_key", "past_key")
        parts = {name: literal(getattr(self, name)) for name in names} | {
            "empty_past": literal(f"Empty, until the partitions of {self.table} are merged into it"),
            "detached": literal(object_name(self.table, "detached")),
            "month_name": month_name_expression(self.table, "month"),
            "own_parts": _template("partition_own_parts").format(policies=POLICY_NAMES, is_separated=IS_SEPARATED),
            "copy_privileges": _template("copy_privileges").rstrip(),
            "key": ", ".join(quote(column) for column in (*self.key, self.column)),
            **values,
        }
        for fragment in FRAGMENTS[template]:
            parts[fragment] = _template(f"partition_{fragment}").format(**parts)
        return _template(template).format(**parts)


def _template(name: str) -> str:
    return read_template(name).strip("\n")


@register("partition_by_month")
class PartitionByMonthOp(OnlineOperation):
    """Divide the rows of a table by month while other sessions read and write."""

    def __init__(self, names: _Names, months_ahead: int, spare_months: int) -> None:
        self._names, self._months_ahead, self._spare_months = names, months_ahead, spare_months

    @classmethod
    def partition_by_month(  # noqa: PLR0913  each is a decision of the author
        cls,
        operations: Operations,
        table_name: str,
        column_name: str,
        *,
        key: Sequence[str] = ("id",),
        months_ahead: int = 3,
        spare_months: int = 1,
    ) -> None:
        """Partition a table by the months, in UTC, of a column that is NOT NULL and a date or timestamp.

        The primary key gets the column, because a unique key of a partitioned table has it; `key` are its columns
        before. No row is moved: the table becomes the first partition, `TABLE_past`. It ends `spare_months` after the
        month of the latest row, or after the current one if that is later. A row far in the future makes it long:
        correct it before. `infinity` and dates after the year 9999 have no month, and are rejected. The partitions up
        to `months_ahead` after the current one follow, and `TABLE_default` for rows of all other months.
        `syntegra-db partitions create` adds the months later.

        From its third step on, a CHECK rejects rows that are later than the first partition, because the server would
        otherwise read all rows while every session waits. It lasts until the table is partitioned: while all rows are
        read twice, and after an interruption until the revision is finished or undone. It matters only to a service
        that writes rows more than `spare_months` later than all rows before: give a larger number then, or migrate
        while that service does not write. Other sessions wait for the exchange of the tables, which reads no rows.

        Views, triggers, rules, policies, publications, and foreign keys that reference the table would belong to the
        first partition: they are listed, and dropped by their owner before. Those of `syntegra-db tenancy` are not:
        they stay on it, and the partitioned table gets them.
        """
        operations.invoke(cls(_Names.of(table_name, column_name, key), months_ahead, spare_months))

    def steps(self) -> Sequence[Step]:
        """Return the examination, the key, the CHECK with its validation, the exchange of the tables, and ANALYZE.

        A row that was written while the limit of the CHECK was read can be later, so it is read again with the CHECK.
        """
        names = self._names
        columns = [*names.key, names.column]
        index = CreateIndexOp(names.partition_key, names.table, columns, unique=True, postgresql_concurrently=True)
        validate = f"ALTER TABLE {quote(names.table)} VALIDATE CONSTRAINT {quote(names.check)}"
        # Once the tables are exchanged, there is nothing to validate.
        validate_if_there = (
            f"DO $$ BEGIN IF EXISTS (SELECT FROM pg_constraint WHERE conname = {literal(names.check)} "
            f"AND conrelid = to_regclass(format('%I.%I', current_schema(), {literal(names.table)}))) "
            f"THEN {validate}; END IF; END $$"
        )
        drop_check = DropConstraintOp(names.check, names.table)
        find_late_rows = find_violations(names.table, f"{quote(names.column)} < {YEARS_END}")
        # The earliest month that has a partition apart from the first one.
        months = {"first_month": self._spare_months + 1, "months": self._months_ahead}
        set_limit, raise_limit = (
            execute(
                names.render(
                    "partition_limit",
                    years_end=YEARS_END,
                    margin=self._spare_months + 1,
                    is_raise=is_raise,
                    find_late_rows=literal(f"Correct the rows that this finds, and run this again: {find_late_rows}"),
                )
            )
            for is_raise in ("false", "true")
        )
        return [
            TransactionStep((execute(names.render("partition_check", **months)),), f"check table {names.table}"),
            AutocommitStep(index, describe(index), (DropIndexOp(names.partition_key, names.table),)),
            TransactionStep(
                (set_limit,),
                f"add constraint {names.check} for new rows",
                cleanup=(drop_check,),
            ),
            TransactionStep((raise_limit,), f"alter constraint {names.check} for rows of {names.table}"),
            ValidationStep(validate_if_there, f"check the rows of {names.table} for {names.check}", find_late_rows),
            TransactionStep(
                (execute(names.render("partition_by_month", **months)),),
                f"partition {names.table} by month into {names.past}, {names.default}",
            ),
            TransactionStep((execute(f"ANALYZE {quote(names.table)}"),), f"analyze {names.table}"),
        ]


@register("merge_partitions")
class MergePartitionsOp(OnlineOperation):
    """Make a table that is partitioned by month a plain one again."""

    def __init__(self, names: _Names) -> None:
        self._names = names

    @classmethod
    def merge_partitions(
        cls, operations: Operations, table_name: str, column_name: str, *, key: Sequence[str] = ("id",)
    ) -> None:
        """Undo `op.partition_by_month`, with all rows.

        The first partition becomes the table again. Other sessions wait for the table while the rows of the other
        partitions, which are those since it was partitioned, are inserted into it.

        Triggers, rules, policies, publications and row-level security of the partitioned table would be dropped with
        it: they are listed, and dropped by their owner before. So is a partition whose DETACH was interrupted. If the
        first partition was detached, and its name is still that of a table, attach that again or rename it before.
        """
        operations.invoke(cls(_Names.of(table_name, column_name, key)))

    def steps(self) -> Sequence[Step]:
        """Return the first partition if it was dropped, its key, and the exchange of the tables."""
        names = self._names
        index = CreateIndexOp(names.past_key, names.past, list(names.key), unique=True, postgresql_concurrently=True)
        # The names in the descriptions decide what an interrupted revision undoes; it can repeat these statements.
        return [
            TransactionStep((execute(names.render("partition_past")),), f"create table {names.past} if not exists"),
            AutocommitStep(index, f"create unique index on {names.past}", (DropIndexOp(names.past_key, names.past),)),
            TransactionStep(
                (execute(names.render("merge_partitions")),),
                f"merge {names.default}, {names.partition_key}, {names.check} into {names.table}",
            ),
        ]
