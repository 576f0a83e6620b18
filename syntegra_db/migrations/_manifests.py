"""Write the manifest of each revision from an empty database that is migrated step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import existing_tables, format_manifest, introspect
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import RevisionError
from syntegra_db.migrations._commands import upgrade
from syntegra_db.revisions import VERSION_TABLE, all_revisions
from syntegra_db.settings import describe_database

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import URL

TABLES_AND_VIEWS = "rpvmf"


def write_manifests(url: URL, directory: Path) -> list[Path]:
    """Migrate the empty database at `url` revision by revision, and write the manifest of each to `directory`.

    Raises:
        RevisionError: the database is not empty, so that its tables might not be the revisions' own.
    """
    engine = unpooled_engine(url)
    with connect(engine) as connection:
        there = existing_tables(connection, TABLES_AND_VIEWS)
    if there:
        raise RevisionError(
            f"The {describe_database(url)} already holds {', '.join(there)}; manifests are made from an empty one. "
            "Create another: createdb …"
        )
    written = []
    for revision in all_revisions():
        upgrade(revision, url)
        with connect(engine) as connection:
            tables = [name for name in existing_tables(connection, TABLES_AND_VIEWS) if name != VERSION_TABLE]
            shape = introspect(connection, tables).schema
        path = directory / f"{revision}.json"
        path.write_text(format_manifest(revision, shape), encoding="utf-8")
        written.append(path)
    return written
