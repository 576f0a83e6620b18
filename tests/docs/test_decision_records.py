"""The index of the architecture decision records."""

from __future__ import annotations

import re

from support.commands import ROOT

RECORDS = ROOT / "docs/adr"


def test_index_lists_every_record_once() -> None:
    listed = re.findall(r"^\| \[\d{4}\]\((\S+)\)", (RECORDS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == sorted(path.name for path in RECORDS.glob("[0-9]*.md"))
