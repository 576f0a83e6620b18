"""upsert_rows: it inserts new rows and updates existing rows, by any key."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from support.bulk_rows import END, FULL, START, embedding, kpi, stored
from support.sessions import session_on
from syntegra_db.bulk import BulkLoadError, BulkLockTimeout, RowRejected, async_upsert_rows, copy_rows, upsert_rows
from syntegra_db.models import Base, Cluster, DataSource, KpiSummary, TextSummary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sqlalchemy.ext.asyncio import AsyncSession

    from support.servers import Database

KEY = ("client_id", "kpi_name", "period_start", "period_end")
UNIQUE = "CREATE UNIQUE INDEX by_service ON kpi_summary (period_end, client_id, period_start, kpi_name)"
UNUSABLE = """
    CREATE UNIQUE INDEX partial ON kpi_summary (client_id, kpi_name, period_start, period_end) WHERE client_id < 0;
    CREATE UNIQUE INDEX wider ON kpi_summary (client_id, kpi_name, period_start, period_end, id);
    CREATE UNIQUE INDEX of_an_expression ON kpi_summary (client_id, lower(kpi_name), period_start, period_end, id)
"""


def values(session: Session) -> dict[int, int]:
    return {row["client_id"]: int(row["kpi_value"]) for row in stored(session, KpiSummary)}


@pytest.mark.parametrize("statements", ["", UNIQUE, UNUSABLE])
def test_rows_are_inserted_or_updated(session: Session, statements: str) -> None:
    session.execute(text(statements or "SELECT 1"))
    copy_rows(session, KpiSummary, [kpi(n, metadata_={"n": n}, calculated_at=START) for n in (1, 2, 3)])
    session.commit()
    reports: list[int] = []
    assert (
        upsert_rows(session, KpiSummary, [kpi(n, n * 10) for n in (2, 3, 4)], key=KEY, on_progress=reports.append) == 3
    )
    session.commit()
    assert values(session) == {1: 1, 2: 20, 3: 30, 4: 40}
    by_client = {row["client_id"]: row for row in stored(session, KpiSummary)}
    assert by_client[2]["metadata_"] == {"n": 2}
    assert by_client[2]["calculated_at"] == START
    assert by_client[4]["metadata_"] is None
    assert by_client[4]["calculated_at"] > START
    assert reports == [3]


@pytest.mark.parametrize("key", ["id", "client_id"])
def test_some_columns_of_existing_rows_are_updated(session: Session, key: str) -> None:
    session.execute(text("CREATE UNIQUE INDEX of_a_client ON kpi_summary (client_id)"))
    copy_rows(session, KpiSummary, [{"id": n, **kpi(n, metadata_={"n": n})} for n in (1, 2)])
    session.commit()
    rows = [{key: 2, "kpi_name": "new"}, {key: 1, "kpi_name": "newer"}]
    assert upsert_rows(session, KpiSummary, rows, key=[key]) == 2
    assert [row["kpi_name"] for row in stored(session, KpiSummary)] == ["newer", "new"]
    assert [row["metadata_"] for row in stored(session, KpiSummary)] == [{"n": 1}, {"n": 2}]
    with pytest.raises(RowRejected, match=r"kpi_summary\.\w+ cannot be NULL"):
        upsert_rows(session, KpiSummary, [{key: 3, "kpi_name": "new"}], key=[key])


def test_partial_updates_wait_for_each_other(database: Database) -> None:
    with session_on(database) as session, session_on(database) as other:
        copy_rows(session, KpiSummary, [{"id": n, **kpi(n)} for n in (1, 2)])
        session.commit()
        upsert_rows(session, KpiSummary, [{"id": 1, "kpi_value": 5}], key=["id"])
        other.execute(text("SET lock_timeout = '50ms'"))
        with pytest.raises(BulkLoadError, match="lock timeout"):
            upsert_rows(other, KpiSummary, [{"id": 2, "kpi_value": 6}], key=["id"])


@pytest.mark.parametrize("key", [["client_id", "sentiment"], ["client_id", "text_field"]])
def test_key_without_null_is_searched_with_a_hash(session: Session, key: list[str]) -> None:
    def rows(number: int, language: str) -> Iterator[dict[str, Any]]:
        return (
            {"client_id": 1, "text_field": f"s{n}", "sentiment": f"s{n}", "language": language} for n in range(number)
        )

    copy_rows(session, TextSummary, rows(20_000, "es"))
    session.execute(text("ANALYZE text_summary"))
    session.execute(text("SET LOCAL statement_timeout = '5s'"))
    assert upsert_rows(session, TextSummary, rows(5000, "pt"), key=key) == 5000
    found = session.execute(text("SELECT language, count(*) FROM text_summary GROUP BY 1 ORDER BY 1")).all()
    assert [tuple(row) for row in found] == [("es", 15_000), ("pt", 5000)]


@pytest.mark.parametrize("model", FULL)
def test_every_column_of_every_table_is_updated_by_id(session: Session, model: type[Base]) -> None:
    copy_rows(session, model, [{**FULL[model], "id": 1}])
    (copied,) = stored(session, model)
    client = "sector" if "sector" in FULL[model] else "client_id"
    changed = {**FULL[model], client: "another" if client == "sector" else 99}
    assert upsert_rows(session, model, [{"id": 1, **changed}, {"id": 2, **FULL[model]}], key=["id"]) == 2
    assert stored(session, model) == [{**copied, client: changed[client]}, copied]


@pytest.mark.parametrize("key", [["id"], ["client_id", "name"]])
def test_updated_at_is_set_as_the_models_set_it(session: Session, key: list[str]) -> None:
    long_ago = START - timedelta(days=1)
    copy_rows(session, DataSource, [{**FULL[DataSource], "id": 1, "updated_at": long_ago, "created_at": long_ago}])
    session.commit()
    row = {"id": 1, "client_id": 7, "name": FULL[DataSource]["name"], "type": "other"}
    upsert_rows(session, DataSource, [row], key=key)
    now = session.scalar(text("SELECT now()"))
    (found,) = stored(session, DataSource)
    assert (found["type"], found["updated_at"], found["created_at"]) == ("other", now, long_ago)
    upsert_rows(session, DataSource, [{**row, "updated_at": END}], key=key)
    assert stored(session, DataSource)[0]["updated_at"] == END


def test_rows_with_only_the_key_change_nothing_else(session: Session) -> None:
    copy_rows(session, KpiSummary, [kpi(1, 5)])
    assert upsert_rows(session, KpiSummary, [kpi(1, 5), kpi(2, 5)], key=[*KEY, "kpi_value"]) == 1
    assert values(session) == {1: 5, 2: 5}
    row = {"id": 100, "client_id": 1, "name": "x", "type": "y", "updated_at": START}
    session.execute(text("CREATE UNIQUE INDEX u ON data_sources (id, client_id, name, type, updated_at)"))
    assert [upsert_rows(session, DataSource, [row], key=[*row]) for _ in range(2)] == [1, 0]


@pytest.mark.parametrize("unique", ["", "NULLS DISTINCT", "NULLS NOT DISTINCT"])
def test_null_in_a_key_equals_null(session: Session, unique: str) -> None:
    if unique:
        session.execute(text(f"CREATE UNIQUE INDEX u ON text_summary (client_id, sentiment) {unique}"))
    rows: list[dict[str, Any]] = [
        {"client_id": 1, "sentiment": None, "text_field": "a"},
        {"client_id": 1, "sentiment": "b", "text_field": "b"},
    ]
    copy_rows(session, TextSummary, rows)
    rows = [{**row, "text_field": "changed", "embedding": embedding(1)} for row in rows]
    assert upsert_rows(session, TextSummary, rows, key=["client_id", "sentiment"]) == 2
    assert [row["text_field"] for row in stored(session, TextSummary)] == ["changed", "changed"]


def test_all_rows_with_the_key_are_updated(session: Session) -> None:
    copy_rows(session, KpiSummary, [kpi(1, 1), kpi(1, 2), kpi(2, 3)])
    assert upsert_rows(session, KpiSummary, [kpi(1, 9)], key=KEY) == 2
    assert [int(row["kpi_value"]) for row in stored(session, KpiSummary)] == [9, 9, 3]


@pytest.mark.parametrize("statement", ["SELECT 1", UNIQUE])
def test_two_rows_with_the_same_key_are_rejected(session: Session, statement: str) -> None:
    session.execute(text(statement))
    with pytest.raises(RowRejected) as info:
        upsert_rows(session, KpiSummary, [kpi(1), kpi(2), kpi(1, 5)], key=KEY)
    assert (info.value.row, info.value.constraint, info.value.sqlstate) == (3, None, "23505")
    assert "Row 3: an earlier row of the input has the same key (client_id, kpi_name" in str(info.value)
    session.rollback()
    assert values(session) == {}


def test_another_unique_key_is_reports_as_such(session: Session) -> None:
    session.execute(text("CREATE UNIQUE INDEX names ON data_sources (name)"))
    row = {"client_id": 1, "name": "x", "type": "y"}
    copy_rows(session, DataSource, [{"id": 100, **row}])
    with pytest.raises(RowRejected, match=r"data_sources already has a row with the same key \(names\)") as info:
        upsert_rows(session, DataSource, [{"id": 101, **row}], key=["id"])
    assert (info.value.row, info.value.constraint) == (None, "names")


def test_column_outside_the_models_is_unchanged(session: Session) -> None:
    session.execute(text("ALTER TABLE kpi_summary ADD note text NOT NULL DEFAULT 'of a service'"))
    copy_rows(session, KpiSummary, [kpi(1)])
    assert upsert_rows(session, KpiSummary, [kpi(1, 5), kpi(2, 5)], key=KEY) == 2
    assert values(session) == {1: 5, 2: 5}


def test_upsert_can_be_repeated_in_one_transaction_and_after_an_error(session: Session) -> None:
    for _ in range(2):
        upsert_rows(session, KpiSummary, [kpi(1, 5)], key=KEY)
        upsert_rows(session, Cluster, [{"client_id": 1, "cluster_id": 1, "features_json": {}}], key=["client_id"])
        with pytest.raises(RowRejected), session.begin_nested():
            upsert_rows(session, KpiSummary, [kpi(1, "x")], key=KEY)
    assert values(session) == {1: 5}
    assert len(stored(session, Cluster)) == 1


def test_search_path_does_not_change_the_tables_used(session: Session) -> None:
    session.execute(text("CREATE SCHEMA other; CREATE TABLE other.syntegra_db_stage (x int)"))
    session.execute(text("SET LOCAL search_path = public, other, pg_temp"))
    assert upsert_rows(session, KpiSummary, [kpi(1, 5)], key=KEY) == 1
    assert session.scalar(text("SELECT count(*) FROM other.syntegra_db_stage")) == 0
    assert session.scalar(text("SELECT count(*) FROM public.kpi_summary")) == 1


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (["client_id", "metadata"], "The rows for kpi_summary do not have metadata_, part of the key"),
        (["client"], "no column client"),
        ([], "no columns"),
    ],
)
def test_key_with_missing_columns_is_rejected(session: Session, key: list[str], message: str) -> None:
    with pytest.raises(BulkLoadError, match=message):
        upsert_rows(session, KpiSummary, [kpi(1)], key=key)


def test_autocommit_is_rejected(session: Session) -> None:
    session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
    with pytest.raises(BulkLoadError, match="AUTOCOMMIT"):
        upsert_rows(session, KpiSummary, [kpi(1)], key=KEY)


def test_two_phase_transaction_is_rejected(session: Session) -> None:
    with Session(session.get_bind(), twophase=True) as two_phase:
        assert copy_rows(two_phase, KpiSummary, [kpi(1)]) == 1
        with pytest.raises(
            BulkLoadError, match="temporary table, which PostgreSQL does not allow in a two-phase transaction"
        ):
            upsert_rows(two_phase, KpiSummary, [kpi(1)], key=KEY)
        two_phase.rollback()


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_higher_isolation_level_needs_a_unique_key(session: Session, level: str) -> None:
    session.connection(execution_options={"isolation_level": level})
    with pytest.raises(BulkLoadError, match="kpi_summary has no unique key on client_id, kpi_name"):
        upsert_rows(session, KpiSummary, [kpi(1)], key=KEY)
    assert upsert_rows(session, KpiSummary, [{"id": 1, **kpi(1)}], key=["id"]) == 1


@pytest.mark.parametrize("statement", ["SELECT 1", UNIQUE])
def test_concurrent_upserts_insert_a_key_once(database: Database, statement: str) -> None:
    with session_on(database) as session:
        session.execute(text(statement))
        session.commit()
    failures: list[Exception] = []
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        try:
            with session_on(database) as session:
                for turn in range(5):
                    barrier.wait(timeout=60)
                    clients = range(50) if number % 2 else reversed(range(50))
                    rows = [kpi(turn * 50 + client, number) for client in clients]
                    assert upsert_rows(session, KpiSummary, rows, key=KEY) == 50
                    session.commit()
        except Exception as failure:  # noqa: BLE001  asserted below
            failures.append(failure)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert database.query("SELECT count(*), count(DISTINCT client_id) FROM kpi_summary") == [(250, 250)]


def test_other_writers_do_not_wait_for_an_upsert(database: Database) -> None:
    with session_on(database) as session, session_on(database) as other:
        upsert_rows(session, KpiSummary, [kpi(1)], key=KEY)
        other.execute(text("SET lock_timeout = '5s'"))
        copy_rows(other, KpiSummary, [kpi(2)])
        other.add(KpiSummary(**kpi(3)))
        other.commit()
        upsert_rows(other, Cluster, [{"client_id": 1, "cluster_id": 1, "features_json": {}}], key=["client_id"])
        other.execute(text("SET lock_timeout = '50ms'"))
        with pytest.raises(BulkLoadError, match="lock timeout") as info:
            upsert_rows(other, KpiSummary, [kpi(4)], key=KEY)
        assert info.value.sqlstate == "55P03"
        session.commit()
        assert session.scalars(select(KpiSummary.client_id).order_by(KpiSummary.client_id)).all() == [1, 2, 3]


@pytest.mark.parametrize(("session_limit", "limit"), [("0", 0.3), ("5s", 0.3), ("300ms", 60)])
def test_upsert_behind_a_held_lock_ends_after_the_smaller_limit(
    database: Database, session_limit: str, limit: float
) -> None:
    with session_on(database) as holder, session_on(database) as waiting:
        upsert_rows(holder, KpiSummary, [kpi(1)], key=KEY)
        waiting.execute(text(f"SET lock_timeout = '{session_limit}'"))
        began = time.monotonic()
        with pytest.raises(BulkLockTimeout, match="roll back, and load again"):
            upsert_rows(waiting, KpiSummary, [kpi(2)], key=KEY, lock_timeout=limit)
        assert 0.2 < time.monotonic() - began < 3


def test_async_upsert_behind_a_held_lock_ends(
    database: Database, run: Callable[[Callable[[AsyncSession], Awaitable[int]]], int]
) -> None:
    with session_on(database) as holder:
        upsert_rows(holder, KpiSummary, [kpi(1)], key=KEY)
        with pytest.raises(BulkLockTimeout):
            run(lambda session: async_upsert_rows(session, KpiSummary, [kpi(2)], key=KEY, lock_timeout=0.3))


@pytest.mark.parametrize("limit", ["0", "1234ms", "1h"])
def test_upsert_keeps_lock_timeout_of_the_session(session: Session, limit: str) -> None:
    session.execute(text(f"SET LOCAL lock_timeout = '{limit}'"))
    before = session.scalar(text("SHOW lock_timeout"))
    upsert_rows(session, KpiSummary, [kpi(1)], key=KEY, lock_timeout=9)
    assert session.scalar(text("SHOW lock_timeout")) == before
