"""The data of the demo: what `load` inserts, replaces and keeps."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import ColumnClause, Row, literal_column, select

from demo.load import (
    CLIENT_IDS,
    CLIENT_TABLES,
    MARK,
    SOURCE_TYPE,
    ClientIdsTaken,
    Sector,
    delete_demo,
    read_embeddings,
    read_rows,
    sector_name,
)
from support.demo_rows import ROWS, TABLES, counts, load_once
from syntegra_db import migrations
from syntegra_db.models import (
    EMBEDDING_DIMENSIONS,
    AnomalyLog,
    Base,
    Cluster,
    DataSource,
    KpiSummary,
    ProcessedData,
    TextSummary,
    TrendSignal,
    TrendStatus,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from support.servers import Database

PERIOD: dict[str, Any] = {
    "period_start": datetime(2026, 1, 1, tzinfo=UTC),
    "period_end": datetime(2026, 2, 1, tzinfo=UTC),
}


def snapshot(session: Session) -> dict[str, list[Row[Any]]]:
    """Return every row of every table, with its position on disk and the transaction that wrote it."""
    stored: tuple[ColumnClause[str], ...] = (literal_column("ctid::text"), literal_column("xmin::text"))
    return {table.name: list(session.execute(select(table, *stored).order_by(table.c.id))) for table in TABLES}


def rows_of(client: int, source: DataSource | None, sector: str, features: dict[str, Any]) -> list[Base]:
    """Return one row of each table except data_sources."""
    return [
        ProcessedData(client_id=client, source=source, source_type="retail", data={"orders": 1}),
        KpiSummary(client_id=client, source=source, kpi_name="orders", kpi_value=Decimal(1), **PERIOD),
        TextSummary(client_id=client, source=source, text_field="Todo bien.", embedding=read_embeddings()[0]),
        TrendSignal(sector=sector, term="lino", status=TrendStatus.EMERGENT, delta_pct=999.0, **PERIOD),
        Cluster(client_id=client, cluster_id=0, features_json=features),
        AnomalyLog(client_id=client, source=source, kpi_name="orders", value=Decimal(1)),
    ]


def test_load_inserts_rows_into_all_seven_tables(sessions: sessionmaker[Session]) -> None:
    loaded = load_once(sessions)
    with sessions() as session:
        assert counts(session) == loaded.rows == ROWS


def test_loaded_texts_equal_rows_of_files(sessions: sessionmaker[Session]) -> None:
    loaded = load_once(sessions)
    with sessions() as session:
        texts = session.scalars(select(TextSummary).order_by(TextSummary.id)).all()
        sources = {source.id: source for source in session.scalars(select(DataSource))}
    rows = read_rows("texts")
    assert [row.id for row in texts] == loaded.text_ids
    assert [row.text_field for row in texts] == [row["text_field"] for row in rows]
    assert [row.client_id for row in texts] == [-int(row["client_id"]) for row in rows]
    assert [row.created_at for row in texts] == [datetime.fromisoformat(row["created_at"]) for row in rows]
    assert [row.source_id and sources[row.source_id].type for row in texts] == [SOURCE_TYPE] * len(rows)
    stored = np.array([list(row.embedding or ()) for row in texts])
    np.testing.assert_allclose(stored, read_embeddings(), atol=1e-7)


def test_second_load_replaces_first(sessions: sessionmaker[Session]) -> None:
    first, second = load_once(sessions), load_once(sessions)
    with sessions() as session:
        assert counts(session) == ROWS
        assert session.scalars(select(TextSummary.id).order_by(TextSummary.id)).all() == second.text_ids
    assert not set(first.text_ids) & set(second.text_ids)


def test_load_and_delete_keep_other_rows_unchanged(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        plain = DataSource(client_id=1, name="Demo of a retail business", type="simple_csv")
        same_type = DataSource(client_id=2, name="Demo of a retail business", type=SOURCE_TYPE)
        session.add_all([plain, *rows_of(1, plain, "retail", MARK)])
        session.add_all([same_type, *rows_of(2, same_type, sector_name(Sector.RETAIL), MARK)])
    with sessions() as session:
        before = snapshot(session)
    load_once(sessions)
    load_once(sessions)
    with sessions() as session:
        assert {name: number - 2 for name, number in counts(session).items()} == ROWS
    with sessions.begin() as session:
        delete_demo(session)
    with sessions() as session:
        assert snapshot(session) == before


@pytest.mark.parametrize("model", CLIENT_TABLES)
def test_load_with_foreign_rows_of_demo_client_changes_nothing(
    sessions: sessionmaker[Session], model: type[Base]
) -> None:
    load_once(sessions)
    source = DataSource(client_id=-1, name="Ventas", type="simple_csv")
    foreign_rows = [source, *rows_of(-1, None, "retail", {"orders": 1})]
    foreign_row = next(row for row in foreign_rows if isinstance(row, model))
    with sessions.begin() as session:
        session.add(foreign_row)
    with sessions() as session:
        before = snapshot(session)
    with pytest.raises(ClientIdsTaken, match=foreign_row.__tablename__):
        load_once(sessions)
    with sessions() as session:
        assert snapshot(session) == before


def test_load_after_downgrade_and_upgrade_inserts_all_rows(sessions: sessionmaker[Session], database: Database) -> None:
    load_once(sessions)
    migrations.downgrade("002", database.url)
    migrations.upgrade(url=database.url)
    load_once(sessions)
    with sessions() as session:
        assert counts(session) == ROWS


def test_embeddings_have_one_unit_vector_per_text() -> None:
    embeddings = np.array(read_embeddings())
    assert embeddings.shape == (len(read_rows("texts")), EMBEDDING_DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3)


def test_files_contain_three_clients_and_sectors() -> None:
    numbers = {str(number): str(sector) for number, sector in enumerate(Sector, start=1)}
    assert {row["client_id"]: row["source_type"] for row in read_rows("texts")} == numbers
    for name in ("kpis", "clusters", "anomalies"):
        assert {row["client_id"] for row in read_rows(name)} == numbers.keys()
    assert {row["sector"] for row in read_rows("trends")} == set(Sector)
    assert all(identifier < 0 for identifier in CLIENT_IDS)
