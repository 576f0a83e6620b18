"""With a client, ORM statements get the condition on `client_id`, which the planner uses before the policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import bindparam, delete, event, exists, func, insert, lambda_stmt, select, text, update
from sqlalchemy.orm import aliased, joinedload, selectinload, subqueryload

from support.clients import CLIENTS, KPIS_PER_CLIENT, SOURCES_PER_CLIENT
from syntegra_db.bulk import copy_rows
from syntegra_db.models import EMBEDDING_DIMENSIONS, Cluster, DataSource, KpiSummary, TextSummary, TrendSignal
from syntegra_db.tenancy import ClientSession, RowHidden, client
from syntegra_db.vectors import nearest, search

if TYPE_CHECKING:
    from support.servers import Database


def statements() -> dict[str, Any]:
    alias = aliased(KpiSummary)
    sources = select(DataSource.id).subquery()
    cte = select(KpiSummary).cte()
    return {
        "select": select(KpiSummary.client_id),
        "alias": select(alias.client_id),
        "join": select(KpiSummary.client_id).join(KpiSummary.source),
        "outer join": select(DataSource.client_id).join(alias, alias.client_id == DataSource.client_id, isouter=True),
        "subquery": select(DataSource.client_id).join(sources, sources.c.id == DataSource.id),
        "from subquery": select(cte.c.client_id),
        "scalar subquery": select(select(func.min(KpiSummary.client_id)).scalar_subquery()).select_from(TrendSignal),
        "exists": select(DataSource.client_id).where(exists().where(alias.client_id == DataSource.client_id)),
        "union": select(KpiSummary.client_id).union_all(select(DataSource.client_id)),
        "aggregate": select(func.avg(KpiSummary.client_id)),
        "group": select(KpiSummary.client_id).group_by(KpiSummary.client_id).having(func.count() > 0),
        "lambda": lambda_stmt(lambda: select(KpiSummary.client_id)),
        "with_only_columns": select(KpiSummary).with_only_columns(KpiSummary.client_id),
    }


@pytest.mark.each("form")
@pytest.mark.parametrize("form", statements())
def test_select_is_restricted_to_client_in_turn(admin_session: ClientSession, form: str) -> None:
    statement = statements()[form]
    for client_id in (*CLIENTS, *CLIENTS):
        with client(admin_session, client_id):
            assert set(admin_session.scalars(statement)) == {client_id}
            assert set(admin_session.scalars(statement, execution_options={"compiled_cache": None})) == {client_id}
    if form not in {"aggregate", "scalar subquery"}:
        assert set(admin_session.scalars(statement)) == set(CLIENTS)


def test_exists_and_count_are_restricted(admin_session: ClientSession) -> None:
    with client(admin_session, 7):
        assert admin_session.scalar(select(func.count()).select_from(KpiSummary)) == KPIS_PER_CLIENT
        found = exists().where(KpiSummary.client_id == 8)
        assert admin_session.scalar(select(func.count()).select_from(TrendSignal).where(found)) == 0


@pytest.mark.parametrize("load", [joinedload, selectinload, subqueryload])
def test_eager_loads_are_restricted(admin_session: ClientSession, load: Any) -> None:
    statements: list[str] = []
    event.listen(admin_session.get_bind(), "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    with client(admin_session, 7):
        rows = admin_session.scalars(select(KpiSummary).options(load(KpiSummary.source))).unique().all()
    assert {row.source.client_id for row in rows if row.source} == {7}
    selects = [statement for statement in statements if "data_sources" in statement]
    assert selects
    assert all(
        "data_sources_1.client_id = %" in statement or "data_sources.client_id = %" in statement
        for statement in selects
    )


def test_updates_and_deletes_are_restricted(admin_session: ClientSession) -> None:
    with client(admin_session, 7):
        admin_session.execute(update(Cluster).values(cluster_id=9))
        admin_session.execute(delete(KpiSummary))
        admin_session.execute(delete(DataSource).where(DataSource.id.in_(select(DataSource.id))))
    clusters = admin_session.execute(select(Cluster.client_id, Cluster.cluster_id)).all()
    assert {tuple(row) for row in clusters} == {(7, 9), (8, 1)}
    assert set(admin_session.scalars(select(KpiSummary.client_id))) == {8}
    assert set(admin_session.scalars(select(DataSource.client_id))) == {8}


def test_bulk_update_by_primary_key_changes_rows_of_client_only(session: ClientSession, protected: Database) -> None:
    with client(session, 7):
        row = session.scalars(select(Cluster)).one()
        session.execute(update(Cluster), [{"id": row.id, "cluster_id": 9}])
        [(other,)] = protected.query("SELECT id FROM clusters WHERE client_id = 8")
        values = {"id": other, "cluster_id": 9}
        for write in (
            lambda: session.execute(update(Cluster), [values]),
            lambda: session.bulk_update_mappings(Cluster, [values]),
        ):
            with pytest.raises(RowHidden, match="clusters"):
                write()
            session.rollback()
        session.execute(update(Cluster).where(Cluster.id.in_([row.id, other])).values(cluster_id=9))
        session.commit()
    assert set(protected.query("SELECT client_id, cluster_id FROM clusters")) == {(7, 9), (8, 1)}


def test_texts_are_loaded_and_searched_for_client(session: ClientSession) -> None:
    vector = [1.0] * EMBEDDING_DIMENSIONS
    for client_id in CLIENTS:
        with client(session, client_id):
            copy_rows(session, TextSummary, [{"client_id": client_id, "text_field": "x", "embedding": vector}])
    session.commit()
    for client_id in CLIENTS:
        with client(session, client_id):
            matches = search(session, vector)
            assert [match.row.client_id for match in matches] == [client_id]
            assert session.scalars(nearest(vector)).all() == [match.row for match in matches]


def test_parameter_of_caller_is_kept(admin_session: ClientSession) -> None:
    statement = select(KpiSummary.client_id).where(KpiSummary.client_id.in_([bindparam("client_id"), 7]))
    with client(admin_session, 7):
        assert set(admin_session.scalars(statement, {"client_id": 8})) == {7}
    assert set(admin_session.scalars(statement, {"client_id": 8})) == {7, 8}


def test_large_id_of_client_is_compared_as_bigint(admin_session: ClientSession) -> None:
    for client_id, expected in ((7, KPIS_PER_CLIENT), (2**62, 0)):
        with client(admin_session, client_id):
            assert len(admin_session.scalars(select(KpiSummary)).all()) == expected


def test_inserts_and_core_statements_are_left_as_they_are(session: ClientSession) -> None:
    with client(session, 7):
        session.execute(insert(Cluster), [{"client_id": 7, "cluster_id": 2, "features_json": {}}])
        assert set(session.scalars(select(Cluster.__table__.c.client_id))) == {7}
        assert len(session.scalars(select(TrendSignal)).all()) == 1
        rows = session.scalars(select(Cluster).from_statement(text("SELECT * FROM clusters"))).all()
        assert {row.client_id for row in rows} == {7}


def explain(session: ClientSession, statement: Any) -> str:
    """Return the plan that the server uses for the ORM's statement."""
    text_and_parameters: list[Any] = []

    def collect(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        text_and_parameters.extend([statement, parameters])

    bind = session.get_bind()
    event.listen(bind, "before_cursor_execute", collect)
    session.execute(statement)
    event.remove(bind, "before_cursor_execute", collect)
    sql, parameters = text_and_parameters
    rows = session.connection().exec_driver_sql(f"EXPLAIN (COSTS OFF) {sql}", parameters)
    return "\n".join(row[0] for row in rows)


def test_plan_checks_client_once_or_in_index(session: ClientSession, protected: Database) -> None:
    protected.execute(
        "INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end)"
        " SELECT n % 200, 'k' || n % 50, n, now(), now() FROM generate_series(1, 20000) AS n; ANALYZE kpi_summary"
    )
    with client(session, 7):
        for statement in (
            select(KpiSummary).where(KpiSummary.kpi_name == "k7"),
            select(KpiSummary).where(KpiSummary.id == 100),
            select(func.count()).select_from(KpiSummary),
            update(KpiSummary).where(KpiSummary.kpi_name == "k7").values(kpi_value=1),
            delete(KpiSummary).where(KpiSummary.kpi_name == "k7"),
        ):
            plan = explain(session, statement)
            assert "One-Time Filter" in plan
            assert "Index" in plan
        session.rollback()


def test_each_source_has_its_rows(session: ClientSession) -> None:
    with client(session, 7):
        assert len(session.scalars(select(DataSource)).all()) == SOURCES_PER_CLIENT
