"""The table trend_signals: terms and their frequency by sector and period."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column, validates

from syntegra_db.models.base import Base
from syntegra_db.models.exact_types import ExactDouble, ExactEnum, ExactInteger, ExactJson, ExactString
from syntegra_db.models.types import BigSerial, OrderedEnum, Timestamp, TimestampNow


class TrendStatus(OrderedEnum):
    """Direction of a trend, in the order of the ENUM type: `<`, `max` and `sorted` follow it, as in SQL."""

    EMERGENT = "emergent"
    STABLE = "stable"
    DECLINING = "declining"


class TrendSignal(Base):
    """The frequency of a term in a sector over a period. A row belongs to a sector, not to a client."""

    __tablename__ = "trend_signals"
    __table_args__ = (
        CheckConstraint("period_end >= period_start", name="period_order"),
        CheckConstraint("frequency >= 0", name="frequency_not_negative"),
        Index("idx_trend_signals_sector_term", "sector", "term"),
        Index("idx_trend_signals_period", "period_start", "period_end"),
        Index("idx_trend_signals_sector", "sector"),
        Index("idx_trend_signals_term", "term"),
        Index("idx_trend_signals_status", "status"),
        Index("idx_trend_signals_delta_pct", "delta_pct"),
        {"comment": "Frequency of terms and its change, by sector and period"},
    )

    id: Mapped[BigSerial] = mapped_column()
    sector: Mapped[str] = mapped_column(ExactString(255), comment="Business sector of the term")
    term: Mapped[str] = mapped_column(ExactString(255), comment="Term or keyword")
    period_start: Mapped[Timestamp] = mapped_column(comment="Start of the analysed period")
    period_end: Mapped[Timestamp] = mapped_column(comment="End of the analysed period")
    frequency: Mapped[int] = mapped_column(
        ExactInteger, server_default="0", comment="Number of occurrences of the term in the period; not negative"
    )
    delta_pct: Mapped[float | None] = mapped_column(
        ExactDouble, comment="Change in frequency from the previous period, in percent"
    )
    status: Mapped[TrendStatus] = mapped_column(
        ExactEnum(TrendStatus, "trend_status"),
        server_default=TrendStatus.STABLE.value,
        comment="Trend status: emergent, stable or declining",
    )
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata", ExactJson, comment="Additional data about the trend"
    )
    created_at: Mapped[TimestampNow] = mapped_column(comment="Time when the row was inserted")

    @validates("status")
    def _convert_label(self, _name: str, value: Any) -> Any:
        return TrendStatus.from_label(value)
