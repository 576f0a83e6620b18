"""The models as services use them, through sessions."""

from __future__ import annotations

import json
import logging
import math
import operator
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import cast, select, text
from sqlalchemy.exc import DataError, IntegrityError, InvalidRequestError, StatementError

from syntegra_db.database import create_engine, session_factory
from syntegra_db.models import (
    EMBEDDING_DIMENSIONS,
    AnomalyLog,
    AnomalySeverity,
    Base,
    Cluster,
    DataSource,
    KpiSummary,
    ProcessedData,
    TextSummary,
    TrendSignal,
    TrendStatus,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from support.servers import Database

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
VECTOR = [index / EMBEDDING_DIMENSIONS for index in range(EMBEDDING_DIMENSIONS)]


def one_of_each() -> list[Base]:
    return [
        DataSource(client_id=1, name="till", type="simple_csv", config_json={"token": "secret"}),
        ProcessedData(client_id=1, source_type="retail", data={"total": 12}),
        KpiSummary(client_id=1, kpi_name="avg_ticket", kpi_value=Decimal("12.50"), period_start=START, period_end=END),
        TextSummary(client_id=1, text_field="muy bien", keywords=["bien"], embedding=VECTOR),
        TrendSignal(sector="retail", term="lino", period_start=START, period_end=END, status=TrendStatus.EMERGENT),
        Cluster(client_id=1, cluster_id=0, features_json={"orders": 3}),
        AnomalyLog(client_id=1, kpi_name="orders", value=Decimal(3), severity=AnomalySeverity.CRITICAL),
    ]


def test_row_of_each_model_is_loaded_as_stored(session: Session) -> None:
    session.add_all(one_of_each())
    session.commit()
    session.expunge_all()
    kpi = session.scalars(select(KpiSummary)).one()
    assert (kpi.kpi_value, kpi.period_start, kpi.metadata_) == (Decimal("12.50"), START, None)
    assert session.scalars(select(TrendSignal)).one().status is TrendStatus.EMERGENT
    assert session.scalars(select(AnomalyLog)).one().severity is AnomalySeverity.CRITICAL
    embedding = session.scalars(select(TextSummary)).one().embedding
    assert isinstance(embedding, list)
    assert embedding == pytest.approx(VECTOR)


def test_repr_shows_only_the_primary_key(session: Session) -> None:
    rows = one_of_each()
    assert repr(rows[0]) == "DataSource(id=None)"
    session.add_all(rows)
    session.commit()
    assert [repr(row) for row in rows] == [f"{type(row).__name__}(id=1)" for row in rows]


def test_config_json_is_in_no_log_and_no_error(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    engine = create_engine(database.url, echo=True)
    with session_factory(engine)() as session:
        source = DataSource(client_id=1, name="till", type="simple_csv", config_json={"token": "s3cret"})
        session.add(source)
        with caplog.at_level(logging.DEBUG):
            session.flush()
            source.type = "x" * 51
            with pytest.raises(StatementError) as failed:
                session.flush()
            session.rollback()
            session.add(DataSource(client_id=1, type="simple_csv", config_json={"token": "s3cret"}))
            with pytest.raises(IntegrityError) as without_name:
                session.flush()
            session.rollback()
            session.add(DataSource(client_id=1, name="a", type="b", config_json={"token": "s3cret", "x": math.nan}))
            with pytest.raises(DataError) as not_json:
                session.flush()
    engine.dispose()
    assert "INSERT INTO data_sources" in caplog.text
    assert "s3cret" not in caplog.text + str(failed.value) + str(without_name.value) + str(without_name.value.orig)
    assert "s3cret" not in str(not_json.value) + str(not_json.value.orig)
    assert 'null value in column "name"' in str(without_name.value)


def test_update_sets_updated_at(session: Session) -> None:
    for row in (DataSource(client_id=1, name="a", type="b"), Cluster(client_id=1, cluster_id=0, features_json={})):
        session.add(row)
        session.commit()
        inserted = row.updated_at
        if isinstance(row, DataSource):
            row.status = "error"
        else:
            row.cluster_name = "grandes"
        session.flush()
        assert row.updated_at > inserted == row.created_at


def test_none_in_json_column_is_sql_null(session: Session) -> None:
    session.add(TextSummary(client_id=1, text_field="x", keywords=None))
    session.flush()
    assert session.scalar(text("SELECT keywords IS NULL FROM text_summary"))


def test_relationships_are_not_loaded_implicitly(session: Session) -> None:
    source = DataSource(client_id=1, name="till", type="simple_csv")
    session.add(source)
    session.flush()
    session.add(
        KpiSummary(client_id=1, source=source, kpi_name="k", kpi_value=Decimal(1), period_start=START, period_end=END)
    )
    session.commit()
    session.expunge_all()
    kpi = session.scalars(select(KpiSummary)).one()
    with pytest.raises(InvalidRequestError, match="lazy='raise'"):
        _ = kpi.source
    source = session.scalars(select(DataSource)).one()
    assert session.scalars(source.kpi_summaries.select()).all() == [kpi]


@pytest.mark.parametrize("collection", ["processed_data", "kpi_summaries", "text_summaries", "anomalies"])
def test_deleted_source_is_handled_by_the_database(
    session: Session, collection: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = DataSource(client_id=1, name="till", type="simple_csv")
    session.add(source)
    session.flush()
    model = DataSource.__mapper__.relationships[collection].mapper.class_
    child = next(row for row in one_of_each() if isinstance(row, model))
    getattr(source, collection).add(child)
    session.commit()
    with caplog.at_level(logging.INFO, logger="sqlalchemy.engine"):
        session.delete(source)
        session.flush()
    assert [record.getMessage() for record in caplog.records if "UPDATE" in record.getMessage()] == []
    session.refresh(child)
    assert (child.source_id, child.client_id) == (None, 1)


def test_removed_source_keeps_the_client(session: Session) -> None:
    source = DataSource(client_id=1, name="till", type="simple_csv")
    row = AnomalyLog(client_id=1, source=source, kpi_name="orders", value=Decimal(3))
    session.add(row)
    session.flush()
    row.source = None
    session.flush()
    session.refresh(row)
    assert row.source_id is None
    assert row.client_id == 1


def test_import_of_the_models_has_no_side_effect() -> None:
    import subprocess
    import sys

    program = (
        "import sys, syntegra_db.models as m;"
        "print([n for n in sys.modules if n.startswith('syntegra_db.') and not n.startswith('syntegra_db.models')]);"
        "print(any(n in sys.modules for n in ('alembic', 'pydantic_settings', 'typer', 'rich', 'numpy')))"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.split("\n")[:2] == ["[]", "False"]


@pytest.mark.parametrize("enum", [AnomalySeverity, TrendStatus])
def test_enum_members_compare_in_the_order_of_the_type(enum: type[AnomalySeverity | TrendStatus]) -> None:
    members = list(enum)
    for left, right in product(members, members):
        positions = members.index(left), members.index(right)
        assert (left < right, left <= right) == (positions[0] < positions[1], positions[0] <= positions[1])
        assert (left > right, left >= right) == (positions[0] > positions[1], positions[0] >= positions[1])
    assert sorted([members[-1], *members[:-1]]) == members
    assert (min(members), max(members)) == (members[0], members[-1])
    assert [pickle.loads(pickle.dumps(member)) for member in members] == members  # noqa: S301  pickled here


def test_enum_order_is_the_order_in_sql(session: Session) -> None:
    for enum, column in ((AnomalySeverity, AnomalyLog.severity), (TrendStatus, TrendSignal.status)):
        for left, right in product(enum, enum):
            expression = cast(left, column.type) >= cast(right, column.type)
            assert session.scalar(select(expression)) is (left >= right)


@pytest.mark.parametrize("other", ["critical", "HIGH", "", TrendStatus.STABLE, 1, None])
@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.gt, operator.ge])
def test_enum_compared_with_another_type_raises(compare: Any, other: Any) -> None:
    with pytest.raises(TypeError):
        compare(AnomalySeverity.HIGH, other)
    with pytest.raises(TypeError):
        compare(other, AnomalySeverity.HIGH)
    with pytest.raises(TypeError):
        sorted([AnomalySeverity.HIGH, other, AnomalySeverity.LOW])
    if isinstance(other, str):
        with pytest.raises(TypeError, match="compare it with a member of"):
            compare(other, AnomalySeverity.HIGH)


def test_enum_members_are_still_their_labels() -> None:
    high: str = AnomalySeverity.HIGH
    labels: dict[str, int] = {"high": 1}
    assert high == "high"
    assert operator.eq("high", high)
    assert high != "low"
    assert labels[high] == {high: 1}["high"] == 1
    assert f"{high}" == json.loads(json.dumps(high)) == "high"
    assert AnomalySeverity("high") is high


def test_enum_compared_with_a_column_is_an_expression(session: Session) -> None:
    session.add_all(
        [AnomalyLog(client_id=1, kpi_name="k", value=Decimal(1), severity=label) for label in AnomalySeverity]
    )
    session.flush()
    reflected = operator.le(AnomalySeverity.HIGH, AnomalyLog.severity)
    for condition in (AnomalyLog.severity >= AnomalySeverity.HIGH, reflected):
        found = session.scalars(select(AnomalyLog.severity).where(condition)).all()
        assert sorted(found) == [AnomalySeverity.HIGH, AnomalySeverity.CRITICAL]


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
