"""Three example queries of a service; they are independent of the files of the demo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Double, func, select
from sqlalchemy.orm import aliased

from syntegra_db.models import KpiSummary, TextSummary, TrendSignal, TrendStatus

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session


@dataclass(frozen=True)
class LatestKpi:
    """The newest value of a KPI, in `unit`, for the period from `period_start` to `period_end`."""

    kpi_name: str
    value: Decimal
    unit: str | None
    period_start: datetime
    period_end: datetime


@dataclass(frozen=True)
class EmergentTrend:
    """An emergent term: `frequency` uses in the period, `delta_pct` percent more than in the previous one."""

    term: str
    delta_pct: float | None
    frequency: int
    period_start: datetime
    period_end: datetime


@dataclass(frozen=True)
class NearText:
    """A text and its cosine distance from the query text: 0 for the same direction, 2 for the opposite one."""

    text_id: int
    distance: float
    text: str
    sentiment: str | None
    language: str


def latest_kpis(session: Session, client_id: int) -> list[LatestKpi]:
    """Return each KPI of a client for its newest period, by name; the last calculated value is used."""
    newest_first = (KpiSummary.period_start.desc(), KpiSummary.calculated_at.desc(), KpiSummary.id.desc())
    rank = func.row_number().over(partition_by=KpiSummary.kpi_name, order_by=newest_first)
    ranked = select(KpiSummary.id, rank.label("rank")).where(KpiSummary.client_id == client_id).subquery()
    latest = (
        select(KpiSummary)
        .join(ranked, ranked.c.id == KpiSummary.id)
        .where(ranked.c.rank == 1)
        .order_by(KpiSummary.kpi_name)
    )
    return [
        LatestKpi(kpi.kpi_name, kpi.kpi_value, (kpi.metadata_ or {}).get("unit"), kpi.period_start, kpi.period_end)
        for kpi in session.scalars(latest)
    ]


def emergent_trends(session: Session, sector: str) -> list[EmergentTrend]:
    """Return the emergent trends of a sector in all periods, largest change first."""
    largest_change_first = (
        select(TrendSignal)
        .where(TrendSignal.sector == sector, TrendSignal.status == TrendStatus.EMERGENT)
        .order_by(TrendSignal.delta_pct.desc().nulls_last(), TrendSignal.period_start.desc(), TrendSignal.term)
    )
    return [
        EmergentTrend(trend.term, trend.delta_pct, trend.frequency, trend.period_start, trend.period_end)
        for trend in session.scalars(largest_change_first)
    ]


def nearest_texts(session: Session, text_id: int, limit: int = 5) -> list[NearText]:
    """Return the `limit` texts of the same client nearest to a stored text, by exact search, nearest first.

    The list is empty if the text does not exist or has no embedding.
    """
    query_text = aliased(TextSummary)
    distance: ColumnElement[float] = TextSummary.embedding.op("<=>", return_type=Double())(query_text.embedding)
    nearest_first = (
        select(
            TextSummary.id,
            distance.label("distance"),
            TextSummary.text_field,
            TextSummary.sentiment,
            TextSummary.language,
        )
        .join(query_text, query_text.client_id == TextSummary.client_id)
        .where(query_text.id == text_id, TextSummary.id != text_id, distance.is_not(None))
        # An order by the distance to a joined row never uses the vector index. The index was built on an empty table
        # and would miss neighbours; an exact scan of some hundred rows takes one millisecond.
        .order_by(distance, TextSummary.id)
        .limit(limit)
    )
    return [NearText(*row) for row in session.execute(nearest_first)]
