"""copy_rows: what goes in is what the ORM would have stored, in every form that rows come in."""

from __future__ import annotations

import tracemalloc
from collections import namedtuple
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy
from bulk.examples import END, FULL, PERIOD, START, embedding, kpi, session_on, stored
from pgvector import Vector
from sqlalchemy import func, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session

from syntegra_db.bulk import BulkError, copy_rows
from syntegra_db.database import create_engine
from syntegra_db.models import (
    AnomalyLog,
    AnomalySeverity,
    Base,
    Cluster,
    DataSource,
    KpiSummary,
    TextSummary,
    TrendSignal,
    TrendStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Database

TEXTS = 1100  # more than two batches' parts


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with session_on(database) as session:
        yield session


@pytest.mark.parametrize("model", FULL)
def test_a_row_is_stored_as_the_orm_stores_it(session: Session, model: type[Base]) -> None:
    assert copy_rows(session, model, [FULL[model]]) == 1
    session.add(model(**FULL[model]))
    session.commit()
    copied, added = stored(session, model)
    assert copied == added


@pytest.mark.parametrize("model", FULL)
def test_the_examples_have_every_column(model: type[Base]) -> None:
    assert [*FULL[model]] == [a.key for a in sqlalchemy.inspect(model).column_attrs if a.key != "id"]


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e22, -0.0, 1 / 3, 123456789012345678, np.int64(5), np.float64(2.5)])
def test_a_numeric_is_what_the_servers_own_cast_gives(session: Session, value: Any) -> None:
    copy_rows(session, KpiSummary, [kpi(1, value)])
    session.add(KpiSummary(**kpi(1, value)))
    session.flush()
    copied, added = stored(session, KpiSummary)
    assert str(copied["kpi_value"]) == str(added["kpi_value"])


def test_columns_that_the_rows_lack_get_the_servers_defaults(session: Session) -> None:
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


@pytest.mark.parametrize("make", [list, tuple, Vector, np.array, np.float32, np.int8])
def test_an_embedding_of_every_kind(session: Session, make: Any) -> None:
    numbers = [float(n % 100) for n in range(384)]
    copy_rows(session, TextSummary, [{"client_id": 1, "text_field": "x", "embedding": make(numbers)}])
    assert stored(session, TextSummary)[0]["embedding"] == numbers


def test_labels_go_in_as_members_and_as_strings(session: Session) -> None:
    row = {"client_id": 1, "kpi_name": "x", "value": 1}
    copy_rows(session, AnomalyLog, [{**row, "severity": severity} for severity in ("high", AnomalySeverity.HIGH)])
    assert {row["severity"] for row in stored(session, AnomalyLog)} == {AnomalySeverity.HIGH}


@pytest.mark.parametrize("key", ["metadata", "metadata_"])
def test_metadata_goes_by_both_names(session: Session, key: str) -> None:
    copy_rows(session, KpiSummary, [{**kpi(1), key: {"unit": "EUR"}}])
    assert stored(session, KpiSummary)[0]["metadata_"] == {"unit": "EUR"}


def test_tuples_have_all_columns_but_the_id(session: Session) -> None:
    copy_rows(session, KpiSummary, [tuple(FULL[KpiSummary].values()), list(FULL[KpiSummary].values())])
    assert stored(session, KpiSummary) == [FULL[KpiSummary]] * 2


def test_tuples_have_the_columns_that_are_named(session: Session) -> None:
    columns = ("kpi_name", "client_id", "metadata", "kpi_value", "period_start", "period_end")
    copy_rows(session, KpiSummary, [("sales", 3, None, 5, START, END)], columns=columns)
    (row,) = stored(session, KpiSummary)
    assert (row["kpi_name"], row["client_id"], row["kpi_value"]) == ("sales", 3, 5)


def test_named_tuples_go_by_their_names(session: Session) -> None:
    named = namedtuple("named", ["kpi_value", "client_id", "kpi_name", "period_end", "period_start"])  # noqa: PYI024
    copy_rows(session, KpiSummary, [named(5, 3, "sales", END, START)])
    (row,) = stored(session, KpiSummary)
    assert (row["kpi_name"], row["client_id"], row["kpi_value"]) == ("sales", 3, 5)


def test_what_a_query_gives_goes_by_its_names(session: Session) -> None:
    copy_rows(session, KpiSummary, [kpi(1), kpi(2)])
    table = KpiSummary.__table__
    others = [column for column in reversed(table.columns) if column.name not in {"id", "client_id"}]
    query = select(*others, (KpiSummary.client_id + 10).label("client_id"))
    assert copy_rows(session, KpiSummary, session.execute(query)) == 2
    assert copy_rows(session, KpiSummary, session.execute(query).mappings()) == 4
    assert sorted(row["client_id"] for row in stored(session, KpiSummary)) == [1, 2, 11, 11, 12, 12, 21, 22]


