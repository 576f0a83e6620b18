"""Render what each revision changes, from the manifests, for docs/schema.md and in Spanish for the operators' guide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syntegra_db.catalog import load_manifest
from syntegra_db.migrations import render_sql_script
from syntegra_db.migrations.authoring import kept_alike
from syntegra_db.revisions import all_revisions, script_directory
from tools.sections import markdown_table, with_section

if TYPE_CHECKING:
    from syntegra_db.catalog import Schema

GUIDE = "docs/es/migraciones.md"
# The guide describes the revisions up to this one by hand.
DESCRIBED = "003"
SPANISH = {
    "adds": "añade",
    "renames": "renombra",
    "to": "a",
    "both are kept alike": "ambas se mantienen iguales",
    "drops": "elimina",
    "changes": "cambia",
    "type": "tipo",
    "table": "tabla",
    "column": "columna",
    "constraint": "restricción",
    "index": "índice",
}

Objects = dict[tuple[str, str], object]


def guide() -> str:
    """Return the Spanish guide with a table of the revisions that it does not describe by hand."""
    rows = [
        (revision, changes(revision, SPANISH), f"`migrations/{render_sql_script(revision).name}`")
        for revision in all_revisions()
        if revision > DESCRIBED
    ]
    table = markdown_table(("Revisión", "Qué cambia", "Archivo para `psql`"), rows)
    return with_section(GUIDE, "revisions", table if rows else f"La {DESCRIBED} es la revisión más reciente.")


def table() -> str:
    """Return the table of docs/schema.md: each revision, its purpose and what it changes."""
    rows = [
        (revision, script_directory().get_revision(revision).doc, changes(revision)) for revision in all_revisions()
    ]
    return markdown_table(("Revision", "Purpose", "Changes"), rows)


def changes(revision: str, words: dict[str, str] | None = None) -> str:
    """Return the objects that a revision adds, drops and changes, in English or in other `words`."""
    words = words or {}
    known = [None, *all_revisions()]
    before, after = load_manifest(known[known.index(revision) - 1]), load_manifest(revision)
    tables = before.tables.keys() & after.tables.keys()
    old, new = objects(before, tables), objects(after, tables)
    groups = {
        "adds": new.keys() - old.keys(),
        "drops": old.keys() - new.keys(),
        "changes": {key for key in old.keys() & new.keys() if old[key] != new[key]},
    }
    renamed = sorted(kept_alike(revision) - kept_alike(known[known.index(revision) - 1]))
    groups["adds"] -= {("column", f"{table}.{column}") for table, *columns in renamed for column in columns}
    parts = [
        f"{words.get('renames', 'renames')} {words.get('column', 'column')} `{table}.{old}` {words.get('to', 'to')} "
        f"`{table}.{new}` ({words.get('both are kept alike', 'both are kept alike')})"
        for table, old, new in renamed
    ]
    parts += [
        f"{words.get(verb, verb)} {', '.join(f'{words.get(kind, kind)} `{name}`' for kind, name in sorted(keys))}"
        for verb, keys in groups.items()
        if keys
    ]
    return "; ".join(parts)


def objects(schema: Schema, detailed: set[str]) -> Objects:
    """Return the definitions of the types and tables by kind and name, and of the parts of the tables in `detailed`."""
    found: Objects = {("type", name): labels for name, labels in schema.types.items()}
    for name, table in schema.tables.items():
        found["table", name] = (table.kind, table.comment)
        if name in detailed:
            found |= {("column", f"{name}.{column}"): attributes for column, attributes in table.columns.items()}
            found |= {("constraint", constraint): definition for constraint, definition in table.constraints.items()}
            found |= {("index", index): definition for index, definition in table.indexes.items()}
    return found
