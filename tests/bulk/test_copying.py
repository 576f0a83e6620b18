"""copy_rows: it stores what the ORM would store, in the session's transaction."""

from __future__ import annotations

import tracemalloc
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sqlalchemy
from pgvector import Vector
from sqlalchemy import JSON, func, select, text
from sqlalchemy.orm import Session

from support.bulk_rows import FULL, PERIOD, embedding, kpi, stored
from syntegra_db.bulk import BulkLoadError, copy_rows, upsert_rows
from syntegra_db.database import create_engine
from syntegra_db.models import (
    AnomalyLog,
    AnomalySeverity,
    Base,
    DataSource,
    KpiSummary,
    TextSummary,
    TrendSignal,
    TrendStatus,
)

if TYPE_CHECKING:
    from support.servers import Database


@pytest.mark.parametrize("model", FULL)
def test_row_is_stored_as_the_orm_stores_it(session: Session, model: type[Base]) -> None:
    assert copy_rows(session, model, [FULL[model]]) == 1
    session.add(model(**FULL[model]))
    session.commit()
    copied, added = stored(session, model)
    assert copied == added


@pytest.mark.parametrize("model", FULL)
def test_example_rows_have_every_column(model: type[Base]) -> None:
    assert [*FULL[model]] == [a.key for a in sqlalchemy.inspect(model).column_attrs if a.key != "id"]


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e22, -0.0, 1 / 3, 123456789012345678, np.int64(5), np.float64(2.5)])
def test_float_in_numeric_equals_the_servers_cast(session: Session, value: Any) -> None:
    copy_rows(session, KpiSummary, [kpi(1, value)])
    session.add(KpiSummary(**kpi(1, value)))
    session.flush()
    copied, added = stored(session, KpiSummary)
    assert str(copied["kpi_value"]) == str(added["kpi_value"])


def test_missing_columns_get_the_servers_defaults(session: Session) -> None:
    copy_rows(session, DataSource, [{"client_id": 1, "name": "till", "type": "simple_csv"}])
    copy_rows(session, TrendSignal, [{"sector": "retail", "term": "lino", **PERIOD}])
    copy_rows(session, TextSummary, [{"client_id": 1, "text_field": "x"}])
    now = session.scalar(select(func.now()))
    source = session.scalars(select(DataSource)).one()
    trend = session.scalars(select(TrendSignal)).one()
    text = session.scalars(select(TextSummary)).one()
    assert (source.id, source.config_json, source.status, source.updated_at) == (1, {}, "idle", now)
    assert (trend.frequency, trend.status, trend.created_at) == (0, TrendStatus.STABLE, now)
    assert (text.language, text.embedding) == ("es", None)


@pytest.mark.parametrize(
    "make", [list, tuple, Vector, np.array, np.float16, np.float32, np.int8, np.uint64, np.ma.array]
)
def test_embedding_of_every_type_is_stored(session: Session, make: Any) -> None:
    numbers = [float(n % 100) for n in range(384)]
    copy_rows(session, TextSummary, [{"client_id": 1, "text_field": "x", "embedding": make(numbers)}])
    assert stored(session, TextSummary)[0]["embedding"] == numbers


def test_enum_labels_are_accepted_as_members_and_strings(session: Session) -> None:
    row = {"client_id": 1, "kpi_name": "x", "value": 1}
    copy_rows(session, AnomalyLog, [{**row, "severity": severity} for severity in ("high", AnomalySeverity.HIGH)])
    assert {row["severity"] for row in stored(session, AnomalyLog)} == {AnomalySeverity.HIGH}


def test_engine_of_sqlalchemy_loads_rows(database: Database) -> None:
    engine = sqlalchemy.create_engine(database.url)
    with Session(engine) as session:
        copy_rows(session, TextSummary, [FULL[TextSummary]])
        copy_rows(session, TrendSignal, [FULL[TrendSignal]])
        session.commit()
        # Without pgvector on the connection, the ORM reads the text of each number.
        assert stored(session, TextSummary)[0]["embedding"] == pytest.approx(embedding(1).tolist())
    engine.dispose()


