"""Write the manifest of each revision from an empty database that is migrated step by step."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from syntegra_db.catalog import existing_tables, format_manifest, introspect
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import RevisionError, server_message
from syntegra_db.migrations._commands import run_in_transaction
from syntegra_db.migrations.online import collect_upgrade, require_values
from syntegra_db.revisions import VERSION_TABLE, all_revisions, revision_file, script_directory
from syntegra_db.settings import describe_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.engine import URL

    from syntegra_db.catalog import Schema

TABLES_AND_VIEWS = "rpvmf"


def write_manifests(url: URL, directory: Path) -> list[Path]:
    """Migrate the empty database at `url` revision by revision, and write the manifest of each to `directory`.

    Raises:
        RevisionError: the database is not empty, so its tables may not come from the revisions, or a revision is
            unfinished or fails.
    """
    for revision in all_revisions():
        # What its downgrade lacks concerns only its file for psql.
        upgrade = collect_upgrade(script_directory().get_revision(revision).module)
        require_values(upgrade.steps if upgrade else (), revision_file(revision))
    engine = unpooled_engine(url)
    with connect(engine) as connection:
        existing = existing_tables(connection, TABLES_AND_VIEWS)
    if existing:
        raise RevisionError(
            f"The {describe_database(url)} already contains {', '.join(existing)}, but manifests are written from an "
            "empty database. Create another one with createdb."
        )
    written = []
    for revision in all_revisions():
        with connect(engine) as connection, _naming_the_file(revision), connection.begin():
            # Not `upgrade`, which compares the result with the manifest that this replaces.
            run_in_transaction(connection, "upgrade", revision)
            tables = [name for name in existing_tables(connection, TABLES_AND_VIEWS) if name != VERSION_TABLE]
            schema = _without_partitions(introspect(connection, tables).schema)
        path = directory / f"{revision}.json"
        path.write_text(format_manifest(revision, schema), encoding="utf-8")
        written.append(path)
    return written


@contextmanager
def _naming_the_file(revision: str) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        reason = server_message(error)
        raise RevisionError(
            f"{revision_file(revision)}: its upgrade fails: {reason}. Correct it, and run this again."
        ) from error


def _without_partitions(schema: Schema) -> Schema:
    """Return `schema` without the partitions, which belong to their tables and are made by month."""
    return replace(schema, tables={name: table for name, table in schema.tables.items() if table.kind != "partition"})
