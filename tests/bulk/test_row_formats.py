"""The forms that single rows come in."""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.exc import InvalidRequestError

from support.bulk_rows import END, FULL, START, kpi, stored
from syntegra_db.bulk import BulkLoadError, copy_rows
from syntegra_db.models import Cluster, KpiSummary

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


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


def test_no_rows_are_no_rows(session: Session) -> None:
    told: list[int] = []
    assert copy_rows(session, KpiSummary, [], on_progress=told.append) == 0
    assert told == [0]
    assert copy_rows(session, KpiSummary, {"client_id": np.array([], int)}) == 0


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
    with pytest.raises(BulkLoadError, match=message):
        copy_rows(session, KpiSummary, rows, columns=columns)
