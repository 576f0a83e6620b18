"""Render the picture and the table of docs/architecture.md from the imports and docstrings of the code."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from typing import TYPE_CHECKING

import grimp

from tools.sections import ROOT, markdown_table, with_section

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "syntegra_db"
# Packages that the picture shows apart from their parent, because they are in another layer.
SUBPACKAGES = {"vectors.maintenance"}
ENTRY_POINT = "__main__"

Imports = dict[str, set[str]]


def render() -> str:
    """Return docs/architecture.md with the current picture and table."""
    return with_section("docs/architecture.md", "imports", f"{picture(find_imports())}\n\n{table()}")


def picture(imports: Imports) -> str:
    """Return a Mermaid diagram of the imports, without arrows that follow from other arrows."""
    lines = [f'  {node(name)}["{name}"]' for name in sorted(imports)]
    lines += [f"  {node(importer)} --> {node(imported)}" for importer, imported in reduced(imports)]
    return "\n".join(("```mermaid", "flowchart TD", *lines, "```"))


def table() -> str:
    """Return the modules from the top layer to the lowest, with the first sentence of their docstrings."""
    rows = [(str(number), f"`{name}`", first_line(name)) for number, layer in enumerate(layers(), 1) for name in layer]
    return markdown_table(("Layer", "Module", "Contents"), rows)


def find_imports() -> Imports:
    """Return, for each module in the picture, the modules that it imports at run time, inside functions too."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    imports: Imports = {}
    for module in graph.modules:
        importer = shown(module)
        if importer in {"", ENTRY_POINT}:
            continue
        imported = {shown(name) for name in graph.find_modules_directly_imported_by(module)}
        imports.setdefault(importer, set()).update(imported - {"", importer})
    return imports


def shown(module: str) -> str:
    """Return the name under which the picture shows a module: `catalog` for `syntegra_db.catalog._ddl`."""
    top, _, rest = module.removeprefix(PACKAGE).removeprefix(".").partition(".")
    subpackage = f"{top}.{rest.partition('.')[0]}"
    return subpackage if subpackage in SUBPACKAGES else top


def reduced(imports: Imports) -> Iterator[tuple[str, str]]:
    """Yield the imports that do not follow from others: with `a -> b -> c`, `a -> c` is left out.

    Raises:
        ValueError: The imports contain a cycle.
    """
    for importer, imported in sorted(imports.items()):
        indirect = set().union(*(reachable(imports, name) for name in imported))
        if importer in indirect:
            raise ValueError(f"{importer} imports itself through {', '.join(sorted(imported))}")
        yield from ((importer, name) for name in sorted(imported - indirect))


def reachable(imports: Imports, start: str) -> set[str]:
    """Return the modules that `start` imports, directly and indirectly."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = imports[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def layers() -> Iterator[list[str]]:
    """Yield the modules of each layer, as the import-linter contract in pyproject.toml lists them, top layer first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = [c for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    existing = set(find_imports())
    for layer in contract["layers"]:
        names = re.findall(r"[\w.]+", layer)
        modules = [name for name in names if name in existing]
        modules += [name for name in SUBPACKAGES if name.partition(".")[0] in modules]
        if modules:
            yield sorted(modules)


def first_line(name: str) -> str:
    """Return the first line of a module's docstring."""
    return (import_module(f"{PACKAGE}.{name}").__doc__ or "").partition("\n")[0]


def node(name: str) -> str:
    """Return the name of a module as a Mermaid identifier."""
    return name.replace(".", "_")
