"""What each revision should hold: its manifest, written from a migrated database and kept as package data."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

from syntegra_db.catalog._schema import Column, Schema, Table, schema_from_dict
from syntegra_db.revisions import all_revisions

MANIFESTS = Path(__file__).with_name("manifests")
# Below a table, columns stand one a line, and so do definitions.
EXPANDED_LEVELS = 4


@cache
def load_manifest(revision: str | None) -> Schema:
    """Return what a database at `revision` should hold: nothing before the first one."""
    if revision is None:
        return Schema()
    manifest = json.loads((MANIFESTS / f"{revision}.json").read_text(encoding="utf-8"))
    return schema_from_dict(manifest["types"], manifest["tables"])


def managed_tables() -> list[str]:
    """Return the tables of all revisions, in the order of the revisions."""
    return list(dict.fromkeys(name for revision in all_revisions() for name in load_manifest(revision).tables))


def managed_types() -> list[str]:
    """Return the ENUM types of all revisions, in the order of the revisions."""
    return list(dict.fromkeys(name for revision in all_revisions() for name in load_manifest(revision).types))


def format_manifest(revision: str, schema: Schema) -> str:
    """Return the text of a manifest: names in a stable order, one column, index or constraint a line."""
    manifest = {"revision": revision, "types": schema.types, "tables": _tables(schema)}
    return f"{_json(manifest)}\n"


def _tables(schema: Schema) -> dict[str, dict[str, Any]]:
    return {
        name: {
            **_non_default_attributes(table),
            "columns": {column: _non_default_attributes(attributes) for column, attributes in table.columns.items()},
        }
        for name, table in schema.tables.items()
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
