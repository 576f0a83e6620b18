"""Saying where the database stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from syntegra_db.catalog._status import DatabaseStatus

VECTOR_INDEXES = ("idx_text_summary_embedding", "idx_text_summary_embedding_new", "idx_text_summary_embedding_old")
REBUILD = "syntegra-db vectors rebuild"


def status(*, json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False) -> None:
    """Say where the database stands: server, revision, tables, indexes."""
    from syntegra_db.catalog._status import read_status
    from syntegra_db.connections import connect, unpooled_engine
    from syntegra_db.settings import database_url
    from syntegra_db.vectors._index import read_primary_index

    with connect(unpooled_engine(database_url())) as connection:
        found = read_status(connection)
        index = read_primary_index(connection)
    built_on = index.rows_at_build if index is not None else None
    if json_output:
        _print_json(found, built_on)
    else:
        _print(found, built_on)


def _print_json(found: DatabaseStatus, built_on: int | None) -> None:
    import json
    from dataclasses import asdict

    told = {**asdict(found), "vector_index_rows": built_on}
    typer.echo(json.dumps(told, ensure_ascii=False, indent=2, default=str))


def _print(found: DatabaseStatus, built_on: int | None) -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

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
        remedy = REBUILD if index in VECTOR_INDEXES else f"REINDEX INDEX CONCURRENTLY {index};"
        typer.echo(f"Invalid index: {index}. Rebuild it: {remedy}")
    texts = next((row.estimated_rows for row in found.tables if row.name == "text_summary"), 0)
    if built_on is not None:
        typer.echo(f"The vector index was built on {built_on:,} rows.")
    elif found.vector_index_trained is False and texts:
        typer.echo(f"The vector index was built on the empty table and finds little. Rebuild it: {REBUILD}")
