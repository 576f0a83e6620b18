"""The table text_summary: texts of clients' customers with sentiment, keywords and embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import DDL, Index, event
from sqlalchemy.orm import Mapped, mapped_column, relationship

from syntegra_db.models.base import Base, SourceMixin, source_foreign_key, source_primaryjoin
from syntegra_db.models.exact_types import ExactDouble, ExactJson, ExactString, ExactText
from syntegra_db.models.types import (
    BigSerial,
    ClientId,
    Embedding,
    EmbeddingVector,
    SourceId,
    TimestampNow,
)

if TYPE_CHECKING:
    from sqlalchemy.sql.elements import SQLCoreOperations

    from syntegra_db.models.data_sources import DataSource
    from syntegra_db.models.types import EmbeddingInput

    class MappedEmbedding(Mapped[EmbeddingVector | None]):
        """An attribute that reads as numbers and accepts every form of an embedding."""

        def __set__(
            self, row: Any, value: SQLCoreOperations[EmbeddingVector | None] | EmbeddingInput | None
        ) -> None: ...

else:
    MappedEmbedding = Mapped[EmbeddingVector | None]


class TextSummary(SourceMixin, Base):
    """One analysed text with its sentiment, keywords and embedding."""

    __tablename__ = "text_summary"
    __table_args__ = (
        source_foreign_key(__tablename__),
        Index("idx_text_summary_client_id", "client_id"),
        Index("idx_text_summary_source_id", "source_id"),
        Index("idx_text_summary_sentiment", "sentiment"),
        Index("idx_text_summary_created_at", "created_at"),
        Index("idx_text_summary_keywords", "keywords", postgresql_using="gin"),
        Index(
            "idx_text_summary_embedding",
            "embedding",
            postgresql_using="ivfflat",
            postgresql_ops={"embedding": "vector_cosine_ops"},
            postgresql_with={"lists": 100},
        ),
        {"comment": "Analysed texts of clients with sentiment, keywords and embedding"},
    )

    id: Mapped[BigSerial] = mapped_column()
    client_id: Mapped[ClientId] = mapped_column()
    source_id: Mapped[SourceId | None] = mapped_column()
    text_field: Mapped[str] = mapped_column(ExactText, comment="Analysed text")
    sentiment: Mapped[str | None] = mapped_column(
        ExactString(50), comment="Detected sentiment, such as positive, neutral or negative (open set)"
    )
    sentiment_score: Mapped[float | None] = mapped_column(
        ExactDouble, comment="Sentiment strength, on the scale of the analysis method"
    )
    keywords: Mapped[list[Any] | dict[str, Any] | None] = mapped_column(
        ExactJson, comment="Keywords extracted from the text"
    )
    embedding: MappedEmbedding = mapped_column(  # type: ignore[assignment]  # typed more widely for assignments
        Embedding, comment="Embedding of the text: 384 dimensions, compared by cosine distance"
    )
    language: Mapped[str] = mapped_column(
        ExactString(10), server_default="es", comment="Language of the text, ISO 639-1 code"
    )
    created_at: Mapped[TimestampNow] = mapped_column(comment="Time when the row was inserted")

    source: Mapped[DataSource | None] = relationship(
        primaryjoin=source_primaryjoin("TextSummary"), back_populates="text_summaries", lazy="raise"
    )


# Stored in line, an exact scan of 50,000 rows was 3.4 times as fast. CREATE TABLE accepts STORAGE since version 16.
_SET_STORAGE_PLAIN = DDL("ALTER TABLE %(fullname)s ALTER COLUMN embedding SET STORAGE PLAIN")  # type: ignore[no-untyped-call]  # in SQLAlchemy 2.1
event.listen(TextSummary.__table__, "after_create", _SET_STORAGE_PLAIN)
