"""Which way a search goes, by what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from syntegra_db.vectors._index import Calibration, CalibrationPoint, Method, VectorIndex
from syntegra_db.vectors._strategy import choose_setting, choose_settings

MEASURED = (
    CalibrationPoint(5, (0.80, 0.60), 4.0),
    CalibrationPoint(20, (0.95, 0.85), 12.0),
    CalibrationPoint(60, (0.99, 0.96), 40.0),
    CalibrationPoint(150, (1.0, 0.99), 110.0),
)
TUNING = Calibration(
    rows=200_000, filenode=9, table_filenode=5, recall=0.95, exact_milliseconds=100.0, measured=MEASURED
)
INDEX = VectorIndex(
    oid=1,
    name="idx_text_summary_embedding",
    filenode=9,
    table_filenode=5,
    method="ivfflat",
    lists=447,
    is_half=False,
    has_iterative_scans=True,
    tuning=TUNING,
)


def choose(index: VectorIndex = INDEX, *, rows: int = 200_000, recall: float = 0.95, limit: int = 10) -> int | None:
    return choose_setting(index, recall=recall, limit=limit, rows=rows, all_rows=200_000)


def test_the_least_setting_that_reaches_the_recall() -> None:
    assert [choose(recall=recall) for recall in (0.5, 0.8, 0.81, 0.95, 0.99)] == [5, 5, 20, 20, 60]


def test_more_rows_and_a_narrower_filter_need_more() -> None:
    assert choose(limit=100) == 60
    # A quarter of the rows: the ten nearest of them are among the forty nearest of all.
    assert choose(rows=50_000) == 60


@pytest.mark.parametrize("rows", [0, 1, 20_000, 25_000])
def test_few_rows_are_compared(rows: int) -> None:
    assert choose(rows=rows) is None


def test_rows_are_compared_where_that_is_faster() -> None:
    assert choose(recall=1) is None
    assert choose(recall=0.995) is None
    assert choose(rows=30_000) is None


def test_a_table_that_has_grown_since_is_dearer_to_compare() -> None:
    assert choose_setting(INDEX, recall=1 - 1e-9, limit=10, rows=400_000, all_rows=400_000) == 150


def test_hnsw_collects_at_least_as_many_as_asked() -> None:
    hnsw = replace(INDEX, method="hnsw", lists=0)
    assert choose(hnsw, recall=0.5, limit=10) == 10
    assert choose(hnsw, recall=0.8, limit=10) == 10
    assert choose(hnsw) == 20


def test_an_index_that_nobody_measured() -> None:
    assert choose(replace(INDEX, tuning=None)) == 85
    # Beyond that share of the lists, comparing all rows is as fast; so it is with the index of the migration.
    assert choose(replace(INDEX, tuning=None, lists=100)) is None
    # By REINDEX, perhaps on other rows.
    assert choose(replace(INDEX, filenode=INDEX.filenode + 1)) == 85
    assert choose(replace(INDEX, tuning=None), recall=0.999) is None
    hnsw = replace(INDEX, method="hnsw", lists=0, tuning=None)
    assert choose(hnsw) == 100
    assert choose(hnsw, rows=50_000) == 400


def test_an_index_that_was_made_anew_with_its_table_is_not_asked() -> None:
    assert choose(replace(INDEX, filenode=12, table_filenode=11)) is None
    assert choose(replace(INDEX, filenode=12, table_filenode=11, method="hnsw", lists=0)) == 100
    # By CREATE INDEX, on the rows that were there.
    assert choose(replace(INDEX, oid=12, filenode=12, table_filenode=11)) == 85


def test_where_two_indexes_serve_a_search_both_are_set() -> None:
    hnsw = replace(INDEX, oid=2, method="hnsw", lists=0, tuning=None)
    more_lists = replace(INDEX, oid=3, lists=894, tuning=None)
    unmeasured, half = replace(INDEX, lists=100, tuning=None), replace(INDEX, is_half=True, lists=100, tuning=None)

    def together(*indexes: VectorIndex) -> dict[Method, int] | None:
        return choose_settings(indexes, recall=0.95, limit=10, rows=200_000, all_rows=200_000)

    assert together(INDEX) == {"ivfflat": 20}
    assert together(INDEX, hnsw) == {"ivfflat": 20, "hnsw": 100}
    assert together(INDEX, more_lists) == {"ivfflat": 120}
    # One of them would find too little at any setting.
    assert together(INDEX, unmeasured) is None
    assert together(INDEX, half) == {"ivfflat": 20}


def test_no_ef_search_beyond_what_the_server_takes() -> None:
    hnsw = replace(INDEX, method="hnsw", lists=0)
    assert choose(hnsw, limit=1_000, recall=0.1) == 1_000
    assert choose(hnsw, limit=1_001, recall=0.1) is None
    unmeasured = replace(hnsw, tuning=None)
    assert choose(unmeasured, limit=100) == 1_000
    assert choose(unmeasured, limit=101) is None


def test_a_tuning_survives_its_comment() -> None:
    assert Calibration.from_comment(TUNING.to_comment()) == TUNING


@pytest.mark.parametrize(
    "comment", [None, "", "rebuilt on Sunday", "[]", "1", '{"syntegra_db": 1}', '{"syntegra_db": {"measured": [{}]}}']
)
def test_a_comment_of_somebody_else_is_none(comment: str | None) -> None:
    assert Calibration.from_comment(comment) is None
