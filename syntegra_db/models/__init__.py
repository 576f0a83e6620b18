"""The models of the seven tables, one module per table.

Importing them opens no connection, reads no environment variable, and imports no other module of the package but facts
about pgvector.
"""

from syntegra_db.models.anomaly_log import AnomalyLog, AnomalySeverity
from syntegra_db.models.base import Base
from syntegra_db.models.clusters import Cluster
from syntegra_db.models.data_sources import DataSource
from syntegra_db.models.exact_types import InvalidValue
from syntegra_db.models.kpi_summary import KpiSummary
from syntegra_db.models.processed_data import ProcessedData
from syntegra_db.models.text_summary import TextSummary
from syntegra_db.models.trend_signals import TrendSignal, TrendStatus
from syntegra_db.models.types import EmbeddingInput, EmbeddingVector, InvalidEmbedding
from syntegra_db.pgvector_support import EMBEDDING_DIMENSIONS

__all__ = [
    "EMBEDDING_DIMENSIONS",
    "AnomalyLog",
    "AnomalySeverity",
    "Base",
    "Cluster",
    "DataSource",
    "EmbeddingInput",
    "EmbeddingVector",
    "InvalidEmbedding",
    "InvalidValue",
    "KpiSummary",
    "ProcessedData",
    "TextSummary",
    "TrendSignal",
    "TrendStatus",
]
