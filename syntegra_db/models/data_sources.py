"""The table data_sources: connectors that import clients' data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, WriteOnlyMapped, mapped_column, relationship

from syntegra_db.models.base import Base, source_primaryjoin
from syntegra_db.models.exact_types import ExactJson, ExactString
from syntegra_db.models.types import BigSerial, ClientId, Timestamp, TimestampNow

if TYPE_CHECKING:
    from syntegra_db.models.anomaly_log import AnomalyLog
    from syntegra_db.models.kpi_summary import KpiSummary
    from syntegra_db.models.processed_data import ProcessedData
    from syntegra_db.models.text_summary import TextSummary


class DataSource(Base):
    """A connector to external data, owned by one client.

    Its rows in other tables are write-only collections: `source.kpi_summaries.select()` returns a statement, and
    nothing is loaded implicitly. Deleting a data source keeps those rows; the server sets their `source_id` to NULL.
    """

    __tablename__ = "data_sources"
    __table_args__ = (
        UniqueConstraint("client_id", "id", name="uq_data_sources_client_id_id"),
        Index("idx_data_sources_client_id", "client_id"),
        Index("idx_data_sources_status", "status"),
        {"comment": "Connectors to the external data of clients"},
    )

    id: Mapped[BigSerial] = mapped_column()
    client_id: Mapped[ClientId] = mapped_column()
    name: Mapped[str] = mapped_column(ExactString(255), comment="Connector name, chosen by the client")
    type: Mapped[str] = mapped_column(
        ExactString(50), comment="Connector type, such as simple_csv or api_rest (open set)"
    )
    config_json: Mapped[dict[str, Any]] = mapped_column(
        ExactJson,
        server_default=text("'{}'"),
        comment="Connector settings; may contain credentials, so never display or log them",
    )
    status: Mapped[str] = mapped_column(
        ExactString(50), server_default="idle", comment="Connector status, such as idle, processing or error (open set)"
    )
    last_run_at: Mapped[Timestamp | None] = mapped_column(comment="Time of the last run; NULL before the first run")
    created_at: Mapped[TimestampNow] = mapped_column(comment="Time when the row was inserted")
    updated_at: Mapped[TimestampNow] = mapped_column(onupdate=func.now(), comment="Time when the row was last updated")

    processed_data: WriteOnlyMapped[ProcessedData] = relationship(
        primaryjoin=source_primaryjoin("ProcessedData"), back_populates="source", passive_deletes="all"
    )
    kpi_summaries: WriteOnlyMapped[KpiSummary] = relationship(
        primaryjoin=source_primaryjoin("KpiSummary"), back_populates="source", passive_deletes="all"
    )
    text_summaries: WriteOnlyMapped[TextSummary] = relationship(
        primaryjoin=source_primaryjoin("TextSummary"), back_populates="source", passive_deletes="all"
    )
    anomalies: WriteOnlyMapped[AnomalyLog] = relationship(
        primaryjoin=source_primaryjoin("AnomalyLog"), back_populates="source", passive_deletes="all"
    )
