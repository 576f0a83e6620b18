"""Batches of whole columns, of NumPy and Arrow."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import select

from support.bulk_rows import END, embedding, kpi, stored
from syntegra_db.bulk import copy_rows
from syntegra_db.models import Cluster, DataSource, KpiSummary, TextSummary

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

TEXTS = 1100  # more than two slices


def matrix() -> Any:
    return np.stack([embedding(seed) for seed in range(TEXTS)])


def texts(session: Session) -> tuple[list[int], list[datetime], Any]:
    rows = session.execute(select(TextSummary).order_by(TextSummary.client_id)).scalars().all()
    return [row.client_id for row in rows], [row.created_at for row in rows], np.array([row.embedding for row in rows])


TIMESTAMPS = [datetime(2026, 1, 1, tzinfo=UTC).replace(microsecond=n) for n in range(TEXTS)]


def check_texts(session: Session) -> None:
    clients, timestamps, embeddings = texts(session)
    assert clients == list(range(TEXTS))
    assert timestamps == TIMESTAMPS
    assert np.array_equal(embeddings, matrix())


@pytest.mark.parametrize("kind", [np.float32, ">f4", np.float64])
def test_mapping_of_arrays_is_loaded(session: Session, kind: Any) -> None:
    timestamps = np.array([timestamp.replace(tzinfo=None) for timestamp in TIMESTAMPS], "datetime64[ns]")
    batch = {
        "embedding": matrix().astype(kind),
        "client_id": np.arange(TEXTS, dtype=np.int32),
        "text_field": np.array([f"ñ {n}" for n in range(TEXTS)]),
        "created_at": timestamps,
        "keywords": [[n] for n in range(TEXTS)],
    }
    assert copy_rows(session, TextSummary, batch) == TEXTS
    check_texts(session)
    row = session.scalars(select(TextSummary).where(TextSummary.client_id == 1099)).one()
    assert (row.text_field, row.keywords) == ("ñ 1099", [1099])


@pytest.mark.parametrize("several", [False, True])
def test_structured_array_is_loaded(session: Session, several: bool) -> None:  # noqa: FBT001  a case
    fields = [("client_id", "i8"), ("text_field", "U9"), ("embedding", "f4", 384), ("created_at", "M8[us]")]
    batch = np.zeros(TEXTS, fields)
    batch["client_id"] = np.arange(TEXTS)
    batch["embedding"] = matrix()
    batch["created_at"] = [timestamp.replace(tzinfo=None) for timestamp in TIMESTAMPS]
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
def test_arrow_batch_is_loaded(session: Session, lists: Any, unit: str, form: str) -> None:
    table = pa.table(
        {
            "client_id": pa.array(range(TEXTS), pa.int16()),
            "text_field": pa.array(["ñ"] * TEXTS).dictionary_encode(),
            "created_at": pa.array(TIMESTAMPS, pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, "UTC")),
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


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_arrow_tensors_are_embeddings(session: Session, kind: Any) -> None:
    vectors = np.arange(2 * 384, dtype=kind).reshape(2, 384)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(vectors)
    copy_rows(session, TextSummary, pa.table({"client_id": [1, 2], "text_field": ["x"] * 2, "embedding": tensors}))
    assert [row["embedding"] for row in stored(session, TextSummary)] == vectors.tolist()


def test_nanoseconds_become_whole_microseconds(session: Session) -> None:
    timestamps = np.array([1_999, 2**62], "M8[ns]")
    batch = {"client_id": [1, 2], "text_field": ["x"] * 2, "created_at": timestamps}
    copy_rows(session, TextSummary, batch)
    copy_rows(session, TextSummary, pa.table({**batch, "created_at": pa.array(timestamps, pa.timestamp("ns", "UTC"))}))
    found = [row["created_at"].replace(tzinfo=None) for row in stored(session, TextSummary)]
    assert found == timestamps.astype("M8[us]").tolist() * 2


def test_vectors_in_a_json_column_are_json(session: Session) -> None:
    centroids = np.arange(6.0).reshape(2, 3)
    batch = {"client_id": [1, 2], "cluster_id": [1, 2], "features_json": [{}, {}], "centroid": centroids}
    copy_rows(session, Cluster, batch)
    copy_rows(session, Cluster, pa.table({**batch, "centroid": pa.array([[0.0, 1.0, 2.0], None])}))
    assert [row["centroid"] for row in stored(session, Cluster)] == [[0, 1, 2], [3, 4, 5], [0, 1, 2], None]


def test_decimals_and_structs_of_an_arrow_batch_are_loaded(session: Session) -> None:
    table = pa.Table.from_pylist([kpi(1, Decimal("1.50"), metadata={"unit": "EUR"})])
    copy_rows(session, KpiSummary, table)
    (row,) = stored(session, KpiSummary)
    assert (str(row["kpi_value"]), row["metadata_"], row["period_end"]) == ("1.50", {"unit": "EUR"}, END)
