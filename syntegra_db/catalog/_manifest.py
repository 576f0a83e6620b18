"""The declared schema of each revision: its manifest, generated from a migrated database and kept as package data."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syntegra_db.catalog._schema import Column, Schema, Table
from syntegra_db.errors import RevisionError
from syntegra_db.revisions import all_revisions

if TYPE_CHECKING:
    from collections.abc import Iterable

MANIFESTS = Path(__file__).with_name("manifests")
"""The folder with the declared schema of each revision, one file per revision."""
# Columns, indexes and constraints have one line each.
EXPANDED_LEVELS = 4


@cache
def load_manifest(revision: str | None) -> Schema:
    """Return the declared schema of `revision`; it is empty for None.

    Raises:
        RevisionError: the revision is new in a checkout, and its manifest was not written yet.
    """
    if revision is None:
        return Schema()
    path = _manifest_path(revision)
    if not path.exists():
        raise RevisionError(f"Revision {revision} has no manifest {path}. Write it: make generate")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    return Schema(
        types={name: tuple(labels) for name, labels in manifest["types"].items()},
        tables={name: _table(**attributes) for name, attributes in manifest["tables"].items()},
    )


def _table(columns: dict[str, dict[str, str]], **attributes: Any) -> Table:
    return Table(columns={name: Column(**column) for name, column in columns.items()}, **attributes)


def _manifest_path(revision: str) -> Path:
    return MANIFESTS / f"{revision}.json"


def written_manifests() -> dict[str, Schema]:
    """Return the declared schema of each revision that has its manifest, oldest first."""
    return {revision: load_manifest(revision) for revision in all_revisions() if _manifest_path(revision).exists()}


def managed_tables() -> list[str]:
    """Return the tables of all manifests, in the order of the revisions."""
    return list(dict.fromkeys(name for manifest in written_manifests().values() for name in manifest.tables))


def declared_sequences(revisions: Iterable[str | None]) -> dict[str, list[str]]:
    """Return the tables that one of `revisions` declares, each with its sequences; one without a manifest has none."""
    manifests, sequences = written_manifests(), dict[str, list[str]]()
    for revision in revisions:
        for name, table in manifests.get(revision or "", Schema()).tables.items():
            sequences[name] = [*dict.fromkeys([*sequences.get(name, ()), *table.sequences])]
    return sequences


def tables_with_vectors() -> set[str]:
    """Return the tables of all manifests that have a column of the type `vector`."""
    return {
        name
        for manifest in written_manifests().values()
        for name, table in manifest.tables.items()
        if any(column.type.startswith("vector") for column in table.columns.values())
    }


def managed_types() -> list[str]:
    """Return the ENUM types of all manifests, in the order of the revisions."""
    return list(dict.fromkeys(name for manifest in written_manifests().values() for name in manifest.types))


def format_manifest(revision: str, schema: Schema) -> str:
    """Return the text of a manifest, with one line per column, index and constraint."""
    tables = {
        name: {
            **_non_default_attributes(table),
            "columns": {column: _non_default_attributes(attributes) for column, attributes in table.columns.items()},
        }
        for name, table in schema.tables.items()
    }
    return f"{_json({'revision': revision, 'types': schema.types, 'tables': tables})}\n"


def _non_default_attributes(part: Table | Column) -> dict[str, Any]:
    defaults = {attribute.name: attribute.default for attribute in fields(part) if attribute.compare}
    values = asdict(part)
    return {name: values[name] for name, default in defaults.items() if values[name] and values[name] != default}


def _json(value: Any, level: int = 0) -> str:
    if not isinstance(value, dict) or level >= EXPANDED_LEVELS:
        return json.dumps(value, ensure_ascii=False)
    indent = "  " * level
    lines = [f"{indent}  {json.dumps(name)}: {_json(item, level + 1)}" for name, item in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}" if lines else "{}"