def test_instances_are_read_and_not_added(session: Session) -> None:
    instances = [Cluster(client_id=n, cluster_id=n, features_json={"n": n}) for n in range(3)]
    assert copy_rows(session, Cluster, instances) == 3
    session.commit()
    assert [row["features_json"] for row in stored(session, Cluster)] == [{"n": 0}, {"n": 1}, {"n": 2}]
    with pytest.raises(InvalidRequestError):
        session.refresh(instances[0])


def matrix() -> Any:
    return np.stack([embedding(seed) for seed in range(TEXTS)])


def texts(session: Session) -> tuple[list[int], list[datetime], Any]:
    rows = session.execute(select(TextSummary).order_by(TextSummary.client_id)).scalars().all()
    return [row.client_id for row in rows], [row.created_at for row in rows], np.array([row.embedding for row in rows])


MOMENTS = [datetime(2026, 1, 1, tzinfo=UTC).replace(microsecond=n) for n in range(TEXTS)]


def check_texts(session: Session) -> None:
    clients, moments, embeddings = texts(session)
    assert clients == list(range(TEXTS))
    assert moments == MOMENTS
    assert np.array_equal(embeddings, matrix())


@pytest.mark.parametrize("kind", [np.float32, ">f4", np.float64])
def test_a_mapping_of_arrays_is_a_batch(session: Session, kind: Any) -> None:
    moments = np.array([moment.replace(tzinfo=None) for moment in MOMENTS], "datetime64[ns]")
    batch = {
        "embedding": matrix().astype(kind),
        "client_id": np.arange(TEXTS, dtype=np.int32),
        "text_field": np.array([f"ñ {n}" for n in range(TEXTS)]),
        "created_at": moments,
        "keywords": [[n] for n in range(TEXTS)],
    }
    assert copy_rows(session, TextSummary, batch) == TEXTS
    check_texts(session)
    row = session.scalars(select(TextSummary).where(TextSummary.client_id == 1099)).one()
    assert (row.text_field, row.keywords) == ("ñ 1099", [1099])


@pytest.mark.parametrize("several", [False, True])
def test_a_structured_array_is_a_batch(session: Session, several: bool) -> None:  # noqa: FBT001  a case
    fields = [("client_id", "i8"), ("text_field", "U9"), ("embedding", "f4", 384), ("created_at", "M8[us]")]
    batch = np.zeros(TEXTS, fields)
    batch["client_id"] = np.arange(TEXTS)
    batch["embedding"] = matrix()
    batch["created_at"] = [moment.replace(tzinfo=None) for moment in MOMENTS]
    rows = iter([batch[:1], batch[1:1], batch[1:]]) if several else batch
    assert copy_rows(session, TextSummary, rows) == TEXTS
    check_texts(session)


def test_masked_and_missing_values_are_null(session: Session) -> None:
    embeddings = np.ma.masked_array(matrix()[:3], mask=False)
    embeddings[1] = np.ma.masked
    batch = {
        "client_id": [1, 2, 3],
        "text_field": np.array(["a", "b", "c"], dtype=object),
        "sentiment": np.array(["good", None, "bad"], dtype=object),
        "sentiment_score": np.ma.masked_array([0.5, 1.5, 2.5], mask=[True, False, False]),
        "embedding": embeddings,
    }
    copy_rows(session, TextSummary, batch)
    rows = stored(session, TextSummary)
    assert [row["sentiment"] for row in rows] == ["good", None, "bad"]
    assert [row["sentiment_score"] for row in rows] == [None, 1.5, 2.5]
    assert [row["embedding"] is None for row in rows] == [False, True, False]
    batch = {"client_id": [1], "name": ["x"], "type": ["y"], "last_run_at": np.array(["NaT"], "M8[s]")}
    copy_rows(session, DataSource, batch)
    assert stored(session, DataSource)[0]["last_run_at"] is None


@pytest.mark.parametrize("lists", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 384)])
@pytest.mark.parametrize("unit", ["us", "ns"])
@pytest.mark.parametrize("form", ["table", "batch", "batches", "reader"])
def test_an_arrow_batch(session: Session, lists: Any, unit: str, form: str) -> None:
    table = pa.table(
        {
            "client_id": pa.array(range(TEXTS), pa.int16()),
            "text_field": pa.array(["ñ"] * TEXTS).dictionary_encode(),
            "created_at": pa.array(MOMENTS, pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, "UTC")),
            "embedding": pa.array([*matrix()], lists),
        }
    )
    table = pa.concat_tables([table.slice(0, 7), table.slice(7)])
    rows = {
        "table": lambda: table,
        "batch": lambda: table.combine_chunks().to_batches()[0],
        "batches": lambda: iter(table.to_batches(100)),
        "reader": lambda: table.to_reader(50),
    }[form]()
    assert copy_rows(session, TextSummary, rows) == TEXTS
    check_texts(session)


@pytest.mark.parametrize("lists", [pa.list_(pa.float32()), pa.list_(pa.float32(), 384)])
def test_missing_embeddings_of_an_arrow_batch_are_null(session: Session, lists: Any) -> None:
    vectors = [None, embedding(1), None, None, embedding(2)]
    table = pa.table({"client_id": [1] * 5, "text_field": ["x"] * 5, "embedding": pa.array(vectors, lists)})
    copy_rows(session, TextSummary, table.slice(1))
    embeddings = [row["embedding"] for row in stored(session, TextSummary)]
    assert embeddings == [embedding(1).tolist(), None, None, embedding(2).tolist()]


