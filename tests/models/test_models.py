"""The models as services use them, through sessions."""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError

from syntegra_db.database import create_engine, session_factory
from syntegra_db.models import (
    EMBEDDING_DIMENSIONS,
    AnomalyLog,
    AnomalySeverity,
    Base,
    Cluster,
    DataSource,
    InvalidValue,
    KpiSummary,
    ProcessedData,
    TextSummary,
    TrendSignal,
    TrendStatus,
)

if TYPE_CHECKING:
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
            with pytest.raises(InvalidValue) as failed:
                session.flush()
            session.rollback()
            session.add(DataSource(client_id=1, type="simple_csv", config_json={"token": "s3cret"}))
            with pytest.raises(IntegrityError) as without_name:
                session.flush()
            session.rollback()
            session.add(DataSource(client_id=1, name="a", type="b", config_json={"token": "s3cret", "x": math.nan}))
            with pytest.raises(InvalidValue) as not_json:
                session.flush()
    engine.dispose()
    assert "INSERT INTO data_sources" in caplog.text
    assert "s3cret" not in caplog.text + str(failed.value) + repr(failed.value.__context__) + str(
        without_name.value
    ) + str(without_name.value.orig)
    assert "s3cret" not in str(not_json.value) + repr(not_json.value.__context__)
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
    # It contains facts about pgvector, such as the number of dimensions.
    assert output.split("\n")[:2] == ["['syntegra_db.pgvector_support']", "False"]
