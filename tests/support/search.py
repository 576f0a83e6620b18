"""Indexes, calibrations and results of searches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

import numpy as np
from sqlalchemy import text

from support.embeddings import EMBEDDING
from syntegra_db.vectors import search
from syntegra_db.vectors._index import Calibration, CalibrationPoint, read_primary_index

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from support.texts import Texts


ROWS = 32_000
CLIENTS = {20: 20, 200: 200, 30_000: 30_000}
BUILT_ON_EMPTY_TABLE = (
    "CREATE INDEX idx_text_summary_embedding ON text_summary USING ivfflat (embedding vector_cosine_ops)"
)
IVFFLAT = f"{BUILT_ON_EMPTY_TABLE} WITH (lists = 180)"
HNSW = "CREATE INDEX idx_text_summary_embedding ON text_summary USING hnsw (embedding vector_cosine_ops) WITH (m = 6)"
HALF = """CREATE INDEX idx_text_summary_embedding ON text_summary
    USING ivfflat ((embedding::halfvec(384)) halfvec_cosine_ops) WITH (lists = 180)"""


def replace_index(session: Session, definition: LiteralString) -> None:
    """Replace the index until the session's transaction ends."""
    # Without parallel workers, whose shared memory a container limits to 64 MB.
    session.execute(text("SET LOCAL maintenance_work_mem = '256MB'; SET LOCAL max_parallel_maintenance_workers = 0"))
    session.execute(text("DROP INDEX IF EXISTS idx_text_summary_embedding"))
    session.execute(text(definition))


def store_calibration(session: Session, calibration: Calibration) -> None:
    session.execute(text(f"COMMENT ON INDEX idx_text_summary_embedding IS '{calibration.to_comment()}'"))


def calibration_of(session: Session, *points: CalibrationPoint) -> Calibration:
    index = read_primary_index(session.connection(), EMBEDDING)
    assert index is not None
    return Calibration(
        rows=ROWS,
        filenode=index.filenode,
        table_filenode=index.table_filenode,
        recall=0.95,
        exact_milliseconds=50.0,
        points=points,
    )


def ids(matches: list[Any]) -> list[int]:
    return [match.row.id for match in matches]


def current_setting(session: Session, name: str) -> str:
    return str(session.scalar(text(f"SHOW {name}")))


def recall(session: Session, texts: Texts, **filters: Any) -> float:
    """The mean recall of searches, each of which must return ten rows."""
    mask = texts.clients == filters["client_id"] if "client_id" in filters else None
    recalls = []
    for query in texts.queries:
        found = ids(search(session, query, **filters))
        assert len(found) == 10
        recalls.append(len({*found} & {*texts.nearest(query, mask)}) / 10)
    return float(np.mean(recalls))
