"""Saying where the database stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from syntegra_db.catalog._status import DatabaseStatus

REBUILD = "syntegra-db vectors rebuild"


def status(*, json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False) -> None:
    """Say where the database stands: server, revision, tables, indexes."""
    from syntegra_db.catalog._status import read_status
    from syntegra_db.connections import connect, unpooled_engine
    from syntegra_db.settings import database_url
    from syntegra_db.vectors import read_primary_index, was_built_on_data

    with connect(unpooled_engine(database_url())) as connection:
        found = read_status(connection)
        index = read_primary_index(connection)
        built_on_data = was_built_on_data(connection)
    rows_at_build = index.rows_at_build if index is not None else None
    if json_output:
        _print_json(found, built_on_data=built_on_data, rows_at_build=rows_at_build)
    else:
        _print(found, built_on_data=built_on_data, rows_at_build=rows_at_build)


def _print_json(found: DatabaseStatus, *, built_on_data: bool | None, rows_at_build: int | None) -> None:
    import json
    from dataclasses import asdict

    report = {**asdict(found), "vector_index_trained": built_on_data, "vector_index_rows": rows_at_build}
    typer.echo(json.dumps(report, ensure_ascii=False, indent=2, default=str))


def _print(found: DatabaseStatus, *, built_on_data: bool | None, rows_at_build: int | None) -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    from syntegra_db.vectors import INDEX_NAMES

    console = Console()
    pgvector = f"pgvector {found.extension_version}" if found.extension_version else "no pgvector"
    console.print(f"PostgreSQL {found.server_version}, {pgvector}, database {found.database}, schema {found.schema}")
    pending = f"; pending: {', '.join(found.pending)}" if found.pending else ""
    console.print(f"At {f'revision {found.revision}' if found.revision else 'no revision'} of {found.head}{pending}")
    table = Table("Table", box=None)
    table.add_column("Rows (estimate)", justify="right")
    table.add_column("Size", justify="right")
    table.add_column("Last analyze")
    for row in found.tables:
        analyzed = f"{row.last_analyze:%Y-%m-%d %H:%M:%S %Z}" if row.last_analyze else "never"
        table.add_row(row.name, f"{row.estimated_rows:,}", decimal(row.total_bytes), analyzed)
    if found.tables:
        console.print(table)
    for index in found.invalid_indexes:
        remedy = REBUILD if index in INDEX_NAMES else f"REINDEX INDEX CONCURRENTLY {index};"
        typer.echo(f"Invalid index: {index}. Rebuild it: {remedy}")
    texts = next((row.estimated_rows for row in found.tables if row.name == "text_summary"), 0)
    if rows_at_build is not None:
        typer.echo(f"The vector index was built on {rows_at_build:,} rows.")
    elif built_on_data is False and texts:
        typer.echo(f"The vector index was built on the empty table and finds little. Rebuild it: {REBUILD}")
