"""docs/es/migraciones.md quotes commands and messages word for word."""

from __future__ import annotations

import pytest

from support import operator_guide as guide
from support.commands import ROOT

GUIDE = (ROOT / "docs" / "es" / "migraciones.md").read_text(encoding="utf-8")
SOURCES = [file for pattern in ("*.py", "*.sql") for file in (ROOT / "syntegra_db").rglob(pattern)]


@pytest.mark.parametrize("command", [*guide.ORIGINAL_COMMANDS, *guide.ADDED_COMMANDS])
def test_guide_contains_command_word_for_word(command: str) -> None:
    assert command in [line.strip() for line in GUIDE.splitlines()]


@pytest.mark.parametrize(
    "message",
    [
        "No PostgreSQL server answers for ",
        "The server rejected user ",
        "The server has no ",
        "The lock was not obtained in ",
        " is still running",
        " is already applied",
    ],
)
def test_message_quoted_in_guide_exists_in_package(message: str) -> None:
    assert message in " ".join(GUIDE.split())
    assert any(message in file.read_text(encoding="utf-8") for file in SOURCES)
