"""docs/schema.md is what docs/build_schema.py makes of the models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from commands import ROOT, run

if TYPE_CHECKING:
    from pathlib import Path

PAGE = ROOT / "docs" / "schema.md"


def test_the_page_matches_the_models() -> None:
    checked = run("python", "docs/build_schema.py", "--check")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("| `frequency` | integer |", "| `frequency` | bigint |", id="another type"),
        pytest.param("ivfflat (embedding", "hnsw (embedding", id="another index method"),
        pytest.param("`low`, `medium`", "`medium`, `low`", id="another order of labels"),
        pytest.param("|o--o{ kpi_summary", "||--o{ kpi_summary", id="another relationship in the diagram"),
    ],
)
def test_a_stale_page_is_noticed(before: str, after: str, tmp_path: Path) -> None:
    page = tmp_path / "schema.md"
    text = PAGE.read_text(encoding="utf-8")
    assert before in text
    page.write_text(text.replace(before, after), encoding="utf-8")
    checked = run("python", "docs/build_schema.py", "--check", str(page))
    assert checked.returncode == 1
    assert checked.stderr == f"{page} does not match the models; run `make docs`.\n"
    assert after in page.read_text(encoding="utf-8"), "a check writes nothing"


def test_a_page_that_is_not_there_is_noticed_and_written(tmp_path: Path) -> None:
    page = tmp_path / "schema.md"
    assert run("python", "docs/build_schema.py", "--check", str(page)).returncode == 1
    assert run("python", "docs/build_schema.py", str(page)).returncode == 0
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
