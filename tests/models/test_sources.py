"""A row takes the client of its data source."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from syntegra_db.models import (
    AnomalyLog,
    DataSource,
    KpiSummary,
    ProcessedData,
    TextSummary,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session


START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


def rows_of_source(**values: Any) -> list[Any]:
    return [
        ProcessedData(source_type="retail", data={}, **values),
        KpiSummary(kpi_name="k", kpi_value=Decimal(1), period_start=START, period_end=END, **values),
        TextSummary(text_field="x", **values),
        AnomalyLog(kpi_name="k", value=Decimal(3), **values),
    ]


def test_row_takes_the_client_of_its_source(session: Session) -> None:
    source = DataSource(client_id=7, name="till", type="simple_csv")
    assigned = rows_of_source()
    for row in assigned:
        row.source = source
    rows = [*rows_of_source(source=source), *rows_of_source(client_id=None, source=source), *assigned]
    assert {row.client_id for row in rows} == {7}
    session.add_all(rows)
    session.flush()
    assert {(row.client_id, row.source_id) for row in rows} == {(7, source.id)}


def test_row_added_to_a_collection_takes_the_client_of_its_source(session: Session) -> None:
    given, added = rows_of_source()[1], rows_of_source()[1]
    source = DataSource(client_id=7, name="till", type="simple_csv", kpi_summaries=[given])
    source.kpi_summaries.add(added)
    session.add(source)
    session.flush()
    assert [(row.client_id, row.source_id) for row in (given, added)] == [(7, source.id)] * 2


def test_row_takes_the_client_that_its_source_gets_later(session: Session) -> None:
    source = DataSource(name="till", type="simple_csv")
    rows = rows_of_source(source=source)
    source.client_id = 7
    session.add_all(rows)
    session.flush()
    assert {row.client_id for row in rows} == {7}


def test_row_takes_the_client_of_an_expired_source(session: Session) -> None:
    source = DataSource(client_id=7, name="till", type="simple_csv")
    session.add(source)
    session.commit()
    rows = rows_of_source(source=source)
    session.add_all(rows)
    session.flush()
    assert {row.client_id for row in rows} == {7}


def test_row_takes_the_client_of_an_expired_source_under_asyncio(run: Any, session: Session) -> None:
    async def work(session: AsyncSession) -> None:
        source = DataSource(client_id=7, name="till", type="simple_csv")
        session.add(source)
        await session.commit()
        session.add_all(rows_of_source(source=source))
        await session.commit()

    run(work)
    assert session.scalars(select(KpiSummary.client_id)).all() == [7]


def test_row_of_another_client_than_its_source_is_rejected(session: Session) -> None:
    for row in rows_of_source(client_id=8):
        row.source = DataSource(client_id=7, name="till", type="simple_csv")
        assert row.client_id == 8
        session.add(row)
        with pytest.raises(IntegrityError, match=f"fk_{row.__tablename__}_source"):
            session.flush()
        session.rollback()


def test_stored_row_keeps_its_client_if_the_source_changes(session: Session) -> None:
    row = rows_of_source(client_id=8)[1]
    source = DataSource(client_id=7, name="till", type="simple_csv")
    session.add_all([row, source])
    session.commit()
    assert source.client_id == 7
    row.source = source
    with pytest.raises(IntegrityError, match="fk_kpi_summary_source"):
        session.flush()
    session.rollback()
    assert row.client_id == 8


def test_row_without_client_and_source_is_rejected(session: Session) -> None:
    session.add(rows_of_source(source=None)[1])
    with pytest.raises(IntegrityError, match="client_id"):
        session.flush()
