"""mypy --strict accepts code that uses the models as documented, and refuses code that does not."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

GOOD = """
from decimal import Decimal

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session
from syntegra_db.models import AnomalyLog, AnomalySeverity, DataSource, TextSummary


def worst(session: Session, client_id: int) -> list[Decimal]:
    statement = select(AnomalyLog.value).where(
        AnomalyLog.client_id == client_id, AnomalyLog.severity >= AnomalySeverity.HIGH
    )
    return list(session.scalars(statement))


def embed(row: TextSummary) -> int:
    row.embedding = [0.0] * 384
    row.embedding = (0.0,) * 384
    row.embedding = np.zeros(384)
    return len(row.embedding)


def texts(session: Session, source: DataSource) -> list[TextSummary]:
    return list(session.scalars(source.text_summaries.select()))


def owner(row: TextSummary) -> DataSource | None:
    return row.source
"""
BAD = """
from syntegra_db.models import AnomalyLog


def severity(row: AnomalyLog) -> int:
    return row.severity
"""


def check(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "service.py"
    file.write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={folder / 'cache'}", str(file)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_mypy_accepts_a_service(tmp_path: Path) -> None:
    result = check(GOOD, tmp_path)
    assert result.returncode == 0, result.stdout


def test_mypy_refuses_a_wrong_type(tmp_path: Path) -> None:
    result = check(BAD, tmp_path)
    assert result.returncode == 1
    assert "AnomalySeverity" in result.stdout
