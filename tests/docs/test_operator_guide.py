"""docs/es/migraciones.md contains the commands that the other tests run, word for word."""

from __future__ import annotations

import pytest

from support import operator_guide as guide
from support.commands import ROOT


@pytest.mark.parametrize("command", [*guide.ORIGINAL_COMMANDS, *guide.ADDED_COMMANDS])
def test_guide_contains_command_word_for_word(command: str) -> None:
    text = (ROOT / "docs" / "es" / "migraciones.md").read_text(encoding="utf-8")
    assert command in [line.strip() for line in text.splitlines()]
