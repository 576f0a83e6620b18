"""README.md is short, and its Python examples and that of the guide to searches run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from support.commands import ROOT, run

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

README = ROOT / "README.md"
SEARCH = ROOT / "docs/guides/load-and-search.md"

# The example of the guide expects these two from an embedding model.
EMBEDDED = """
embedded_texts = [("todo bien", [1.0] * 384), ("nada bien", [1.0, -1.0] * 192), ("casi bien", [1.0] * 383 + [0.0])]
embedded_question = [1.0] * 384
"""


def examples(page: Path) -> list[str]:
    """Return the Python examples of a page; those of the README are a service and a client."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def service() -> str:
    return examples(README)[0]


def test_readme_has_what_a_newcomer_needs_in_150_lines() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < 150


def test_service_example_has_ten_lines() -> None:
    assert len([line for line in service().splitlines() if line]) == 10


def test_service_example_prints_serious_anomalies_of_its_client(database: Database, tmp_path: Path) -> None:
    database.execute(
        "INSERT INTO anomaly_log (client_id, kpi_name, value, severity) VALUES"
        " (7, 'sales_mom', -0.41, 'critical'), (7, 'avg_ticket', 11.5, 'low'), (8, 'avg_ticket', 2, 'high')"
    )
    result = run("python", "-W", "error", "-c", service(), url=database.environment_url, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "sales_mom -0.41 critical\n"), result.stderr


def test_service_example_on_database_without_revision_does_not_start(empty_database: Database, tmp_path: Path) -> None:
    result = run("python", "-c", service(), url=empty_database.environment_url, cwd=tmp_path)
    assert result.returncode == 1
    assert "DatabaseBehind" in result.stderr


def test_search_example_prints_texts_in_order_of_distance(database: Database, tmp_path: Path) -> None:
    [code] = examples(SEARCH)
    result = run("python", "-W", "error", "-c", EMBEDDED + code, url=database.environment_url, cwd=tmp_path)
    expected = "3 texts loaded\n0.00 todo bien\n0.00 casi bien\n1.00 nada bien\n"
    assert (result.returncode, result.stdout) == (0, expected), result.stderr


def test_example_with_a_client_stores_its_row(database: Database, tmp_path: Path) -> None:
    _, code = examples(README)
    result = run("python", "-W", "error", "-c", code, url=database.environment_url, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert database.query("SELECT client_id FROM clusters") == [(7,)]
