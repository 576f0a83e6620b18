"""What the README promises in code and in numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from support.commands import ROOT, run
from syntegra_db import errors

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Database

README = (ROOT / "README.md").read_text(encoding="utf-8")
# What a command's own verdict, wrong usage and Ctrl-C end with.
OTHER_STATUSES = {2, 130}


# Of the second block, what a service has from its model.
EMBEDDED = """
embedded_texts = [("todo bien", [1.0] * 384), ("nada bien", [1.0, -1.0] * 192), ("casi bien", [1.0] * 383 + [0.0])]
embedded_question = [1.0] * 384
"""


def blocks() -> list[str]:
    """The Python blocks of the README: a service, then loading and searching."""
    return re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def service() -> str:
    return blocks()[0]


def test_the_service_is_ten_lines() -> None:
    assert len([line for line in service().splitlines() if line]) == 10


def test_the_service_prints_the_serious_anomalies_of_its_client(database: Database, tmp_path: Path) -> None:
    database.execute(
        "INSERT INTO anomaly_log (client_id, kpi_name, value, severity) VALUES"
        " (7, 'sales_mom', -0.41, 'critical'), (7, 'avg_ticket', 11.5, 'low'), (8, 'avg_ticket', 2, 'high')"
    )
    ran = run("python", "-W", "error", "-c", service(), url=database.environment_url, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "sales_mom -0.41 critical\n"), ran.stderr


def test_the_service_does_not_start_on_a_database_without_revision(empty_database: Database, tmp_path: Path) -> None:
    ran = run("python", "-c", service(), url=empty_database.environment_url, cwd=tmp_path)
    assert ran.returncode == 1
    assert "DatabaseBehind" in ran.stderr


def test_texts_are_loaded_and_searched(database: Database, tmp_path: Path) -> None:
    _, code = blocks()
    ran = run("python", "-W", "error", "-c", EMBEDDED + code, url=database.environment_url, cwd=tmp_path)
    expected = "3 texts loaded\n0.00 todo bien\n0.00 casi bien\n1.00 nada bien\n"
    assert (ran.returncode, ran.stdout) == (0, expected), ran.stderr


def test_every_exit_status_is_explained() -> None:
    explained = {int(status) for status in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert explained == exit_statuses(errors.SyntegraDBError) | OTHER_STATUSES


def exit_statuses(error: type[errors.SyntegraDBError]) -> set[int]:
    return {error.exit_status}.union(*(exit_statuses(kind) for kind in error.__subclasses__()))
