"""The table anomaly_log: unexpected KPI values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column, relationship, validates

from syntegra_db.models.base import Base, SourceMixin, finite_check, source_foreign_key, source_primaryjoin
from syntegra_db.models.exact_types import ExactDouble, ExactEnum, ExactJson, ExactString, ExactText
from syntegra_db.models.types import BigSerial, ClientId, FiniteNumeric, OrderedEnum, SourceId, TimestampNow

if TYPE_CHECKING:
    from syntegra_db.models.data_sources import DataSource


class AnomalySeverity(OrderedEnum):
    """Severity of an anomaly, mildest first: `<`, `max` and `sorted` follow this order, as in SQL."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class AnomalyLog(SourceMixin, Base):
    """An unexpected value of a client's KPI."""

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
        {"comment": "Anomalous KPI values of clients"},
    )

    id: Mapped[BigSerial] = mapped_column()
    client_id: Mapped[ClientId] = mapped_column()
    source_id: Mapped[SourceId | None] = mapped_column()
    kpi_name: Mapped[str] = mapped_column(ExactString(255), comment="Name of the KPI with the anomaly")
    detected_at: Mapped[TimestampNow] = mapped_column(comment="Time when the anomaly was detected")
    value: Mapped[FiniteNumeric] = mapped_column(comment="Anomalous value, in the unit of the KPI; finite")
    expected_value: Mapped[FiniteNumeric | None] = mapped_column(
        comment="Expected value, in the unit of the KPI; finite"
    )
    deviation: Mapped[float | None] = mapped_column(
        ExactDouble, comment="Deviation from the expected value, in standard deviations"
    )
    reason: Mapped[str | None] = mapped_column(ExactText, comment="Description of the anomaly")
    severity: Mapped[AnomalySeverity] = mapped_column(
        ExactEnum(AnomalySeverity, "anomaly_severity"),
        server_default=AnomalySeverity.MEDIUM.value,
        comment="Severity, in ascending order: low, medium, high, critical",
    )
    method: Mapped[str | None] = mapped_column(ExactString(100), comment="Detection method")
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata", ExactJson, comment="Additional data about the anomaly"
    )

    source: Mapped[DataSource | None] = relationship(
        primaryjoin=source_primaryjoin("AnomalyLog"), back_populates="anomalies", lazy="raise"
    )

    @validates("severity")
    def _convert_label(self, _name: str, value: Any) -> Any:
        return AnomalySeverity.from_label(value)
