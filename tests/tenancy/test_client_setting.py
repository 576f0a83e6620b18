"""The setting of a transaction follows the blocks of its session, whatever ends or interrupts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.orm import Session, scoped_session

from support.clients import KPIS_PER_CLIENT, SERVICE
from syntegra_db.database import create_engine
from syntegra_db.errors import InvalidClient, UnsupportedSession
from syntegra_db.models import Cluster, KpiSummary
from syntegra_db.tenancy import ClientSession, client, session_factory

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from support.servers import Database

SETTING = text("SELECT current_setting('syntegra.client_id', true)")
# Without the condition of the ORM, which an admin's session would also have.
VISIBLE = text("SELECT DISTINCT client_id FROM kpi_summary")


def setting(session: Session) -> Any:
    return session.scalar(SETTING)


def visible_clients(session: Session) -> list[int]:
    return list(session.scalars(VISIBLE))


def add_and_fail(session: ClientSession, row: Cluster) -> NoReturn:
    with client(session, row.client_id):
        session.add(row)
        raise LookupError


def terminate(session: Session, database: Database) -> None:
    pid = session.scalar(text("SELECT pg_backend_pid()"))
    with database.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])


def test_client_of_block_sees_its_rows_only(session: ClientSession) -> None:
    assert visible_clients(session) == []
    with client(session, 7):
        assert setting(session) == str(session.client_id) == "7"
        assert visible_clients(session) == [7]
        assert session.scalar(select(func.count()).select_from(KpiSummary)) == KPIS_PER_CLIENT
    assert session.client_id is None
    assert visible_clients(session) == []


@pytest.mark.parametrize("client_id", [0, -1, 2**63 - 1, -(2**63)])
def test_any_bigint_is_client(session: ClientSession, client_id: int) -> None:
    with client(session, client_id):
        session.add(Cluster(client_id=client_id, cluster_id=1, features_json={}))
        session.flush()
        assert session.scalars(select(Cluster.client_id)).all() == [client_id]


@pytest.mark.parametrize("client_id", [None, True, "7", 7.0, 2**63, -(2**63) - 1])
def test_other_value_is_rejected_without_showing_it(session: ClientSession, client_id: Any) -> None:
    with client(session, 8):
        with pytest.raises(InvalidClient, match="id") as error, client(session, client_id):
            pytest.fail("entered")
        assert str(client_id) not in str(error.value) or client_id is None or client_id is True
        assert visible_clients(session) == [8]


def test_nested_blocks_restore_outer_client(session: ClientSession) -> None:
    with client(session, 7):
        with client(session, 8):
            with client(session, 8):
                assert visible_clients(session) == [8]
            assert visible_clients(session) == [8]
        assert visible_clients(session) == [7]
    assert setting(session) == ""


def test_transactions_inside_block_each_have_client(session: ClientSession) -> None:
    with client(session, 7):
        for end in (session.commit, session.rollback, session.close):
            assert visible_clients(session) == [7]
            end()
            assert not session.in_transaction()
        assert visible_clients(session) == [7]
    assert setting(session) == ""


def test_block_ends_after_its_transaction(session: ClientSession) -> None:
    for end in (session.commit, session.rollback, session.close):
        with client(session, 7):
            assert visible_clients(session) == [7]
            end()
        assert visible_clients(session) == []
        session.rollback()


def test_session_level_setting_of_connection_does_not_apply(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("SET syntegra.client_id = '8'"))
        connection.commit()
    with session_factory(engine)() as session:
        assert visible_clients(session) == []
        session.rollback()
        with client(session, 7):
            assert visible_clients(session) == [7]
        session.commit()
        assert visible_clients(session) == []


def test_setting_ends_with_transaction(engine: Engine) -> None:
    with session_factory(engine)() as session, client(session, 7):
        assert setting(session) == "7"
        session.commit()
        with engine.connect() as connection:
            assert connection.scalar(SETTING) == ""


def test_savepoint_rollback_inside_block_keeps_client(session: ClientSession) -> None:
    savepoint = session.begin_nested()
    session.execute(text("SELECT 1"))
    with client(session, 7):
        assert visible_clients(session) == [7]
        savepoint.rollback()
        assert visible_clients(session) == [7]
        with session.begin_nested():
            assert visible_clients(session) == [7]
        assert visible_clients(session) == [7]
    assert setting(session) == ""


def test_savepoint_rollback_after_block_keeps_outer_client(session: ClientSession) -> None:
    with client(session, 8):
        savepoint = session.begin_nested()
        with client(session, 7):
            inner = session.begin_nested()
            assert visible_clients(session) == [7]
            with client(session, 8):
                inner.rollback()
                assert visible_clients(session) == [8]
            assert visible_clients(session) == [7]
        savepoint.rollback()
        assert visible_clients(session) == [8]
    assert visible_clients(session) == []


def test_failed_savepoint_inside_blocks_restores_client(session: ClientSession) -> None:
    with client(session, 7):
        with pytest.raises(DBAPIError), session.begin_nested(), client(session, 8):
            session.execute(text("SELECT 1 / 0"))
        assert session.client_id == 7
        assert visible_clients(session) == [7]


def test_failed_transaction_is_not_touched(session: ClientSession) -> None:
    with client(session, 8):
        with pytest.raises(DBAPIError, match="division by zero"), client(session, 7):
            session.execute(text("SELECT 1 / 0"))
        assert session.client_id == 8
        with pytest.raises(DBAPIError, match="transaction is aborted"):
            visible_clients(session)
        session.rollback()
        assert visible_clients(session) == [8]


def test_error_handled_inside_block_leaves_transaction_failed(session: ClientSession) -> None:
    with client(session, 7), pytest.raises(DBAPIError, match="division by zero"):
        session.execute(text("SELECT 1 / 0"))
    session.rollback()
    assert visible_clients(session) == []


def test_failed_flush_of_block_needs_rollback(session: ClientSession) -> None:
    driver = session.connection().connection.driver_connection
    assert driver is not None
    with pytest.raises(DBAPIError, match="distance_not_negative"), client(session, 7):
        session.add(Cluster(client_id=7, cluster_id=1, features_json={}, distance_to_centroid=-1.0))
    assert session.client_id is None
    # The flush ended the transaction; nothing begins another one behind the session.
    assert driver.info.transaction_status == TransactionStatus.IDLE
    with pytest.raises(PendingRollbackError):
        visible_clients(session)
    session.rollback()
    assert visible_clients(session) == []


def test_error_of_block_is_raised_with_note_about_its_changes(session: ClientSession) -> None:
    with pytest.raises(LookupError) as error:
        add_and_fail(session, Cluster(client_id=7, cluster_id=1, features_json={}, distance_to_centroid=-1.0))
    assert "distance_not_negative" in error.value.__notes__[0]
    assert session.client_id is None


def test_changes_are_written_for_client_of_their_block(session: ClientSession) -> None:
    with client(session, 7):
        session.add(Cluster(client_id=7, cluster_id=70, features_json={}))
        with client(session, 8):
            session.add(Cluster(client_id=8, cluster_id=80, features_json={}))
        with pytest.raises(LookupError):
            add_and_fail(session, Cluster(client_id=8, cluster_id=81, features_json={}))
    session.commit()
    for client_id, expected in ((7, [1, 70]), (8, [1, 80, 81])):
        with client(session, client_id):
            assert sorted(session.scalars(select(Cluster.cluster_id))) == expected


def test_lost_connection_leaves_session_without_client(session: ClientSession, protected: Database) -> None:
    with client(session, 7):
        terminate(session, protected)
        with pytest.raises(DBAPIError):
            visible_clients(session)
    assert session.client_id is None
    session.rollback()
    assert visible_clients(session) == []


def test_connection_lost_before_end_of_block_is_reported(session: ClientSession, protected: Database) -> None:
    with pytest.raises(DBAPIError), client(session, 7):
        terminate(session, protected)
    assert session.client_id is None
    session.rollback()
    assert visible_clients(session) == []


def test_blocks_left_in_other_order_leave_no_client(session: ClientSession) -> None:
    outer, inner = client(session, 7), client(session, 8)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert visible_clients(session) == []
    inner.__exit__(None, None, None)
    assert session.client_id is None
    assert visible_clients(session) == []


@pytest.mark.parametrize("mode", ["conditional_savepoint", "rollback_only", "create_savepoint", "control_fully"])
@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
def test_transaction_of_caller_has_no_client_after_session(engine: Engine, mode: Any, end: str) -> None:
    with engine.connect() as connection:
        connection.begin()
        connection.execute(text("SELECT 1"))
        with ClientSession(connection, join_transaction_mode=mode) as session, client(session, 7):
            assert visible_clients(session) == [7]
            getattr(session, end)()
            assert not connection.scalar(SETTING)
            connection.rollback()
            assert visible_clients(session) == [7]
        assert not connection.scalar(SETTING)


@pytest.mark.parametrize("place", ["engine", "connection"])
def test_autocommit_is_rejected_each_time(protected: Database, place: str) -> None:
    options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"} if place == "engine" else {}
    engine = create_engine(protected.url_as(SERVICE), **options)
    with session_factory(engine)() as session, client(session, 7):
        for _ in range(2):
            with pytest.raises(UnsupportedSession, match="autocommit"):
                session.connection(execution_options={"isolation_level": "AUTOCOMMIT"} if place == "connection" else {})
            with pytest.raises(PendingRollbackError):
                visible_clients(session)
            session.rollback()
    engine.dispose()


def test_two_phase_session_is_rejected(engine: Engine) -> None:
    with ClientSession(engine, twophase=True) as session:
        with pytest.raises(UnsupportedSession, match="two-phase"):
            visible_clients(session)
        session.rollback()


def test_session_of_other_class_is_rejected(engine: Engine) -> None:
    with Session(engine) as session, pytest.raises(UnsupportedSession, match="session_factory"), client(session, 7):
        pytest.fail("entered")


def test_scoped_session_has_client(engine: Engine) -> None:
    registry = scoped_session(session_factory(engine))
    with client(registry, 7):
        assert visible_clients(registry()) == [7]
    registry.remove()


def test_pipeline_has_client(session: ClientSession) -> None:
    connection = session.connection().connection.driver_connection
    assert connection is not None
    with connection.pipeline():
        with client(session, 7):
            cursor = connection.execute("SELECT DISTINCT client_id FROM kpi_summary")
            assert cursor.fetchall() == [(7,)]
        cursor = connection.execute("SELECT DISTINCT client_id FROM kpi_summary")
        assert cursor.fetchall() == []


def test_setting_is_not_prepared(session: ClientSession) -> None:
    for _ in range(10):
        with client(session, 7):
            session.scalars(VISIBLE)
        session.rollback()
    statements = session.scalars(text("SELECT statement FROM pg_prepared_statements")).all()
    assert not [statement for statement in statements if "set_config" in statement]
