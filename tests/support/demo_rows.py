"""The demo's rows, loaded in one transaction and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from demo.load import Loaded, load
from syntegra_db.models import Base

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

TABLES = Base.metadata.sorted_tables
# Number of rows of the demo by table.
ROWS = {
    "data_sources": 3,
    "processed_data": 30,
    "kpi_summary": 110,
    "text_summary": 320,
    "trend_signals": 24,
    "clusters": 6,
    "anomaly_log": 6,
}


def load_once(sessions: sessionmaker[Session]) -> Loaded:
    with sessions.begin() as session:
        return load(session)


def counts(session: Session) -> dict[str, int]:
    return {table.name: session.scalars(select(func.count()).select_from(table)).one() for table in TABLES}
