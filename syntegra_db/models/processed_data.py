"""The table processed_data: normalised records of clients' data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column, relationship

from syntegra_db.models.base import Base, SourceMixin, source_foreign_key, source_primaryjoin
from syntegra_db.models.exact_types import ExactJson, ExactString
from syntegra_db.models.types import BigSerial, ClientId, SourceId, TimestampNow

if TYPE_CHECKING:
    from syntegra_db.models.data_sources import DataSource


class ProcessedData(SourceMixin, Base):
    """One normalised record of a client."""

    __tablename__ = "processed_data"
    __table_args__ = (
        source_foreign_key(__tablename__),
        Index("idx_processed_data_client_id", "client_id"),
        Index("idx_processed_data_source_id", "source_id"),
        Index("idx_processed_data_source_type", "source_type"),
        Index("idx_processed_data_created_at", "created_at"),
        {"comment": "Normalised records of clients"},
    )

    id: Mapped[BigSerial] = mapped_column()
    client_id: Mapped[ClientId] = mapped_column()
    source_id: Mapped[SourceId | None] = mapped_column()
    source_type: Mapped[str] = mapped_column(
        ExactString(50), comment="Business type, such as restaurant, retail or service (open set)"
    )
    data: Mapped[dict[str, Any]] = mapped_column(ExactJson, comment="Normalised record")
    created_at: Mapped[TimestampNow] = mapped_column(comment="Time when the row was inserted")

    source: Mapped[DataSource | None] = relationship(
        primaryjoin=source_primaryjoin("ProcessedData"), back_populates="processed_data", lazy="raise"
    )
