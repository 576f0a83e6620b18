"""Anomalies that were found in KPIs."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Double, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from syntegra_db.models.base import Base, finite_check, source_foreign_key, source_primaryjoin
from syntegra_db.models.types import (
    JSON_TYPE,
    BigSerial,
    ClientId,
    FiniteNumeric,
    SourceId,
    TimestampNow,
    pg_enum,
)

if TYPE_CHECKING:
    from syntegra_db.models.data_sources import DataSource


class AnomalySeverity(StrEnum):
    """How serious an anomaly is, mildest first: in SQL, `severity >= 'high'` follows this order."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class AnomalyLog(Base):
    """A value of a client's KPI that was not expected."""

    __tablename__ = "anomaly_log"
    __table_args__ = (
        source_foreign_key(__tablename__),
        finite_check("value"),
        finite_check("expected_value"),
        Index("idx_anomaly_log_client_kpi", "client_id", "kpi_name"),
        Index("idx_anomaly_log_client_id", "client_id"),
        Index("idx_anomaly_log_source_id", "source_id"),
        Index("idx_anomaly_log_kpi_name", "kpi_name"),
        Index("idx_anomaly_log_detected_at", "detected_at"),
        Index("idx_anomaly_log_severity", "severity"),
        {"comment": "Values of KPIs that were not expected"},
    )

    id: Mapped[BigSerial]
    client_id: Mapped[ClientId]
    source_id: Mapped[SourceId | None]
    kpi_name: Mapped[str] = mapped_column(String(255), comment="Name of the KPI that the anomaly was found in")
    detected_at: Mapped[TimestampNow] = mapped_column(comment="When the anomaly was detected")
    value: Mapped[FiniteNumeric] = mapped_column(comment="Value that was not expected, in the unit of the KPI; finite")
    expected_value: Mapped[FiniteNumeric | None] = mapped_column(
        comment="Value that was expected, in the unit of the KPI; finite"
    )
    deviation: Mapped[float | None] = mapped_column(
        Double, comment="Distance of the value from the expected one, in standard deviations"
    )
    reason: Mapped[str | None] = mapped_column(Text, comment="What the anomaly is, in words")
    severity: Mapped[AnomalySeverity] = mapped_column(
        pg_enum(AnomalySeverity, "anomaly_severity"),
        server_default=AnomalySeverity.MEDIUM.value,
        comment="How serious the anomaly is",
    )
    method: Mapped[str | None] = mapped_column(String(100), comment="Method that detected the anomaly")
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata", JSON_TYPE, comment="What else is known about the anomaly"
    )

    source: Mapped[DataSource | None] = relationship(
        primaryjoin=source_primaryjoin("AnomalyLog"), back_populates="anomalies", lazy="raise"
    )
