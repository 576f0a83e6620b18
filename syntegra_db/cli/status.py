"""`syntegra-db status`: the server, the revision, the tables and the indexes of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from syntegra_db import wording
from syntegra_db.cli.arguments import Json
from syntegra_db.cli.gates import MinimumRevision, print_gate_result
from syntegra_db.cli.output import echo, print_json, print_table
from syntegra_db.errors import escape_control_characters

if TYPE_CHECKING:
    from syntegra_db.catalog import DatabaseStatus
    from syntegra_db.cli.results import IndexBuild
    from syntegra_db.vectors import EmbeddingColumn


def status(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only print whether services of this package work on the database.")
    ] = False,
    at_least: MinimumRevision = None,
    json_output: Json = False,
) -> None:
    """Print the server, the revision, the tables and the indexes of the database.

    With --check, exit with 0 only if services of this package work on it: see `require_head`.
    """
    if at_least is not None and not check:
        raise typer.BadParameter("--at-least needs --check")
    if check:
        from syntegra_db.revisions import head_revision

        required = at_least or head_revision()
        print_gate_result(lambda: _read_revision(required), required=required, json_output=json_output)
        return
    from syntegra_db.catalog import read_status
    from syntegra_db.cli.results import IndexBuild
    from syntegra_db.cli.status_result import StatusResult
    from syntegra_db.compatibility import supports_package
    from syntegra_db.connections import connect, unpooled_engine
    from syntegra_db.revisions import require_known_revision
    from syntegra_db.settings import database_url
    from syntegra_db.vectors import declared_embeddings, read_primary_index, was_built_on_data

    with connect(unpooled_engine(database_url())) as connection:
        report = read_status(connection)
        builds = {}
        for embedding in declared_embeddings():
            index = read_primary_index(connection, embedding)
            rows = None if index is None else index.rows_at_build
            builds[embedding] = IndexBuild(was_built_on_data(connection, embedding), rows)
        is_supported = supports_package(connection, report.revision)
    if json_output:
        by_column = {str(embedding): build for embedding, build in builds.items()}
        print_json(StatusResult(**vars(report), vector_indexes=by_column))
    else:
        _print(report, builds)
    if is_supported:
        if json_output:
            return
        echo("Services of this package work on this newer revision. Its commands need the package that has it.")
    else:
        require_known_revision(report.revision, report.schema, is_supported=False)


def _read_revision(at_least: str) -> str | None:
    from syntegra_db.connections import unpooled_engine
    from syntegra_db.migrations import read_required_revision
    from syntegra_db.settings import database_url

    return read_required_revision(unpooled_engine(database_url()), at_least=at_least)


def _print(report: DatabaseStatus, builds: dict[EmbeddingColumn, IndexBuild]) -> None:
    from rich.filesize import decimal

    from syntegra_db.catalog import CREATE_COMMAND
    from syntegra_db.revisions import describe_revision
    from syntegra_db.sql import quote

    pgvector = f"pgvector {report.extension_version}" if report.extension_version else "no pgvector"
    names = [escape_control_characters(name) for name in (report.database, report.schema)]
    echo(f"PostgreSQL {report.server_version}, {pgvector}, database {names[0]}, schema {names[1]}")
    pending = f"; pending: {', '.join(report.pending)}" if report.pending else ""
    echo(f"At {describe_revision(report.revision)} of {report.head}{pending}")
    if report.tenancy_prefix is not None:
        echo(f"Clients are separated, with the prefix {report.tenancy_prefix}. More: syntegra-db tenancy status")
    if report.unfinished is not None:
        echo(f"Not complete: {report.unfinished}. {report.unfinished.instructions}")
    if report.tables:
        print_table(
            ("Table", "Rows (estimate)", "Size", "Last analyze"),
            [
                (
                    table.name,
                    f"{table.estimated_rows:,}",
                    decimal(table.total_bytes),
                    wording.timestamp(table.last_analyze) if table.last_analyze else "never",
                )
                for table in report.tables
            ],
            right_aligned=("Rows (estimate)", "Size"),
        )
    for table in report.by_month:
        if table.missing_months:
            months = ", ".join(table.missing_months)
            echo(f"Warning: {table.table} has no partition for {months}. Create it: {CREATE_COMMAND}")
        if table.default_rows:
            echo(
                f"Warning: about {wording.rows(table.default_rows)} of {table.table} are in no partition of a month. "
                f"Move them: {CREATE_COMMAND} --move-rows"
            )
    for schema in report.unused_schemas:
        echo(
            f"Schema {quote(schema)} also has tables of this package. No command uses them, because another schema "
            "comes first on the search_path."
        )
    _print_indexes(report, builds)


def _print_indexes(report: DatabaseStatus, builds: dict[EmbeddingColumn, IndexBuild]) -> None:
    from syntegra_db.sql import quote
    from syntegra_db.vectors import EXACT_SCAN_MAX_ROWS, rebuild_command

    rebuilds = {name: rebuild_command(embedding) for embedding in builds for name in embedding.index_names}
    for index in report.invalid_indexes:
        fix = rebuilds.get(index, f"REINDEX INDEX CONCURRENTLY {quote(index)};")
        echo(f"Invalid index: {index}. Rebuild it: {fix}")
    rows = {table.name: table.estimated_rows for table in report.tables}
    for embedding, build in builds.items():
        index = f"vector index of {embedding}" if len(builds) > 1 else "vector index"
        if build.rows is not None:
            echo(f"The {index} was built on {wording.rows(build.rows)}.")
        elif build.trained is False and rows.get(embedding.table, 0) > EXACT_SCAN_MAX_ROWS:
            echo(
                f"The {index} was built on the empty table, so its recall is low. Rebuild it: "
                f"{rebuild_command(embedding)}"
            )
