"""The example queries of the demo, checked against its files."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from demo.__main__ import GLUTEN_FREE_BREAD
from demo.load import Sector, client_id, read_embeddings, read_rows, sector_name
from demo.questions import emergent_trends, latest_kpis, nearest_texts
from support.demo_rows import load_once
from syntegra_db.models import KpiSummary, TextSummary

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
FEBRUARY = datetime(2026, 2, 1, tzinfo=UTC)
UNKNOWN_TEXT_ID = 10**12


@pytest.mark.parametrize("number", [1, 2, 3])
def test_latest_kpis_return_newest_period_of_each_kpi(sessions: sessionmaker[Session], number: int) -> None:
    load_once(sessions)
    rows = [row for row in read_rows("kpis") if row["client_id"] == str(number)]
    newest = {row["kpi_name"]: row for row in sorted(rows, key=lambda row: row["period_start"])}
    with sessions() as session:
        found = latest_kpis(session, client_id(number))
    assert [kpi.kpi_name for kpi in found] == sorted(newest)
    for kpi in found:
        row = newest[kpi.kpi_name]
        assert (kpi.value, kpi.unit) == (Decimal(row["kpi_value"]), row["unit"])
        assert (kpi.period_start, kpi.period_end) == (
            datetime.fromisoformat(row["period_start"]),
            datetime.fromisoformat(row["period_end"]),
        )


def test_latest_kpis_of_recalculated_period_return_last_value(sessions: sessionmaker[Session]) -> None:
    period: dict[str, Any] = {"period_start": JANUARY, "period_end": FEBRUARY}
    with sessions.begin() as session:
        for value, calculated_at in ((2, FEBRUARY), (1, JANUARY)):
            session.add(
                KpiSummary(
                    client_id=7, kpi_name="orders", kpi_value=Decimal(value), calculated_at=calculated_at, **period
                )
            )
    with sessions() as session:
        (kpi,) = latest_kpis(session, 7)
    assert (kpi.value, kpi.unit) == (Decimal(2), None)


@pytest.mark.parametrize("sector", Sector)
def test_emergent_trends_of_sector_are_ordered_by_change(sessions: sessionmaker[Session], sector: Sector) -> None:
    load_once(sessions)
    expected = Counter(
        (row["term"], float(row["delta_pct"]), int(row["frequency"]))
        for row in read_rows("trends")
        if row["sector"] == sector and row["status"] == "emergent"
    )
    with sessions() as session:
        found = emergent_trends(session, sector_name(sector))
        assert not emergent_trends(session, sector)
    assert Counter((trend.term, trend.delta_pct, trend.frequency) for trend in found) == expected
    changes = [trend.delta_pct for trend in found if trend.delta_pct is not None]
    assert changes == sorted(changes, reverse=True)


def test_nearest_texts_equal_brute_force_search(sessions: sessionmaker[Session]) -> None:
    loaded = load_once(sessions)
    embeddings = np.array(read_embeddings())
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    distances = 1 - units @ units.T
    clients = np.array([row["client_id"] for row in read_rows("texts")])
    distances[clients[:, None] != clients] = np.inf
    np.fill_diagonal(distances, np.inf)
    with sessions() as session:
        for position, text_id in enumerate(loaded.text_ids):
            found = nearest_texts(session, text_id)
            # Two texts with equal distances in single precision have no defined order.
            nearest = [loaded.text_ids.index(near.text_id) for near in found]
            np.testing.assert_allclose(distances[position, nearest], np.sort(distances[position])[:5], atol=1e-6)
            np.testing.assert_allclose([near.distance for near in found], distances[position, nearest], atol=1e-6)
            assert len(set(nearest)) == 5


def test_nearest_texts_of_default_text_are_on_its_topic(sessions: sessionmaker[Session]) -> None:
    loaded = load_once(sessions)
    with sessions() as session:
        found = nearest_texts(session, loaded.text_ids[GLUTEN_FREE_BREAD - 1])
    assert all("sin gluten" in near.text for near in found)
    assert all(nearer.distance <= farther.distance for nearer, farther in pairwise(found))


def test_nearest_texts_without_text_or_embedding_are_empty(sessions: sessionmaker[Session]) -> None:
    load_once(sessions)
    with sessions.begin() as session:
        without_embedding = TextSummary(client_id=1, text_field="Todo bien.")
        session.add_all(
            [without_embedding, TextSummary(client_id=1, text_field="Todo mal.", embedding=read_embeddings()[0])]
        )
    with sessions() as session:
        assert not nearest_texts(session, UNKNOWN_TEXT_ID)
        assert not nearest_texts(session, without_embedding.id)
