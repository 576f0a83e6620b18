"""Compare the partitions of a table with what backups and the next months need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import ddl
from syntegra_db.catalog._findings import Finding
from syntegra_db.catalog._partitions import CREATE_COMMAND
from syntegra_db.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syntegra_db.catalog._partitions import MonthPartitions, Partition

# A backup has the rows of the parts of a partitioned partition too.
IN_BACKUPS = ("table", "partitioned table")


def compare_partitions(installed: MonthPartitions) -> Iterator[Finding]:
    """Yield the partitions whose rows no backup or query has, and the months without a partition.

    A missing month is a note as long as a default partition takes its rows. So is a default partition with rows.
    """
    for part in installed.partitions:
        yield from _unusual(installed.table, part)
    default = installed.default
    if installed.missing_months:
        months = ", ".join(map(str, installed.missing_months))
        yield Finding(
            object=f"table {installed.table}",
            expected="a partition for the current month and the next one",
            found=f"no partition for {months}",
            impact=(
                f"Its rows go to {default.name}, where they cannot be detached by month."
                if default
                else "An insert of a row of this month fails."
            ),
            fix=f"-- Run {CREATE_COMMAND}." if default else ddl.create_default_partition(installed.table),
            is_drift=default is None,
        )
    elif default is None:
        yield Finding(
            object=f"table {installed.table}",
            expected="a default partition",
            found="no default partition",
            impact="An insert of a row of a month without a partition fails, also in a restore.",
            fix=ddl.create_default_partition(installed.table),
            is_drift=False,
        )
    if default is not None and default.estimated_rows:
        yield Finding(
            object=f"table {installed.table}",
            expected=f"no row in {default.name}",
            found=f"about {default.estimated_rows:,} rows",
            impact="They cannot be detached by month, and no partition for their months can be created next to them.",
            fix=f"-- Run {CREATE_COMMAND} --move-rows.",
            is_drift=False,
        )


def _unusual(table: str, part: Partition) -> Iterator[Finding]:
    if part.is_detaching:
        yield Finding(
            object=f"partition {part.name} of {table}",
            expected="attached or detached",
            found="its DETACH CONCURRENTLY was interrupted",
            impact="Queries on the table do not return its rows.",
            fix=f"ALTER TABLE {quote(table)} DETACH PARTITION {part.qualified} FINALIZE;",
        )
    elif part.kind not in IN_BACKUPS or not part.in_schema:
        yield Finding(
            object=f"partition {part.name} of {table}",
            expected="an ordinary table in the same schema",
            found=part.kind if part.kind not in IN_BACKUPS else f"named {part.qualified}",
            impact=(
                "A backup is rejected, because it would not have these rows. Once the partition is detached, queries "
                "on the table do not return them."
            ),
            fix=f"ALTER TABLE {quote(table)} DETACH PARTITION {part.qualified};",
        )
