"""The choice between an exact search and an index scan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from support.embeddings import EMBEDDING
from syntegra_db.vectors._index import Calibration, CalibrationPoint, VectorIndex
from syntegra_db.vectors._strategy import choose_setting, choose_settings

if TYPE_CHECKING:
    from syntegra_db.models.embeddings import Method

POINTS = (
    CalibrationPoint(5, (0.80, 0.60), 4.0),
    CalibrationPoint(20, (0.95, 0.85), 12.0),
    CalibrationPoint(60, (0.99, 0.96), 40.0),
    CalibrationPoint(150, (1.0, 0.99), 110.0),
)
CALIBRATION = Calibration(
    rows=200_000, filenode=9, table_filenode=5, recall=0.95, exact_milliseconds=100.0, points=POINTS
)
INDEX = VectorIndex(
    embedding=EMBEDDING,
    oid=1,
    name="idx_text_summary_embedding",
    filenode=9,
    table_filenode=5,
    method="ivfflat",
    lists=447,
    is_half=False,
    has_iterative_scans=True,
    extension_schema="public",
    calibration=CALIBRATION,
)


def choose(index: VectorIndex = INDEX, *, rows: int = 200_000, recall: float = 0.95, limit: int = 10) -> int | None:
    return choose_setting(index, recall=recall, limit=limit, rows=rows, all_rows=200_000)


def test_calibrated_index_uses_smallest_sufficient_setting() -> None:
    assert [choose(recall=recall) for recall in (0.5, 0.8, 0.81, 0.95, 0.99)] == [5, 5, 20, 20, 60]


def test_larger_limit_or_filter_uses_larger_setting() -> None:
    assert choose(limit=100) == 60
    # 25 % of the rows: the 10 nearest of them are among the 40 nearest of all.
    assert choose(rows=50_000) == 60


@pytest.mark.parametrize("rows", [0, 1, 20_000, 25_000])
def test_few_rows_use_exact_search(rows: int) -> None:
    assert choose(rows=rows) is None


def test_slow_index_uses_exact_search() -> None:
    assert choose(recall=1) is None
    assert choose(recall=0.995) is None
    assert choose(rows=30_000) is None


def test_grown_table_uses_index_longer() -> None:
    assert choose_setting(INDEX, recall=1 - 1e-9, limit=10, rows=400_000, all_rows=400_000) == 150


def test_hnsw_ef_search_is_at_least_limit() -> None:
    hnsw = replace(INDEX, method="hnsw", lists=0)
    assert choose(hnsw, recall=0.5, limit=10) == 10
    assert choose(hnsw, recall=0.8, limit=10) == 10
    assert choose(hnsw) == 20


def test_uncalibrated_index_uses_default_setting() -> None:
    assert choose(replace(INDEX, calibration=None)) == 85
    # Above 30 % of the lists, as with the index of the migration, an exact search is as fast.
    assert choose(replace(INDEX, calibration=None, lists=100)) is None
    # After REINDEX, perhaps on other rows.
    assert choose(replace(INDEX, filenode=INDEX.filenode + 1)) == 85
    assert choose(replace(INDEX, calibration=None), recall=0.999) is None
    hnsw = replace(INDEX, method="hnsw", lists=0, calibration=None)
    assert choose(hnsw) == 100
    assert choose(hnsw, rows=50_000) == 400


def test_ivfflat_rewritten_with_table_uses_exact_search() -> None:
    assert choose(replace(INDEX, filenode=12, table_filenode=11)) is None
    assert choose(replace(INDEX, filenode=12, table_filenode=11, method="hnsw", lists=0)) == 100
    # After CREATE INDEX on existing rows.
    assert choose(replace(INDEX, oid=12, filenode=12, table_filenode=11)) == 85


def test_two_indexes_get_settings_for_both() -> None:
    hnsw = replace(INDEX, oid=2, method="hnsw", lists=0, calibration=None)
    more_lists = replace(INDEX, oid=3, lists=894, calibration=None)
    small, half = (
        replace(INDEX, lists=100, calibration=None),
        replace(INDEX, is_half=True, lists=100, calibration=None),
    )

    def together(*indexes: VectorIndex) -> dict[Method, int] | None:
        return choose_settings(indexes, recall=0.95, limit=10, rows=200_000, all_rows=200_000)

    assert together(INDEX) == {"ivfflat": 20}
    assert together(INDEX, hnsw) == {"ivfflat": 20, "hnsw": 100}
    assert together(INDEX, more_lists) == {"ivfflat": 120}
    # One of them reaches the recall with no setting.
    assert together(INDEX, small) is None
    assert together(INDEX, half) == {"ivfflat": 20}


def test_ef_search_above_maximum_uses_exact_search() -> None:
    hnsw = replace(INDEX, method="hnsw", lists=0)
    assert choose(hnsw, limit=1_000, recall=0.1) == 1_000
    assert choose(hnsw, limit=1_001, recall=0.1) is None
    uncalibrated = replace(hnsw, calibration=None)
    assert choose(uncalibrated, limit=100) == 1_000
    assert choose(uncalibrated, limit=101) is None


def test_calibration_round_trips_through_comment() -> None:
    assert Calibration.from_comment(CALIBRATION.to_comment(), "ivfflat") == CALIBRATION


@pytest.mark.parametrize(
    "comment",
    [None, "", "rebuilt on Sunday", "[]", "1", '{"syntegra_db": 1}', '{"syntegra_db": {"points": [{}]}}'],
)
def test_foreign_comment_is_no_calibration(comment: str | None) -> None:
    assert Calibration.from_comment(comment, "hnsw") is None
