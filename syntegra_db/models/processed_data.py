"""The table processed_data: normalised records of clients' data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from syntegra_db.models.base import Base, SourceMixin, source_foreign_key, source_primaryjoin
from syntegra_db.models.types import JSON_TYPE, BigSerial, ClientId, SourceId, TimestampNow

if TYPE_CHECKING:
    from datetime import datetime
    from typing import TypedDict, Unpack

    from syntegra_db.models.data_sources import DataSource
    from syntegra_db.models.types import ColumnValue

    class ProcessedDataValues(TypedDict, total=False):
        """Arguments of the constructor of `ProcessedData`."""

        id: ColumnValue[int]
        client_id: ColumnValue[int]
        source_id: ColumnValue[int | None]
        source_type: ColumnValue[str]
        data: ColumnValue[dict[str, Any]]
        created_at: ColumnValue[datetime]
        source: DataSource | None


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

    id: Mapped[BigSerial]
    client_id: Mapped[ClientId]
    source_id: Mapped[SourceId | None]
    source_type: Mapped[str] = mapped_column(
        String(50), comment="Business type, such as restaurant, retail or service (open set)"
    )
    data: Mapped[dict[str, Any]] = mapped_column(JSON_TYPE, comment="Normalised record")
    created_at: Mapped[TimestampNow] = mapped_column(comment="Time when the row was inserted")

    source: Mapped[DataSource | None] = relationship(
        primaryjoin=source_primaryjoin("ProcessedData"), back_populates="processed_data", lazy="raise"
    )

    if TYPE_CHECKING:

        def __init__(self, **values: Unpack[ProcessedDataValues]) -> None: ...
