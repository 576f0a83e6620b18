"""The page on security names only tests that exist."""

from __future__ import annotations

import re

from support.commands import ROOT

NAMED_TEST = re.compile(r"`(tests/\w+/\w+\.py)::(\w+)`")


def test_every_named_test_exists() -> None:
    named = NAMED_TEST.findall((ROOT / "docs/security.md").read_text(encoding="utf-8"))
    assert named
    for path, name in named:
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), name


def test_every_threat_names_its_tests() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    for row in re.findall(r"^\| .+ \|$", page, re.MULTILINE)[2:]:
        assert NAMED_TEST.search(row), row
