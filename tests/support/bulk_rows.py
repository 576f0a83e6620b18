"""Rows of every table for the tests of bulk loads, and the stored rows to compare them with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import inspect, select

from syntegra_db.models import (
    EMBEDDING_DIMENSIONS,
    AnomalyLog,
    AnomalySeverity,
    Base,
    Cluster,
    DataSource,
    KpiSummary,
    ProcessedData,
    TextSummary,
    TrendSignal,
    TrendStatus,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

START = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)
END = datetime(2026, 2, 1, tzinfo=timezone(timedelta(hours=-5)))
PERIOD = {"period_start": START, "period_end": END}
SECRET = "hunter2-is-the-password"  # noqa: S105  looked for in every error
JSON: Any = {"ñ": [1, 2.5, None, True, {"a": "\\ \t\n\"'"}], "": {}}


def embedding(seed: int) -> Any:
    """A vector of single precision."""
    return np.random.default_rng(seed).standard_normal(EMBEDDING_DIMENSIONS).astype(np.float32)


# Every column of every model but the id.
FULL: dict[type[Base], dict[str, Any]] = {
    DataSource: {
        "client_id": 7,
        "name": "caja ñandú",
        "type": "api_rest",
        "config_json": {"token": SECRET},
        "status": "error",
        "last_run_at": END,
        "created_at": START,
        "updated_at": END,
    },
    ProcessedData: {
        "client_id": 2**62,
        "source_id": None,
        "source_type": "retail",
        "data": JSON,
        "created_at": START,
    },
    KpiSummary: {
        "client_id": 7,
        "source_id": None,
        "kpi_name": "k" * 255,
        "kpi_value": Decimal("-12345678901234567890.000100"),
        **PERIOD,
        "calculated_at": START,
        "metadata_": JSON,
    },
    TextSummary: {
        "client_id": -7,
        "source_id": None,
        "text_field": "Muy bien \\. \t\n«ñ» 漢字 😀",
        "sentiment": "positive",
        "sentiment_score": 0.1,
        "keywords": ["precio", {"a": 1}],
        "embedding": embedding(1),
        "language": "pt",
        "created_at": START,
    },
    TrendSignal: {
        "sector": "retail",
        "term": "lino",
        **PERIOD,
        "frequency": 2**31 - 1,
        "delta_pct": float("inf"),
        "status": TrendStatus.DECLINING,
        "metadata_": None,
        "created_at": END,
    },
    Cluster: {
        "client_id": 7,
        "cluster_id": -(2**31),
        "cluster_name": None,
        "features_json": JSON,
        "centroid": [0.1, -1e300],
        "distance_to_centroid": 1e-300,
        "silhouette_score": -1,
        "created_at": START,
        "updated_at": END,
    },
    AnomalyLog: {
        "client_id": 7,
        "source_id": None,
        "kpi_name": "orders",
        "detected_at": END,
        "value": 3,
        "expected_value": 0.1 + 0.2,
        "deviation": -2.5,
        "reason": "",
        "severity": AnomalySeverity.CRITICAL,
        "method": "iqr",
        "metadata_": "a string",
    },
}


def kpi(client: int, value: Any = 1, **others: Any) -> dict[str, Any]:
    """A row of kpi_summary."""
    return {"client_id": client, "kpi_name": "avg_ticket", "kpi_value": value, **PERIOD, **others}


def stored(session: Session, model: type[Base]) -> list[dict[str, Any]]:
    """The rows of a table as the ORM reads them, by id and without it."""
    session.expire_all()
    names = [attribute.key for attribute in inspect(model).column_attrs if attribute.key != "id"]
    rows = session.scalars(select(model).order_by(inspect(model).primary_key[0]))
    return [{name: getattr(row, name) for name in names} for row in rows]
