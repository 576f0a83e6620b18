"""The advice follows from what is known of the index."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors._index import Calibration, CalibrationPoint, VectorIndex
from syntegra_db.vectors.maintenance._health import Evidence, HealthMeasurement, IndexDefinition, recommend

TUNING = Calibration(100_000, 7, 5, 0.95, 50.0, (CalibrationPoint(20, (0.96, 0.95), 5.0),))
INDEX = VectorIndex(1, VECTOR_INDEX, 7, 5, "ivfflat", 300, is_half=False, has_iterative_scans=True, tuning=TUNING)
SHAPE = IndexDefinition("ivfflat", {"lists": 300}, is_half=False, is_valid=True, bytes=1)
GOOD = HealthMeasurement(50.0, 20, 0.96, 0.01, 5.0, 200)


@pytest.mark.parametrize(
    ("changed", "given", "words", "is_due"),
    [
        ({}, {"rows": 20_000}, "Nothing to do: up to 25,000 rows", False),
        ({}, {"rows": 20_000, "index": None}, "Nothing to do: up to 25,000 rows", False),
        ({}, {"index": None, "shape": None}, "Rebuild it: the index is missing", True),
        ({}, {"index": None, "shape": replace(SHAPE, is_valid=False)}, "Rebuild it: the index is invalid", True),
        ({"tuning": None}, {"built_on": 0}, "came with the empty table", True),
        ({"tuning": None}, {"built_on": None}, "was never measured", True),
        ({"filenode": 8}, {"built_on": None}, "by other means", True),
        ({}, {"measured": replace(GOOD, recall=0.9)}, "finds less than the 0.95", True),
        ({}, {"measured": replace(GOOD, recall=0.945)}, "Nothing to do: it finds what it should", False),
        ({}, {"rows": 1_200_000}, "12 times the rows", True),
        ({"method": "hnsw"}, {"rows": 1_200_000}, "Nothing to do: it finds", False),
        ({}, {"measured": HealthMeasurement(50.0)}, "another --method", False),
        ({}, {"measured": None}, "Not known: it was not measured", False),
        ({}, {"is_rebuilding": True, "leftovers": ["idx_new"]}, "Wait: a rebuild is running", False),
        ({}, {"measured": HealthMeasurement(50.0, 20)}, "Not known: the time was too short", False),
        ({}, {"measured": replace(GOOD, margin=0.05)}, "Not known: the time was too short", False),
        (
            {},
            {"leftovers": ["idx_new"]},
            "Rebuild it: a rebuild was interrupted and left idx_new",
            True,
        ),
        ({"table_filenode": 6, "filenode": 8}, {"built_on": None}, "made anew with its table", True),
        ({"table_filenode": 6, "filenode": 8, "method": "hnsw"}, {"built_on": None}, "by other means", True),
        ({}, {"index": None, "shape": replace(SHAPE, is_valid=True)}, "serves no search by cosine distance", True),
    ],
)
def test_advice(changed: dict[str, Any], given: dict[str, Any], words: str, *, is_due: bool) -> None:
    usual: dict[str, Any] = {"rows": 150_000, "built_on": 100_000, "shape": SHAPE, "measured": GOOD, "leftovers": []}
    usual["is_rebuilding"] = False
    sentence, due = recommend(Evidence(**{"index": replace(INDEX, **changed), **usual, **given}))
    assert words in sentence
    assert due is is_due