def test_vectors_in_a_json_column_are_json(session: Session) -> None:
    centroids = np.arange(6.0).reshape(2, 3)
    batch = {"client_id": [1, 2], "cluster_id": [1, 2], "features_json": [{}, {}], "centroid": centroids}
    copy_rows(session, Cluster, batch)
    copy_rows(session, Cluster, pa.table({**batch, "centroid": pa.array([[0.0, 1.0, 2.0], None])}))
    assert [row["centroid"] for row in stored(session, Cluster)] == [[0, 1, 2], [3, 4, 5], [0, 1, 2], None]


def test_decimals_and_structs_of_an_arrow_batch(session: Session) -> None:
    table = pa.Table.from_pylist([kpi(1, Decimal("1.50"), metadata={"unit": "EUR"})])
    copy_rows(session, KpiSummary, table)
    (row,) = stored(session, KpiSummary)
    assert (str(row["kpi_value"]), row["metadata_"], row["period_end"]) == ("1.50", {"unit": "EUR"}, END)


def test_an_engine_that_nobody_prepared(database: Database) -> None:
    engine = sqlalchemy.create_engine(database.url)
    with Session(engine) as session:
        copy_rows(session, TextSummary, [FULL[TextSummary]])
        copy_rows(session, TrendSignal, [FULL[TrendSignal]])
        session.commit()
        # Without pgvector on the connection, the ORM reads the text of each number.
        assert stored(session, TextSummary)[0]["embedding"] == pytest.approx(embedding(1).tolist())
    engine.dispose()


def test_the_json_serializer_of_the_engine_is_used(database: Database) -> None:
    engine = create_engine(database.url, json_serializer=lambda _: '{"by": "the engine"}')
    with Session(engine) as session:
        copy_rows(session, KpiSummary, [kpi(1, metadata_=Decimal(1))])
        assert stored(session, KpiSummary)[0]["metadata_"] == {"by": "the engine"}
    engine.dispose()


def test_what_waits_in_the_session_goes_first(session: Session) -> None:
    session.add(DataSource(id=5, client_id=1, name="till", type="simple_csv"))
    assert copy_rows(session, KpiSummary, [kpi(1, source_id=5)]) == 1


def test_a_rollback_takes_the_rows_away(session: Session, database: Database) -> None:
    copy_rows(session, KpiSummary, [kpi(1)])
    assert database.query("SELECT count(*) FROM kpi_summary") == [(0,)]
    session.rollback()
    assert stored(session, KpiSummary) == []
    copy_rows(session, KpiSummary, [kpi(2)])
    session.commit()
    assert database.query("SELECT client_id FROM kpi_summary") == [(2,)]


def test_a_session_with_several_engines_takes_the_models(database: Database) -> None:
    engine = create_engine(database.url)
    with Session(binds={KpiSummary: engine}) as session:
        copy_rows(session, KpiSummary, [kpi(1)])
        assert len(stored(session, KpiSummary)) == 1
    engine.dispose()


def test_progress_is_told_now_and_then(session: Session) -> None:
    told: list[int] = []
    assert copy_rows(session, KpiSummary, (kpi(n) for n in range(2500)), on_progress=told.append) == 2500
    assert told == [1000, 2000, 2500]


def test_no_rows_are_no_rows(session: Session) -> None:
    told: list[int] = []
    assert copy_rows(session, KpiSummary, [], on_progress=told.append) == 0
    assert told == [0]
    assert copy_rows(session, KpiSummary, {"client_id": np.array([], int)}) == 0


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


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (5, None, "not as int"),
        ([5], None, "not int"),
        (["abc"], None, "not str"),
        ([{"client": 1}], None, "kpi_summary has no column client; it has id, client_id"),
        ([{"metadata": 1, "metadata_": 1}], None, "metadata of kpi_summary is named twice"),
        ([{}], None, "no columns"),
        ([kpi(1)], ["client_id"], "have client_id, kpi_name, kpi_value, period_start, period_end, and columns says"),
        ([(1,)], ["client"], "no column client"),
        (kpi(1), None, "client_id is of type int; give a single row as a list of one"),
        ({"client_id": [1, 2], "kpi_name": ["a"]}, None, "not of one length: client_id 2, kpi_name 1"),
    ],
)
def test_rows_of_an_unknown_form_are_refused(session: Session, rows: Any, columns: Any, message: str) -> None:
    with pytest.raises(BulkError, match=message):
        copy_rows(session, KpiSummary, rows, columns=columns)


def test_another_driver_is_refused() -> None:
    with Session(sqlalchemy.create_engine("sqlite://")) as session:
        with pytest.raises(BulkError, match=r"psycopg 3 only, and this session's connection is of sqlite3"):
            copy_rows(session, KpiSummary, [kpi(1)])
        session.connection().invalidate()
