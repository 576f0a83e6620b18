"""The demo that `make demo` runs: what it loads, what it leaves alone, what it answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import ColumnClause, Row, func, literal_column, select

from demo.load import (
    CLIENT_IDS,
    CLIENT_TABLES,
    MARK,
    SOURCE_TYPE,
    ClientIdsTaken,
    Loaded,
    Sector,
    client_id,
    delete_demo,
    load,
    read_embeddings,
    read_rows,
    sector_name,
)
from demo.questions import emergent_trends, latest_kpis, nearest_texts
from syntegra_db.database import create_engine, session_factory
from syntegra_db.errors import DatabaseBehind, ServerUnreachable
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
    from collections.abc import Iterator

    from sqlalchemy.orm import Session, sessionmaker

    from support.servers import Database

CHECKOUT = Path(__file__).resolve().parents[2]
ROWS = {
    "data_sources": 3,
    "processed_data": 30,
    "kpi_summary": 110,
    "text_summary": 320,
    "trend_signals": 24,
    "clusters": 6,
    "anomaly_log": 6,
}
TABLES = Base.metadata.sorted_tables
JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
FEBRUARY = datetime(2026, 2, 1, tzinfo=UTC)
NOBODYS_TEXT_ID = 10**12


@pytest.fixture
def sessions(database: Database) -> Iterator[sessionmaker[Session]]:
    engine = create_engine(database.url)
    yield session_factory(engine)
    engine.dispose()


def load_once(sessions: sessionmaker[Session]) -> Loaded:
    with sessions.begin() as session:
        return load(session)


def counts(session: Session) -> dict[str, int]:
    return {table.name: session.scalars(select(func.count()).select_from(table)).one() for table in TABLES}


def snapshot(session: Session) -> dict[str, list[Row[Any]]]:
    """Every row of every table, its place on disk and the transaction that wrote it included."""
    stored: tuple[ColumnClause[str], ...] = (literal_column("ctid::text"), literal_column("xmin::text"))
    return {table.name: list(session.execute(select(table, *stored).order_by(table.c.id))) for table in TABLES}


def rows_of(client: int, source: DataSource | None, sector: str, features: dict[str, Any]) -> list[Base]:
    """A row in each table but data_sources."""
    period = {"period_start": JANUARY, "period_end": FEBRUARY}
    return [
        ProcessedData(client_id=client, source=source, source_type="retail", data={"orders": 1}),
        KpiSummary(client_id=client, source=source, kpi_name="orders", kpi_value=Decimal(1), **period),
        TextSummary(client_id=client, source=source, text_field="Todo bien.", embedding=read_embeddings()[0]),
        TrendSignal(sector=sector, term="lino", status=TrendStatus.EMERGENT, delta_pct=999.0, **period),
        Cluster(client_id=client, cluster_id=0, features_json=features),
        AnomalyLog(client_id=client, source=source, kpi_name="orders", value=Decimal(1)),
    ]


def test_a_load_fills_all_seven_tables(sessions: sessionmaker[Session]) -> None:
    loaded = load_once(sessions)
    with sessions() as session:
        assert counts(session) == loaded.rows == ROWS


def test_the_rows_are_those_of_the_files(sessions: sessionmaker[Session]) -> None:
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


def test_a_second_load_replaces_the_first(sessions: sessionmaker[Session]) -> None:
    first, second = load_once(sessions), load_once(sessions)
    with sessions() as session:
        assert counts(session) == ROWS
        assert session.scalars(select(TextSummary.id).order_by(TextSummary.id)).all() == second.text_ids
    assert not set(first.text_ids) & set(second.text_ids)


def test_rows_of_others_stay_as_they_are(sessions: sessionmaker[Session]) -> None:
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
def test_a_demo_client_with_rows_of_somebody_else_is_refused(
    sessions: sessionmaker[Session], model: type[Base]
) -> None:
    load_once(sessions)
    source = DataSource(client_id=-1, name="Ventas", type="simple_csv")
    strangers = [source, *rows_of(-1, None, "retail", {"orders": 1})]
    stranger = next(row for row in strangers if isinstance(row, model))
    with sessions.begin() as session:
        session.add(stranger)
    with sessions() as session:
        before = snapshot(session)
    with pytest.raises(ClientIdsTaken, match=stranger.__tablename__):
        load_once(sessions)
    with sessions() as session:
        assert snapshot(session) == before


def test_a_database_that_went_back_to_002_and_up_again_takes_the_demo(
    sessions: sessionmaker[Session], database: Database
) -> None:
    from syntegra_db import migrations

    load_once(sessions)
    migrations.downgrade("002", database.url)
    migrations.upgrade(url=database.url)
    load_once(sessions)
    with sessions() as session:
        assert counts(session) == ROWS


def test_embeddings_are_one_a_text_and_of_unit_length() -> None:
    embeddings = read_embeddings()
    assert embeddings.shape == (len(read_rows("texts")), EMBEDDING_DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3)


def test_the_data_are_of_the_three_clients_and_sectors() -> None:
    numbers = {str(number): str(sector) for number, sector in enumerate(Sector, start=1)}
    assert {row["client_id"]: row["source_type"] for row in read_rows("texts")} == numbers
    for name in ("kpis", "clusters", "anomalies"):
        assert {row["client_id"] for row in read_rows(name)} == numbers.keys()
    assert {row["sector"] for row in read_rows("trends")} == set(Sector)
    assert all(identifier < 0 for identifier in CLIENT_IDS)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_latest_kpis_are_one_a_kpi_of_the_newest_period(sessions: sessionmaker[Session], number: int) -> None:
    load_once(sessions)
    rows = [row for row in read_rows("kpis") if row["client_id"] == str(number)]
    newest = {row["kpi_name"]: row for row in sorted(rows, key=lambda row: row["period_start"])}
    with sessions() as session:
        found = latest_kpis(session, client_id(number))
    assert [kpi.kpi_name for kpi in found] == sorted(newest)
    for kpi in found:
        row = newest[kpi.kpi_name]
        assert (kpi.value, kpi.unit) == (Decimal(row["kpi_value"]), row["unit"])
        assert (kpi.period_start, kpi.period_end) == (
            datetime.fromisoformat(row["period_start"]),
            datetime.fromisoformat(row["period_end"]),
        )


def test_the_last_calculated_value_of_a_period_counts(sessions: sessionmaker[Session]) -> None:
    period = {"period_start": JANUARY, "period_end": FEBRUARY}
    with sessions.begin() as session:
        for value, calculated_at in ((2, FEBRUARY), (1, JANUARY)):
            session.add(
                KpiSummary(
                    client_id=7, kpi_name="orders", kpi_value=Decimal(value), calculated_at=calculated_at, **period
                )
            )
    with sessions() as session:
        (kpi,) = latest_kpis(session, 7)
    assert (kpi.value, kpi.unit) == (Decimal(2), None)


@pytest.mark.parametrize("sector", Sector)
def test_emergent_trends_are_those_of_the_sector_the_steepest_first(
    sessions: sessionmaker[Session], sector: Sector
) -> None:
    load_once(sessions)
    wanted = Counter(
        (row["term"], float(row["delta_pct"]), int(row["frequency"]))
        for row in read_rows("trends")
        if row["sector"] == sector and row["status"] == "emergent"
    )
    with sessions() as session:
        found = emergent_trends(session, sector_name(sector))
        assert not emergent_trends(session, sector)
    assert Counter((trend.term, trend.delta_pct, trend.frequency) for trend in found) == wanted
    changes = [trend.delta_pct for trend in found if trend.delta_pct is not None]
    assert changes == sorted(changes, reverse=True)


def test_the_nearest_five_of_every_text_are_those_of_a_brute_force(sessions: sessionmaker[Session]) -> None:
    loaded = load_once(sessions)
    embeddings = read_embeddings().astype(np.float64)
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    distances = 1 - units @ units.T
    clients = np.array([row["client_id"] for row in read_rows("texts")])
    distances[clients[:, None] != clients] = np.inf
    np.fill_diagonal(distances, np.inf)
    with sessions() as session:
        for place, text_id in enumerate(loaded.text_ids):
            found = nearest_texts(session, text_id)
            # Two texts closer together than single precision tells apart may come in either order.
            nearest = [loaded.text_ids.index(near.text_id) for near in found]
            np.testing.assert_allclose(distances[place, nearest], np.sort(distances[place])[:5], atol=1e-6)
            np.testing.assert_allclose([near.distance for near in found], distances[place, nearest], atol=1e-6)
            assert len(set(nearest)) == 5


def test_the_text_that_is_asked_by_default_has_neighbours_on_its_topic(sessions: sessionmaker[Session]) -> None:
    from demo.__main__ import GLUTEN_FREE_BREAD

    loaded = load_once(sessions)
    with sessions() as session:
        found = nearest_texts(session, loaded.text_ids[GLUTEN_FREE_BREAD - 1])
    assert all("sin gluten" in near.text for near in found)
    assert all(nearer.distance <= farther.distance for nearer, farther in pairwise(found))


def test_a_text_that_does_not_exist_or_has_no_embedding_has_no_neighbours(sessions: sessionmaker[Session]) -> None:
    load_once(sessions)
    with sessions.begin() as session:
        bare = TextSummary(client_id=1, text_field="Todo bien.")
        session.add_all([bare, TextSummary(client_id=1, text_field="Todo mal.", embedding=read_embeddings()[0])])
    with sessions() as session:
        assert not nearest_texts(session, NOBODYS_TEXT_ID)
        assert not nearest_texts(session, bare.id)


def run_demo(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DATABASE_URL": url, "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", "demo", *options],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_answers_three_questions(database: Database) -> None:
    for _ in range(2):
        demo = run_demo(database.environment_url)
        assert (demo.returncode, demo.stderr) == (0, "")
        for part in ("client_id -1", "avg_ticket", "terraza", "+66.7 %", "cerveza sin gluten"):
            assert part in demo.stdout


def test_the_command_takes_a_client_a_sector_and_a_text(database: Database) -> None:
    demo = run_demo(database.environment_url, "--client", "3", "--sector", "service", "--text", "262")
    assert (demo.returncode, demo.stderr) == (0, "")
    for part in ("client_id -3", "resolution_hours", "esim", "Turquía"):
        assert part in demo.stdout


@pytest.mark.parametrize("options", [("--client", "4"), ("--sector", "farming"), ("--text", "321")])
def test_the_command_refuses_what_the_demo_has_not(database: Database, options: tuple[str, str]) -> None:
    demo = run_demo(database.environment_url, *options)
    assert demo.returncode == 2
    assert options[0] in demo.stderr
    assert "Traceback" not in demo.stderr


def test_the_command_says_in_one_line_what_is_wrong(empty_database: Database) -> None:
    behind = run_demo(empty_database.environment_url)
    nobody = run_demo("postgresql://postgres@127.0.0.1:1/nothing")
    assert (behind.returncode, nobody.returncode) == (DatabaseBehind.exit_status, ServerUnreachable.exit_status)
    for demo in (behind, nobody):
        assert demo.stdout == ""
        assert len(demo.stderr.splitlines()) == 1
        assert demo.stderr.startswith("Error: ")