@pytest.mark.parametrize("serialized", ['{"by": "the engine"}', b'{"by": "the engine"}'])
def test_json_serializer_of_the_engine_is_used(database: Database, serialized: str | bytes) -> None:
    engine = create_engine(database.url, json_serializer=lambda _: serialized)
    with Session(engine) as session:
        copy_rows(session, KpiSummary, [kpi(1, metadata_=Decimal(1))])
        assert stored(session, KpiSummary)[0]["metadata_"] == {"by": "the engine"}
    engine.dispose()


def test_json_null_is_not_sql_null(session: Session) -> None:
    instance = KpiSummary(**kpi(2, metadata_=JSON.NULL))
    copy_rows(session, KpiSummary, [kpi(1, metadata_=JSON.NULL), kpi(3, metadata_=None)])
    copy_rows(session, KpiSummary, [instance])
    session.add(instance)
    session.flush()
    texts = session.execute(text("SELECT metadata::text, count(*) FROM kpi_summary GROUP BY 1 ORDER BY 1")).all()
    assert [tuple(row) for row in texts] == [("null", 3), (None, 1)]


def test_pending_objects_are_flushed_first(session: Session) -> None:
    session.add(DataSource(id=5, client_id=1, name="till", type="simple_csv"))
    assert copy_rows(session, KpiSummary, [kpi(1, source_id=5)]) == 1


def test_rollback_removes_the_rows(session: Session, database: Database) -> None:
    copy_rows(session, KpiSummary, [kpi(1)])
    assert database.query("SELECT count(*) FROM kpi_summary") == [(0,)]
    session.rollback()
    assert stored(session, KpiSummary) == []
    copy_rows(session, KpiSummary, [kpi(2)])
    session.commit()
    assert database.query("SELECT client_id FROM kpi_summary") == [(2,)]


def test_session_with_several_engines_uses_the_models(database: Database) -> None:
    engine = create_engine(database.url)
    with Session(binds={KpiSummary: engine}) as session:
        copy_rows(session, KpiSummary, [kpi(1)])
        assert len(stored(session, KpiSummary)) == 1
    engine.dispose()


@pytest.mark.parametrize("options", [{}, {"key": ["client_id"]}, {"key": ["id"]}])
def test_translated_schema_gets_the_rows(session: Session, options: Any) -> None:
    session.execute(text("CREATE SCHEMA tenant; CREATE TABLE tenant.kpi_summary (LIKE kpi_summary INCLUDING ALL)"))
    session.commit()
    session.connection(execution_options={"schema_translate_map": {None: "tenant"}})
    load = upsert_rows if options else copy_rows
    assert load(session, KpiSummary, [{"id": 1, **kpi(2)}], **options) == 1
    assert [row["client_id"] for row in stored(session, KpiSummary)] == [2]
    assert session.scalar(text("SELECT count(*) FROM public.kpi_summary")) == 0


def test_progress_is_reported_every_thousand_rows(session: Session) -> None:
    reports: list[int] = []
    assert copy_rows(session, KpiSummary, (kpi(n) for n in range(2500)), on_progress=reports.append) == 2500
    assert reports == [1000, 2000, 2500]


def test_rows_are_read_one_at_a_time_and_not_kept(session: Session) -> None:
    def peak(rows: int) -> int:
        tracemalloc.start()
        copy_rows(session, KpiSummary, (kpi(n) for n in range(rows)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(10)
    few, many = peak(20_000), peak(200_000)
    assert many < few * 1.1 + 20_000


def test_another_driver_is_rejected() -> None:
    with Session(sqlalchemy.create_engine("sqlite://")) as session:
        with pytest.raises(BulkLoadError, match=r"need psycopg 3, but this session's driver is sqlite3"):
            copy_rows(session, KpiSummary, [kpi(1)])
        session.connection().invalidate()
