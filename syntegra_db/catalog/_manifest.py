"""What each revision should hold: its manifest, written from a migrated database and kept as package data."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from syntegra_db.catalog._introspection import introspect
from syntegra_db.catalog._schema import Column, Schema, Table, schema_from_dict
from syntegra_db.connections import connect, unpooled_engine
from syntegra_db.errors import RevisionError
from syntegra_db.revisions import VERSION_TABLE, script_directory
from syntegra_db.settings import describe_database

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

MANIFESTS = Path(__file__).with_name("manifests")
EXISTING_TABLES = text("""
    SELECT relname FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'p', 'v', 'm', 'f')
    ORDER BY relname
""")
# Below a table, columns stand one a line, and so do definitions.
EXPANDED_LEVELS = 4


def all_revisions() -> list[str]:
    """Return the revisions of this package, oldest first."""
    return [script.revision for script in reversed(list(script_directory().walk_revisions()))]


@cache
def load_manifest(revision: str | None) -> Schema:
    """Return what a database at `revision` should hold: nothing before the first one."""
    if revision is None:
        return Schema()
    manifest = json.loads((MANIFESTS / f"{revision}.json").read_text(encoding="utf-8"))
    return schema_from_dict(manifest["types"], manifest["tables"])


def format_manifest(revision: str, shape: Schema) -> str:
    """Return the text of a manifest: names in a stable order, one column, index or constraint a line."""
    manifest = {"revision": revision, "types": shape.types, "tables": _tables(shape)}
    return f"{_json(manifest)}\n"


def write_manifests(url: URL, directory: Path) -> list[Path]:
    """Migrate the empty database at `url` revision by revision, and write the manifest of each to `directory`.

    Raises:
        RevisionError: the database is not empty, so that its tables might not be the revisions' own.
    """
    from syntegra_db.migrations import upgrade

    engine = unpooled_engine(url)
    with connect(engine) as connection:
        there = _existing_tables(connection)
    if there:
        raise RevisionError(
            f"The {describe_database(url)} already holds {', '.join(there)}; manifests are made from an empty one. "
            "Create another: createdb …"
        )
    written = []
    for revision in all_revisions():
        upgrade(revision, url)
        with connect(engine) as connection:
            tables = [name for name in _existing_tables(connection) if name != VERSION_TABLE]
            shape = introspect(connection, tables).shape
        path = directory / f"{revision}.json"
        path.write_text(format_manifest(revision, shape), encoding="utf-8")
        written.append(path)
    return written


def _existing_tables(connection: Connection) -> list[str]:
    return list(connection.scalars(EXISTING_TABLES))


def _tables(shape: Schema) -> dict[str, dict[str, Any]]:
    return {
        name: {
            **_non_default_attributes(table),
            "columns": {column: _non_default_attributes(attributes) for column, attributes in table.columns.items()},
        }
        for name, table in shape.tables.items()
    }


def _non_default_attributes(part: Table | Column) -> dict[str, Any]:
    """Return the attributes that are not the usual ones: a plain table says only what it consists of."""
    usual = {attribute.name: attribute.default for attribute in fields(part)}
    return {name: value for name, value in asdict(part).items() if value and value != usual[name]}


def _json(value: Any, level: int = 0) -> str:
    if not isinstance(value, dict) or level >= EXPANDED_LEVELS:
        return json.dumps(value, ensure_ascii=False)
    indent = "  " * level
    lines = [f"{indent}  {json.dumps(name)}: {_json(item, level + 1)}" for name, item in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}" if lines else "{}"
