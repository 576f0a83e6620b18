"""docs/architecture.md: its picture follows the imports, and the names in its text exist."""

from __future__ import annotations

import re
from pkgutil import resolve_name

import pytest

from support.commands import ROOT
from tools import architecture

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TEXT = re.sub(r"<!-- generated.*<!-- end of imports -->", "", PAGE, flags=re.DOTALL)
OTHER_NAMES = {"ivfflat.probes", "hnsw.ef_search", "pyproject.toml"}
IMPORTS = architecture.find_imports()


def test_picture_contains_every_module_of_the_package() -> None:
    package = ROOT / "syntegra_db"
    modules = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert set(IMPORTS) == modules - {"__init__", "__main__"} | {"vectors.maintenance"}
    assert all(f"{architecture.node(name)}[" in PAGE for name in IMPORTS)


def test_picture_shows_arrows_in_one_direction_only() -> None:
    arrows = set(architecture.reduced(IMPORTS))
    assert ("cli", "adoption") in arrows
    assert ("cli", "errors") not in arrows, "it follows from other arrows"
    assert not {(imported, importer) for importer, imported in arrows} & arrows


def test_reduced_with_import_cycle_raises() -> None:
    with pytest.raises(ValueError, match="a imports itself through b"):
        list(architecture.reduced({"a": {"b"}, "b": {"a"}}))


def test_table_assigns_each_module_to_one_layer() -> None:
    modules = [name for layer in architecture.layers() for name in layer]
    assert sorted(modules) == sorted(IMPORTS)


def test_arrows_lead_to_lower_layers() -> None:
    number = {name: position for position, layer in enumerate(architecture.layers()) for name in layer}
    # The search and the maintenance of `vectors` share a place in the contract.
    assert [
        (importer, imported)
        for importer, imported in architecture.reduced(IMPORTS)
        if number[importer] >= number[imported] and (importer, imported) != ("vectors.maintenance", "vectors")
    ] == []


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([a-z_]+(?:\.\w+)+)(?:\(\))?`", TEXT)) - OTHER_NAMES))
def test_name_in_text_exists(name: str) -> None:
    if not name.endswith(".py"):
        resolve_name(f"syntegra_db.{name.removeprefix('syntegra_db.')}")


@pytest.mark.parametrize("row", re.findall(r"^\|.*`.*\|$", TEXT, re.MULTILINE))
def test_path_in_reading_list_exists(row: str) -> None:
    first, *others = re.findall(r"`([\w/.]+)`", row)
    assert (ROOT / first).exists()
    for path in others:
        bases = (ROOT, ROOT / "syntegra_db", (ROOT / first).parent)
        assert any((base / path).exists() for base in bases), path
