"""The table kpi_summary: KPI values of clients by period."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column, relationship

from syntegra_db.models.base import Base, SourceMixin, finite_check, source_foreign_key, source_primaryjoin
from syntegra_db.models.exact_types import ExactJson, ExactString
from syntegra_db.models.types import BigSerial, ClientId, FiniteNumeric, SourceId, Timestamp, TimestampNow

if TYPE_CHECKING:
    from syntegra_db.models.data_sources import DataSource


class KpiSummary(SourceMixin, Base):
    """The value of one KPI of a client over a period."""

    __tablename__ = "kpi_summary"
    __table_args__ = (
        source_foreign_key(__tablename__),
        finite_check("kpi_value"),
        CheckConstraint("period_end >= period_start", name="period_order"),
        Index("idx_kpi_summary_client_kpi_period", "client_id", "kpi_name", "period_start"),
        Index("idx_kpi_summary_client_id", "client_id"),
        Index("idx_kpi_summary_source_id", "source_id"),
        Index("idx_kpi_summary_kpi_name", "kpi_name"),
        Index("idx_kpi_summary_period_start", "period_start"),
        {"comment": "KPI values of clients by period"},
    )

    id: Mapped[BigSerial] = mapped_column()
    client_id: Mapped[ClientId] = mapped_column()
    source_id: Mapped[SourceId | None] = mapped_column()
    kpi_name: Mapped[str] = mapped_column(ExactString(255), comment="KPI name, such as sales_mom or avg_ticket")
    kpi_value: Mapped[FiniteNumeric] = mapped_column(comment="KPI value, in the unit of the KPI; finite")
    period_start: Mapped[Timestamp] = mapped_column(comment="Start of the period of the value")
    period_end: Mapped[Timestamp] = mapped_column(comment="End of the period of the value")
    calculated_at: Mapped[TimestampNow] = mapped_column(comment="Time when the value was calculated")
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata", ExactJson, comment="Additional data about the value, such as its unit"
    )

    source: Mapped[DataSource | None] = relationship(
        primaryjoin=source_primaryjoin("KpiSummary"), back_populates="kpi_summaries", lazy="raise"
    )
