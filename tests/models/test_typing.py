"""mypy --strict and pyright accept code that uses the models as documented, and report code that does not."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from syntegra_db.models import Base

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow

GOOD = """
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
from sqlalchemy import MetaData, func, select
from sqlalchemy.orm import Session
from syntegra_db.models import (
    AnomalyLog,
    AnomalySeverity,
    Base,
    Cluster,
    DataSource,
    EmbeddingInput,
    KpiSummary,
    ProcessedData,
    TextSummary,
    TrendSignal,
    TrendStatus,
)
from syntegra_db.vectors import search

NOW = datetime.now(UTC)


def worst(session: Session, client_id: int) -> list[Decimal]:
    statement = select(AnomalyLog.value).where(
        AnomalyLog.client_id == client_id, AnomalyLog.severity >= AnomalySeverity.HIGH
    )
    return list(session.scalars(statement))


def rows(source: DataSource, values: dict[str, Any]) -> list[Base]:
    return [
        KpiSummary(),
        KpiSummary(id=1, client_id=7, kpi_name="x", kpi_value=Decimal(1), period_start=NOW, period_end=func.now()),
        KpiSummary(source=source, metadata_={"unit": "EUR"}),
        KpiSummary(source=None, source_id=None, metadata_=None),
        KpiSummary(**values),
        AnomalyLog(severity=AnomalySeverity.HIGH, deviation=1, expected_value=None),
        TextSummary(embedding=[0.0] * 384, keywords=["a", {"b": 1}]),
        TextSummary(embedding=[Decimal(0)] * 384),
        TextSummary(embedding="[0,1]"),
        TextSummary(embedding=np.zeros(384)),
        TrendSignal(status=TrendStatus.STABLE, frequency=3),
        Cluster(centroid=[1.0], features_json={}),
        DataSource(name="a", type="b", kpi_summaries=[KpiSummary()], anomalies=[]),
        ProcessedData(data={"orders": 1}),
    ]


def embed(session: Session, row: TextSummary, embedding: EmbeddingInput) -> int:
    row.embedding = [0.0] * 384
    row.embedding = (0.0,) * 384
    row.embedding = np.zeros(384)
    search(session, "[0,1]")
    search(session, embedding)
    return len(row.embedding or [])


def texts(session: Session, source: DataSource) -> list[TextSummary]:
    return list(session.scalars(source.text_summaries.select()))


def owner(row: TextSummary) -> DataSource | None:
    return row.source


def unit(row: KpiSummary) -> str:
    row.metadata = {"unit": "EUR"}
    return str(row.metadata["unit"])


def tables() -> list[MetaData]:
    return [KpiSummary.metadata, Base.metadata]


def order() -> AnomalySeverity:
    assert AnomalySeverity.HIGH > AnomalySeverity.LOW
    return max(sorted(AnomalySeverity))
"""

# Each line after the imports is an error; its word is in the report.
BAD = [
    ('KpiSummary(client_id="seven")', "client_id"),
    ('KpiSummary(kpi_label="x")', "kpi_label"),
    ('KpiSummary(client_id="seven", kpi_label="x")', "kpi_label"),
    ("KpiSummary(source=1)", "source"),
    ("KpiSummary(metadata_=1)", "metadata_"),
    ("KpiSummary(kpi_value=None)", "kpi_value"),
    ("KpiSummary(1)", ""),
    ('AnomalyLog(severity="worst")', "severity"),
    ("TextSummary(embedding=1)", "embedding"),
    ('TrendSignal(client_id="x")', "client_id"),
    ("DataSource(metadata={})", "metadata"),
    ("DataSource(kpi_summaries=[DataSource()])", "DataSource"),
    ("Cluster(centroid=1)", "centroid"),
    ('ProcessedData(data="x")', "data"),
    ("SEVERITY: int = AnomalyLog().severity", "AnomalySeverity"),
]


def mypy(file: Path) -> list[tuple[int, str]]:
    """The lines and messages of the errors that mypy reports."""
    options = ["--strict", "--output=json", f"--cache-dir={file.parent / 'cache'}"]
    reports = [
        json.loads(line) for line in run_checker("mypy", *options, str(file)).splitlines() if line.startswith("{")
    ]
    return [(report["line"], report["message"]) for report in reports if report["severity"] == "error"]


def pyright(file: Path) -> list[tuple[int, str]]:
    """The lines and messages of the errors that pyright reports."""
    output = run_checker("pyright", "--outputjson", f"--pythonpath={sys.executable}", str(file))
    return [
        (report["range"]["start"]["line"] + 1, report["message"])
        for report in json.loads(output)["generalDiagnostics"]
        if report["severity"] == "error"
    ]


def run_checker(*command: str) -> str:
    result = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert result.returncode in {0, 1}, result.stderr + result.stdout
    return result.stdout


@pytest.fixture(params=[mypy, pyright])
def check(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], list[tuple[int, str]]]:
    """Runs a type checker on code and returns the errors."""

    def check(code: str) -> list[tuple[int, str]]:
        file = tmp_path / "service.py"
        file.write_text(code, encoding="utf-8")
        errors: list[tuple[int, str]] = request.param(file)
        return errors

    return check


def copies_of_every_attribute() -> str:
    """A function for each model that passes every attribute of a row to the constructor."""
    lines = ["from syntegra_db.models import *"]
    for mapper in Base.registry.mappers:
        collections = {relation.key for relation in mapper.relationships if relation.uselist}
        names = [name for name in mapper.attrs.keys() if name not in collections]  # noqa: SIM118  not a mapping
        arguments = [f"{name}=row.{name}" for name in names] + [f"{name}=[]" for name in collections]
        model = mapper.class_.__name__
        lines.append(f"def copy_{model.lower()}(row: {model}) -> {model}: return {model}({', '.join(arguments)})")
    return "\n".join(lines)


def test_checker_accepts_a_service_and_every_attribute(check: Callable[[str], list[tuple[int, str]]]) -> None:
    assert len(list(Base.registry.mappers)) == 7
    assert check(f"{GOOD}\n\n{copies_of_every_attribute()}\n") == []


def test_checker_reports_unknown_names_and_wrong_types(check: Callable[[str], list[tuple[int, str]]]) -> None:
    errors = check("\n".join(["from syntegra_db.models import *", *(line for line, _ in BAD)]))
    assert {number for number, _ in errors} == {*range(2, 2 + len(BAD))}
    for number, (line, word) in enumerate(BAD, start=2):
        assert any(word in message for found, message in errors if found == number), line
