"""The recommendation for each state of the index."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from support.embeddings import EMBEDDING
from syntegra_db.pgvector_support import VECTOR_INDEX
from syntegra_db.vectors._index import Calibration, CalibrationPoint, VectorIndex
from syntegra_db.vectors.maintenance._health import HealthMeasurement, IndexDefinition, recommend

CALIBRATION = Calibration(100_000, 7, 5, 0.95, 50.0, (CalibrationPoint(20, (0.96, 0.95), 5.0),))
INDEX = VectorIndex(
    EMBEDDING,
    1,
    VECTOR_INDEX,
    7,
    5,
    "ivfflat",
    300,
    is_half=False,
    has_iterative_scans=True,
    extension_schema="public",
    calibration=CALIBRATION,
)
DEFINITION = IndexDefinition("ivfflat", {"lists": 300}, is_half=False, is_valid=True, bytes=1)
GOOD = HealthMeasurement(50.0, 20, 0.96, 0.01, 5.0, 200)


@pytest.mark.parametrize(
    ("changed", "state", "words", "is_due"),
    [
        ({}, {"rows": 20_000}, "No action needed: up to 25,000 rows", False),
        ({}, {"rows": 20_000, "index": None}, "No action needed: up to 25,000 rows", False),
        ({}, {"index": None, "definition": None}, "Rebuild it: the index is missing", True),
        (
            {},
            {"index": None, "definition": replace(DEFINITION, is_valid=False)},
            "Rebuild it: the index is invalid",
            True,
        ),
        ({"calibration": None}, {"rows_at_build": 0}, "created with the empty table", True),
        ({"calibration": None}, {"rows_at_build": None}, "is not calibrated", True),
        ({"filenode": 8}, {"rows_at_build": None}, "by other means", True),
        ({}, {"measurement": replace(GOOD, recall=0.9)}, "its recall is below 0.95", True),
        ({}, {"measurement": replace(GOOD, recall=0.945)}, "No action needed: its recall reaches 0.95", False),
        ({}, {"rows": 1_200_000}, "12 times the rows", True),
        ({"method": "hnsw"}, {"rows": 1_200_000}, "No action needed: its recall", False),
        ({}, {"measurement": HealthMeasurement(50.0)}, "another --method", False),
        ({}, {"measurement": None}, "Unknown: the index was not measured", False),
        ({}, {"is_rebuilding": True, "rebuild_indexes": ["idx_new"]}, "Wait: a rebuild is running", False),
        ({}, {"measurement": HealthMeasurement(50.0, 20)}, "Unknown: the time was too short", False),
        ({}, {"measurement": replace(GOOD, margin=0.05)}, "Unknown: the time was too short", False),
        (
            {},
            {"rebuild_indexes": ["idx_new"]},
            "Rebuild it: an interrupted rebuild left idx_new",
            True,
        ),
        ({"table_filenode": 6, "filenode": 8}, {"rows_at_build": None}, "rewritten with its table", True),
        ({"table_filenode": 6, "filenode": 8, "method": "hnsw"}, {"rows_at_build": None}, "by other means", True),
        (
            {},
            {"index": None, "definition": replace(DEFINITION, is_valid=True)},
            "does not support cosine distance",
            True,
        ),
    ],
)
def test_recommendation_follows_from_state(
    changed: dict[str, Any], state: dict[str, Any], words: str, *, is_due: bool
) -> None:
    usual: dict[str, Any] = {
        "index": replace(INDEX, **changed),
        "definition": DEFINITION,
        "measurement": GOOD,
        "rows": 150_000,
        "rows_at_build": 100_000,
        "rebuild_indexes": [],
        "is_rebuilding": False,
    }
    sentence, due = recommend(**{**usual, **state})
    assert words in sentence
    assert due is is_due
