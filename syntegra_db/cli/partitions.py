"""`syntegra-db partitions`: the partitions by month, and those of the next months."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from syntegra_db import wording
from syntegra_db.cli import environment
from syntegra_db.cli.arguments import Json
from syntegra_db.cli.output import echo, print_json, print_table

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Engine

    from syntegra_db.catalog import MonthPartitions
    from syntegra_db.cli.results import PartitionList

app = typer.Typer(help="List and create the partitions of tables that are partitioned by month.", no_args_is_help=True)

NO_TABLE = "No table is partitioned by month at the revision of this database, so there is nothing to do."


@app.command("list", epilog=environment.DATABASE)
def list_partitions(*, json_output: Json = False) -> None:
    """List the partitions with their months and rows."""
    from syntegra_db.migrations import list_month_partitions

    tables = list_month_partitions(_engine())
    if json_output:
        print_json(_partition_list(tables))
        return
    if not tables:
        echo(NO_TABLE)
        return
    rows = [
        (
            table.table,
            part.name,
            "default" if part.is_default else _month(part.lower),
            "" if part.is_default else _month(part.upper),
            f"{part.estimated_rows:,}",
        )
        for table in tables
        for part in table.partitions
    ]
    print_table(("Table", "Partition", "From", "Before", "Rows (estimate)"), rows, right_aligned=("Rows (estimate)",))


@app.command(epilog=environment.DATABASE_AND_LOCKS)
def create(
    months: Annotated[int, typer.Option(min=0, max=120, help="Number of months after the current one.")] = 3,
    *,
    move_rows: Annotated[
        bool, typer.Option("--move-rows", help="Move rows of these months out of the default partition.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Create the partitions of the current and the next months, while services read and write."""
    from syntegra_db.cli.results import NewPartitionList
    from syntegra_db.migrations import create_month_partitions, load_migration_options

    tables = create_month_partitions(_engine(), months, move_rows=move_rows, options=load_migration_options())
    if json_output:
        print_json(NewPartitionList(tables))
        return
    if not tables:
        echo(NO_TABLE)
    for table in tables:
        if table.created:
            moved = f", {wording.rows(table.moved_rows)} moved" if table.moved_rows else ""
            echo(f"{table.table}: created {', '.join(table.created)}{moved}")
        else:
            echo(f"{table.table}: the partitions of all these months exist")


def _partition_list(tables: list[MonthPartitions]) -> PartitionList:
    from syntegra_db.cli.results import MonthPartition, PartitionedTable, PartitionList

    return PartitionList(
        [
            PartitionedTable(
                table.table,
                [
                    MonthPartition(part.name, part.lower, part.upper, part.is_default, part.estimated_rows)
                    for part in table.partitions
                ],
                [str(month) for month in table.missing_months],
            )
            for table in tables
        ]
    )


def _month(moment: datetime | None) -> str:
    from syntegra_db.catalog import FIRST_MOMENT, LAST_MOMENT

    beyond = {FIRST_MOMENT: "before year 1", LAST_MOMENT: "after year 9999", None: "no limit"}
    return beyond.get(moment) or f"{moment:%Y-%m-%d}"


def _engine() -> Engine:
    from syntegra_db.connections import unpooled_engine
    from syntegra_db.settings import database_url

    return unpooled_engine(database_url(), "syntegra_db partitions")
