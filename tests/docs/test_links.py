"""The documentation: its links, targets of the Makefile and commands exist."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
import typer

from support.commands import ROOT
from syntegra_db.cli import app
from tools.site.anchors import anchors

if TYPE_CHECKING:
    from pathlib import Path

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")
TARGET = re.compile(r"^([a-z0-9.-]+):", re.MULTILINE)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_links_of_page_lead_to_files_and_headings(page: Path) -> None:
    for path, fragment in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / unquote(path)).resolve() if path else page
        assert target.exists(), path
        if fragment:
            assert fragment in anchors(target.read_text(encoding="utf-8")), f"{path}#{fragment}"


@each_page
def test_make_targets_in_page_exist(page: Path) -> None:
    targets = set(TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    named = re.findall(r"(?:`|^ *|=\d+ )make ([a-z0-9-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= targets


@each_page
def test_commands_in_page_exist(page: Path) -> None:
    root = typer.main.get_command(app)
    named = re.findall(r"(?:`|^ *)syntegra-db ([a-z]+)(?: ([a-z]+))?", page.read_text(encoding="utf-8"), re.MULTILINE)
    if page.name == "commands.md":  # generated: it also shows a group without its commands
        named = [(name, inner) for name, inner in named if inner]
    for name, inner in named:
        command = getattr(root, "commands", {}).get(name)
        assert command is not None, name
        assert name not in {"local", "vectors"} or inner in command.commands, inner
