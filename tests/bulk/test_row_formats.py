"""The accepted forms of single rows."""

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
def test_metadata_is_accepted_under_both_names(session: Session, key: str) -> None:
    copy_rows(session, KpiSummary, [{**kpi(1), key: {"unit": "EUR"}}])
    assert stored(session, KpiSummary)[0]["metadata_"] == {"unit": "EUR"}


def test_tuples_have_all_columns_except_the_id(session: Session) -> None:
    copy_rows(session, KpiSummary, [tuple(FULL[KpiSummary].values()), list(FULL[KpiSummary].values())])
    assert stored(session, KpiSummary) == [FULL[KpiSummary]] * 2


def test_tuples_with_columns_have_these_columns(session: Session) -> None:
    columns = ("kpi_name", "client_id", "metadata", "kpi_value", "period_start", "period_end")
    copy_rows(session, KpiSummary, [("sales", 3, None, 5, START, END)], columns=columns)
    (row,) = stored(session, KpiSummary)
    assert (row["kpi_name"], row["client_id"], row["kpi_value"]) == ("sales", 3, 5)


def test_named_tuples_are_matched_by_name(session: Session) -> None:
    named = namedtuple("named", ["kpi_value", "client_id", "kpi_name", "period_end", "period_start"])  # noqa: PYI024
    copy_rows(session, KpiSummary, [named(5, 3, "sales", END, START)])
    (row,) = stored(session, KpiSummary)
    assert (row["kpi_name"], row["client_id"], row["kpi_value"]) == ("sales", 3, 5)


def test_query_results_are_matched_by_name(session: Session) -> None:
    copy_rows(session, KpiSummary, [kpi(1), kpi(2)])
    table = KpiSummary.__table__
    others = [column for column in reversed(table.columns) if column.name not in {"id", "client_id"}]
    query = select(*others, (KpiSummary.client_id + 10).label("client_id"))
    assert copy_rows(session, KpiSummary, session.execute(query)) == 2
    assert copy_rows(session, KpiSummary, session.execute(query).mappings()) == 4
    assert sorted(row["client_id"] for row in stored(session, KpiSummary)) == [1, 2, 11, 11, 12, 12, 21, 22]


def test_instances_are_read_and_not_added_to_the_session(session: Session) -> None:
    instances = [Cluster(client_id=n, cluster_id=n, features_json={"n": n}) for n in range(3)]
    assert copy_rows(session, Cluster, instances) == 3
    session.commit()
    assert [row["features_json"] for row in stored(session, Cluster)] == [{"n": 0}, {"n": 1}, {"n": 2}]
    with pytest.raises(InvalidRequestError):
        session.refresh(instances[0])


def test_empty_input_loads_no_rows(session: Session) -> None:
    reports: list[int] = []
    assert copy_rows(session, KpiSummary, [], on_progress=reports.append) == 0
    assert reports == [0]
    assert copy_rows(session, KpiSummary, {"client_id": np.array([], int)}) == 0


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (5, None, "must be an iterable or a batch, not int"),
        ([5], None, "A row or batch must be .*, not int"),
        (["abc"], None, "not str"),
        ([{"client": 1}], None, "kpi_summary has no column client; it has id, client_id"),
        ([{"metadata": 1, "metadata_": 1}], None, "metadata of kpi_summary is given twice"),
        ([{}], None, "no columns"),
        ([kpi(1)], ["client_id"], "have the columns client_id, .*, period_end, but the argument names client_id"),
        ([(1,)], ["client"], "no column client"),
        (kpi(1), None, "client_id is of type int; put a single row into a list"),
        ({"client_id": [1, 2], "kpi_name": ["a"]}, None, "have different lengths: client_id 2, kpi_name 1"),
    ],
)
def test_input_in_an_unknown_form_is_rejected(session: Session, rows: Any, columns: Any, message: str) -> None:
    with pytest.raises(BulkLoadError, match=message):
        copy_rows(session, KpiSummary, rows, columns=columns)
