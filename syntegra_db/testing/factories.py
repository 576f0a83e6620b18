"""Factories of valid rows of all models, with their related data: each run of a test gets the same rows.

`KpiSummaryFactory.build(client_id=7)` returns a new row, `KpiSummaryFactory.batch(5)` several, and `add` inserts them.
Rows of a data source get a new one of their client, or the one of `source=`, or none with `source=None`.
"""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Any

from polyfactory import PostGenerated

from syntegra_db.models import (
    EMBEDDING_DIMENSIONS,
    AnomalyLog,
    AnomalySeverity,
    Cluster,
    KpiSummary,
    ProcessedData,
    TextSummary,
    TrendSignal,
    TrendStatus,
)
from syntegra_db.testing import _seeds
from syntegra_db.testing._factory_bases import (
    DataSourceFactory,
    ModelFactory,
    PeriodFactory,
    Row,
    SourcedFactory,
    random_amount,
    random_time,
    same_as_created,
)

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

__all__ = [
    "AnomalyLogFactory",
    "ClusterFactory",
    "DataSourceFactory",
    "KpiSummaryFactory",
    "ModelFactory",
    "PeriodFactory",
    "ProcessedDataFactory",
    "SourcedFactory",
    "TextSummaryFactory",
    "TrendSignalFactory",
    "add",
    "async_add",
    "seed",
]

KPIS = ("sales_mom", "avg_ticket", "orders", "returning_customers", "margin")
SECTORS = ("restaurant", "retail", "service")
WORDS = ("precio", "servicio", "calidad", "entrega", "atención", "menú", "tienda", "espera")


class ProcessedDataFactory(SourcedFactory[ProcessedData]):
    """Factory of normalised records."""

    __model__ = ProcessedData

    @classmethod
    def source_type(cls) -> str:
        """Return a business type."""
        return cls.__random__.choice(SECTORS)

    @classmethod
    def data(cls) -> dict[str, Any]:
        """Return a sale."""
        return {"product": cls.__random__.choice(WORDS), "amount": cls.__random__.randrange(1, 1_000)}


class KpiSummaryFactory(SourcedFactory[KpiSummary], PeriodFactory[KpiSummary]):
    """Factory of KPI values over 30 days."""

    __model__ = KpiSummary

    @classmethod
    def kpi_name(cls) -> str:
        """Return the name of a KPI."""
        return cls.__random__.choice(KPIS)

    @classmethod
    def kpi_value(cls) -> Decimal:
        """Return an amount with two decimals."""
        return random_amount(cls)

    @classmethod
    def calculated_at(cls) -> datetime:
        """Return a time in 2025."""
        return random_time(cls)


class AnomalyLogFactory(SourcedFactory[AnomalyLog]):
    """Factory of anomalies of any severity."""

    __model__ = AnomalyLog
    method = "zscore"

    @classmethod
    def kpi_name(cls) -> str:
        """Return the name of a KPI."""
        return cls.__random__.choice(KPIS)

    @classmethod
    def detected_at(cls) -> datetime:
        """Return a time in 2025."""
        return random_time(cls)

    @classmethod
    def value(cls) -> Decimal:
        """Return an amount with two decimals."""
        return random_amount(cls)

    @classmethod
    def expected_value(cls) -> Decimal:
        """Return an amount with two decimals."""
        return random_amount(cls)

    @classmethod
    def deviation(cls) -> float:
        """Return 3 to 10 standard deviations."""
        return cls.__random__.uniform(3, 10)

    @classmethod
    def reason(cls) -> str:
        """Return a text."""
        return f"Unexpected {cls.__random__.choice(KPIS)}"

    @classmethod
    def severity(cls) -> AnomalySeverity:
        """Return a severity."""
        return cls.__random__.choice(list(AnomalySeverity))


class TextSummaryFactory(SourcedFactory[TextSummary]):
    """Factory of analysed texts with embeddings of length 1."""

    __model__ = TextSummary
    language = "es"

    @classmethod
    def text_field(cls) -> str:
        """Return some words."""
        return " ".join(cls.__random__.choices(WORDS, k=8))

    @classmethod
    def sentiment(cls) -> str:
        """Return a sentiment."""
        return cls.__random__.choice(("positive", "neutral", "negative"))

    @classmethod
    def sentiment_score(cls) -> float:
        """Return a score from 0 to 1."""
        return cls.__random__.random()

    @classmethod
    def keywords(cls) -> list[str]:
        """Return two words."""
        return cls.__random__.sample(WORDS, 2)

    @classmethod
    def embedding(cls) -> list[float]:
        """Return a random direction, in the single precision that the server stores."""
        numbers = [cls.__random__.gauss(0, 1) for _ in range(EMBEDDING_DIMENSIONS)]
        length = math.hypot(*numbers)
        return array("f", (number / length for number in numbers)).tolist()


class ClusterFactory(ModelFactory[Cluster]):
    """Factory of assignments to one of five clusters."""

    __model__ = Cluster
    updated_at = PostGenerated(same_as_created)

    @classmethod
    def cluster_id(cls) -> int:
        """Return the number of a cluster."""
        return cls.__random__.randrange(5)

    @classmethod
    def cluster_name(cls) -> str:
        """Return a name."""
        return f"Cluster {cls.__random__.choice(SECTORS)}"

    @classmethod
    def features_json(cls) -> dict[str, Any]:
        """Return two features."""
        return {"orders": cls.__random__.randrange(1_000), "avg_ticket": cls.__random__.randrange(100)}

    @classmethod
    def centroid(cls) -> list[float]:
        """Return the coordinates of two features."""
        return [cls.__random__.random(), cls.__random__.random()]

    @classmethod
    def distance_to_centroid(cls) -> float:
        """Return a distance from 0 to 1."""
        return cls.__random__.random()

    @classmethod
    def silhouette_score(cls) -> float:
        """Return a score from -1 to 1."""
        return cls.__random__.uniform(-1, 1)


class TrendSignalFactory(PeriodFactory[TrendSignal]):
    """Factory of trends over 30 days."""

    __model__ = TrendSignal

    @classmethod
    def sector(cls) -> str:
        """Return a sector."""
        return cls.__random__.choice(SECTORS)

    @classmethod
    def term(cls) -> str:
        """Return a word."""
        return cls.__random__.choice(WORDS)

    @classmethod
    def frequency(cls) -> int:
        """Return a number of occurrences."""
        return cls.__random__.randrange(1_000)

    @classmethod
    def delta_pct(cls) -> float:
        """Return a change of at most 100 percent."""
        return cls.__random__.uniform(-100, 100)

    @classmethod
    def status(cls) -> TrendStatus:
        """Return a status."""
        return cls.__random__.choice(list(TrendStatus))


def add(session: Session, factory: type[ModelFactory[Row]], count: int = 1, **values: Any) -> list[Row]:
    """Insert `count` rows of `factory` with `values` in the session's transaction, and return them with their `id`.

    Those of a data source share one. The caller commits.
    """
    rows = factory.batch(count, **values)
    session.add_all(rows)
    session.flush()
    return rows


async def async_add(
    session: AsyncSession,
    factory: type[ModelFactory[Row]],
    count: int = 1,
    **values: Any,
) -> list[Row]:
    """Do the same as `add` under asyncio."""
    rows = factory.batch(count, **values)
    session.add_all(rows)
    await session.flush()
    return rows


def seed(number: int) -> None:
    """Let the factories build the same rows after each call with the same `number`.

    The plugin calls it before each test, with a number that depends only on the name of the test.
    """
    ModelFactory.seed_random(number)


seed(_seeds.current())
