"""README.md: its Python examples run, and its table explains every exit status."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from support.commands import ROOT, run
from syntegra_db import errors

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

README = (ROOT / "README.md").read_text(encoding="utf-8")
# The statuses of wrong usage and of Ctrl-C.
OTHER_STATUSES = {2, 129, 130, 141, 143}
SPANISH = "docs/es/migraciones.md"


# The second example expects these two from an embedding model.
EMBEDDED = """
embedded_texts = [("todo bien", [1.0] * 384), ("nada bien", [1.0, -1.0] * 192), ("casi bien", [1.0] * 383 + [0.0])]
embedded_question = [1.0] * 384
"""


def blocks() -> list[str]:
    """The Python examples of the README: a service, loading and searching, a client."""
    return re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def service() -> str:
    return blocks()[0]


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
    _, code, _ = blocks()
    result = run("python", "-W", "error", "-c", EMBEDDED + code, url=database.environment_url, cwd=tmp_path)
    expected = "3 texts loaded\n0.00 todo bien\n0.00 casi bien\n1.00 nada bien\n"
    assert (result.returncode, result.stdout) == (0, expected), result.stderr


def test_example_with_a_client_stores_its_row(database: Database, tmp_path: Path) -> None:
    *_, code = blocks()
    result = run("python", "-W", "error", "-c", code, url=database.environment_url, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert database.query("SELECT client_id FROM clusters") == [(7,)]


@pytest.mark.parametrize(
    ("page", "header", "others"), [("README.md", "Status", OTHER_STATUSES), (SPANISH, "Estado", {0, *OTHER_STATUSES})]
)
def test_table_of_page_explains_every_exit_status(page: str, header: str, others: set[int]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    [table] = re.findall(rf"^\| {header} \|.*\n\| --- .*\n((?:\|.*\n)+)", text, re.MULTILINE)
    explained = [int(line.split("|")[1]) for line in table.splitlines()]
    assert explained == sorted(exit_statuses(errors.SyntegraDBError) | others)


def exit_statuses(error: type[errors.SyntegraDBError]) -> set[int]:
    return {error.exit_status}.union(*(exit_statuses(kind) for kind in error.__subclasses__()))
