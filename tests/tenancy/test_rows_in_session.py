"""The objects of one client in a session are not given to another, and come back with their client."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import joinedload, selectinload
from sqlalchemy.orm.exc import DetachedInstanceError

from support.clients import CLIENT_TABLES
from syntegra_db.models import AnomalyLog, Base, Cluster, DataSource, KpiSummary, TrendSignal
from syntegra_db.tenancy import ClientSession, RowHidden, client, session_factory

MODELS = [mapper.class_ for mapper in Base.registry.mappers if mapper.local_table.name in CLIENT_TABLES]  # type: ignore[attr-defined]
MODELS.sort(key=lambda model: model.__name__)


@pytest.mark.parametrize("model", MODELS)
def test_object_is_set_aside_for_inner_client_and_comes_back(session: ClientSession, model: type[Any]) -> None:
    with client(session, 7):
        row = session.scalars(select(model)).all()[0]
        identity = inspect(row).identity
        with client(session, 8):
            assert row not in session
            assert row.client_id == 7
            assert session.get(model, identity) is None
        assert row in session
        assert session.get(model, identity) is row


def test_object_of_ended_block_is_not_given_to_next_client(session: ClientSession) -> None:
    with client(session, 7):
        row = session.scalars(select(Cluster)).one()
    assert row in session
    with client(session, 8):
        assert row not in session
        assert session.get(Cluster, row.id) is None
    with client(session, 7):
        assert session.get(Cluster, row.id) is row


def test_object_expired_after_its_block_is_loaded_in_next_one(session: ClientSession) -> None:
    with client(session, 7):
        row = session.scalars(select(Cluster)).one()
    session.rollback()
    with client(session, 8):
        assert row not in session
    with client(session, 7):
        assert row.cluster_id == 1


def test_expired_object_is_loaded_when_its_client_returns(session: ClientSession) -> None:
    with client(session, 7):
        row = session.scalars(select(Cluster)).one()
        session.rollback()
        with client(session, 8), pytest.raises(DetachedInstanceError):
            _ = row.cluster_id
        assert row.cluster_id == 1


def test_change_of_set_aside_object_is_written_for_its_client(session: ClientSession) -> None:
    with client(session, 7):
        row = session.scalars(select(Cluster)).one()
        with client(session, 8):
            row.cluster_id = 9
            session.flush()
        assert session.dirty
        session.commit()
        assert session.scalar(text("SELECT cluster_id FROM clusters")) == 9


def test_rollback_inside_inner_block_reverts_objects_of_outer(session: ClientSession) -> None:
    with client(session, 7):
        row = session.scalars(select(Cluster)).one()
        row.cluster_id = 9
        new = Cluster(client_id=7, cluster_id=2, features_json={})
        session.add(new)
        with client(session, 8):
            session.rollback()
        assert row.cluster_id == 1
        assert inspect(new).transient


def test_savepoint_of_inner_block_leaves_objects_of_outer_loaded(session: ClientSession) -> None:
    with client(session, 7):
        row = session.scalars(select(Cluster)).one()
        with client(session, 8):
            session.begin_nested().rollback()
        assert inspect(row).expired_attributes == set()
        savepoint = session.begin_nested()
        row.cluster_id = 9
        with client(session, 8):
            session.execute(text("SELECT 1"))
            savepoint.rollback()
        assert row.cluster_id == 1


def test_closed_session_keeps_no_object_of_outer_block(session: ClientSession) -> None:
    with client(session, 7):
        row = session.scalars(select(Cluster)).one()
        with client(session, 8):
            session.close()
        assert row not in session


def test_shared_row_stays_in_session(session: ClientSession) -> None:
    row = session.scalars(select(TrendSignal)).one()
    with client(session, 7), client(session, 8):
        assert row in session


def test_object_taken_by_other_session_is_left_there(session: ClientSession) -> None:
    with client(session, 7):
        row = session.scalars(select(Cluster)).one()
        with client(session, 8), session_factory(session.get_bind())() as other:  # type: ignore[arg-type]
            other.add(row)
        assert row not in session or row not in other


def test_relationships_stay_within_client(session: ClientSession) -> None:
    with client(session, 7):
        for option in (joinedload(KpiSummary.source), selectinload(KpiSummary.source)):
            kpi = session.scalars(select(KpiSummary).options(option)).unique().first()
            assert kpi is not None
            assert kpi.source is not None
            source = kpi.source
            with client(session, 8):
                assert source not in session
                other = session.scalars(select(KpiSummary).options(option)).first()
                assert other is not None
                assert other.source is not None
                assert other.source.client_id == 8
            assert kpi.source is source
        assert {row.client_id for row in session.scalars(source.anomalies.select())} == {7}


def test_object_without_its_client_cannot_be_changed_or_refreshed(session: ClientSession) -> None:
    with client(session, 7):
        row = session.scalars(select(Cluster)).one()
    with pytest.raises(InvalidRequestError, match="Could not refresh"):
        session.refresh(row)
    with client(session, 7):
        session.refresh(row)
    row.cluster_id = 9
    with pytest.raises(RowHidden, match=r"clusters was not found.*no client is set"):
        session.commit()
    session.rollback()


def test_merged_object_of_other_client_is_not_found(session: ClientSession) -> None:
    with client(session, 7):
        row = session.scalars(select(Cluster)).one()
    with client(session, 8):
        assert session.merge(row) is not row
        assert session.new
        session.rollback()


def test_admin_gets_objects_of_client_of_block(admin_session: ClientSession) -> None:
    everything = admin_session.scalars(select(DataSource)).all()
    assert {row.client_id for row in everything} == {7, 8}
    with client(admin_session, 7):
        assert {row.client_id for row in admin_session.identity_map.values()} == {7}  # type: ignore[attr-defined]
        for row in everything:
            assert (admin_session.get(DataSource, inspect(row).identity) is row) == (row.client_id == 7)
    assert all(row in admin_session for row in everything)


def test_admin_does_not_refresh_expired_object_of_other_client(admin_session: ClientSession) -> None:
    row = admin_session.scalars(select(AnomalyLog).where(AnomalyLog.client_id == 8)).one()
    admin_session.expire(row)
    with client(admin_session, 7):
        assert admin_session.get(AnomalyLog, inspect(row).identity) is None
        with pytest.raises(DetachedInstanceError):
            _ = row.kpi_name
    assert row.kpi_name == "kpi"


@pytest.mark.parametrize("end", ["savepoint", "transaction"])
def test_row_that_a_rollback_restores_comes_back_in_its_own_block(session: ClientSession, end: str) -> None:
    with client(session, 7):
        row = session.scalars(select(Cluster)).one()
        identity = row.id
        savepoint = session.begin_nested()
        session.delete(row)
        with client(session, 8):
            (savepoint if end == "savepoint" else session).rollback()
            assert row not in session
            assert session.get(Cluster, identity) is None
        assert session.get(Cluster, identity) is row
        assert row.cluster_id == 1


def test_row_deleted_for_inner_client_is_not_restored_to_outer(session: ClientSession) -> None:
    with client(session, 7):
        savepoint = session.begin_nested()
        with client(session, 8):
            row = session.scalars(select(Cluster)).one()
            session.delete(row)
        savepoint.rollback()
        assert row not in session
        assert session.get(Cluster, row.id) is None
    with client(session, 8):
        assert session.get(Cluster, row.id) is not None
