"""Loads under row-level security: the rows are staged, and the errors are those of COPY."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from support.bulk_rows import FULL, SECRET, START, kpi, stored
from support.logins import set_client
from syntegra_db.bulk import BulkLoadError, RowRejected, async_copy_rows, async_upsert_rows, copy_rows, upsert_rows
from syntegra_db.database import create_async_engine
from syntegra_db.models import Base, DataSource, KpiSummary, TextSummary, TrendSignal

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from support.logins import Logins
    from support.servers import Database

KEY = ("client_id", "kpi_name", "period_start", "period_end")
UNIQUE = "CREATE UNIQUE INDEX by_period ON kpi_summary (client_id, kpi_name, period_start, period_end)"
CLIENTS = [model for model in FULL if model is not TrendSignal]


def kpis(count: int) -> list[dict[str, Any]]:
    """Rows of client 7, each with another name and value."""
    return [kpi(7, number, kpi_name=f"k{number}") for number in range(1, count + 1)]


def rejected(session: Session, model: type[Base], rows: Any, **options: Any) -> RowRejected:
    """Return the error of a load, after checking that it shows no value and that the transaction has failed."""
    load = upsert_rows if "key" in options else copy_rows
    with pytest.raises(RowRejected) as info:
        load(session, model, rows, **options)
    assert SECRET not in str(info.value) + repr(vars(info.value)) + repr(info.value.__context__)
    with pytest.raises(Exception, match="current transaction is aborted"):
        session.execute(text("SELECT 1"))
    session.rollback()
    return info.value


@pytest.mark.parametrize("model", CLIENTS)
def test_rows_of_the_client_are_stored_as_copy_stores_them(
    service: Session, separated: Database, model: type[Base]
) -> None:
    row = {**FULL[model], "client_id": 7}
    assert copy_rows(service, model, [row, row]) == 2
    service.commit()
    with Session(separated.engine) as owner:
        copy_rows(owner, model, [row])
        first, second, copied = stored(owner, model)
    assert first == second == copied


def test_columns_without_values_get_the_servers_defaults(service: Session) -> None:
    copy_rows(service, DataSource, [{"client_id": 7, "name": "till", "type": "simple_csv"}])
    (row,) = stored(service, DataSource)
    assert (row["config_json"], row["status"], row["updated_at"]) == ({}, "idle", service.scalar(text("SELECT now()")))


def test_ids_are_in_the_order_of_the_input(service: Session) -> None:
    reports: list[int] = []
    rows = (kpi(7, n, kpi_name=f"k{n % 7}") for n in range(3001))
    assert copy_rows(service, KpiSummary, rows, on_progress=reports.append) == 3001
    assert [row["kpi_value"] for row in stored(service, KpiSummary)] == list(range(3001))
    assert reports == [1000, 2000, 3000, 3001]


def test_admin_loads_rows_of_all_clients_and_shared_rows(admin: Session) -> None:
    assert copy_rows(admin, KpiSummary, [kpi(7), kpi(8)]) == 2
    assert upsert_rows(admin, KpiSummary, [kpi(8, 5), kpi(9, 5)], key=KEY) == 2
    assert copy_rows(admin, TrendSignal, [FULL[TrendSignal]]) == 1
    assert [(row["client_id"], row["kpi_value"]) for row in stored(admin, KpiSummary)] == [(7, 1), (8, 5), (9, 5)]


def test_loads_can_be_repeated_in_a_transaction_and_leave_nothing(service: Session) -> None:
    for number in range(3):
        copy_rows(service, KpiSummary, [kpi(7, number)])
        upsert_rows(service, TextSummary, [{"client_id": 7, "text_field": "x"}], key=["text_field"])
        with pytest.raises(RowRejected), service.begin_nested():
            copy_rows(service, KpiSummary, [kpi(8)])
    assert service.scalar(text("SELECT count(*) FROM pg_class WHERE pg_my_temp_schema() = relnamespace")) == 0
    service.commit()
    set_client(service, 7)
    assert len(stored(service, KpiSummary)) == 3


@pytest.mark.parametrize("number", [1, 2, 3, 500, 999, 1000])
@pytest.mark.parametrize("options", [{}, {"key": KEY}])
@pytest.mark.parametrize("statement", ["SELECT 1", UNIQUE])
def test_row_of_another_client_is_named(
    service: Session, separated: Database, statement: Any, options: Any, number: int
) -> None:
    separated.execute(statement)
    rows = kpis(1000)
    rows[number - 1]["client_id"] = 8
    rows[number:] = [{**row, "client_id": 8} for row in rows[number:]] if number % 2 else rows[number:]
    error = rejected(service, KpiSummary, rows, **options)
    assert (error.row, error.sqlstate, error.constraint) == (number, "42501", None)
    assert f"Row {number}: the policies of kpi_summary reject it: it is of another client" in str(error)
    assert separated.query("SELECT count(*) FROM kpi_summary") == [(0,)]


@pytest.mark.parametrize("client", [None, 8])
def test_without_the_rows_client_no_row_is_stored(service: Session, separated: Database, client: int | None) -> None:
    set_client(service, client)
    assert rejected(service, KpiSummary, kpis(5)).row == 1
    assert separated.query("SELECT count(*) FROM kpi_summary") == [(0,)]


# A row's values, and the code, column and constraint of the error.
CASES: list[tuple[type[Base], dict[str, Any], tuple[str, str | None, str | None]]] = [
    (KpiSummary, {"kpi_value": float("nan")}, ("23514", None, "ck_kpi_summary_kpi_value_finite")),
    (KpiSummary, {"period_end": START.replace(year=2025)}, ("23514", None, "ck_kpi_summary_period_order")),
    (KpiSummary, {"kpi_name": None}, ("23502", "kpi_name", None)),
    (KpiSummary, {"kpi_name": f"{SECRET}\0"}, ("22021", "kpi_name", None)),
    (KpiSummary, {"kpi_name": "k1"}, ("23505", None, "names")),
    (TextSummary, {"embedding": [float("nan")] * 384}, ("22000", "embedding", None)),
    (TextSummary, {"text_field": None, "sentiment": SECRET}, ("23502", "text_field", None)),
    (TextSummary, {"text_field": "k1"}, ("23505", None, "names")),
]


@pytest.mark.parametrize(
    ("model", "values", "expected"), CASES, ids=[f"{case[0].__tablename__}, {next(iter(case[1]))}" for case in CASES]
)
def test_error_is_that_of_copy(
    service: Session, separated: Database, model: type[Base], values: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    name = "kpi_name" if model is KpiSummary else "text_field"
    if expected[0] == "23505":
        index = sql.SQL("CREATE UNIQUE INDEX names ON {} (client_id, {})")
        separated.execute(index.format(sql.Identifier(model.__tablename__), sql.Identifier(name)))
    rows = [{**FULL[model], "client_id": 7, name: f"k{number}"} for number in range(100)]
    rows[41] |= values
    with Session(separated.engine) as owner, pytest.raises(RowRejected) as copied:
        copy_rows(owner, model, rows)
    error = rejected(service, model, rows)
    assert (error.row, error.sqlstate, error.column, error.constraint) == (42, *expected)
    assert (str(error), vars(error)) == (str(copied.value), vars(copied.value))


def test_foreign_key_to_a_row_of_another_client_is_rejected(service: Session, separated: Database) -> None:
    separated.execute("INSERT INTO data_sources (id, client_id, name, type) VALUES (1, 7, 'a', 'x'), (2, 8, 'b', 'x')")
    rows = [{**row, "source_id": 1} for row in kpis(20)]
    assert copy_rows(service, KpiSummary, rows) == 20
    rows[10]["source_id"] = 2
    error = rejected(service, KpiSummary, rows)
    assert (error.row, error.sqlstate, error.constraint) == (11, "23503", "fk_kpi_summary_source")


def test_message_of_a_trigger_is_not_shown(service: Session, separated: Database) -> None:
    separated.execute(
        "CREATE FUNCTION run() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.kpi_name = 'k9' THEN RAISE EXCEPTION 'hunter2-is-the-password'; END IF; RETURN NEW; END $$;"
        " CREATE TRIGGER run BEFORE INSERT ON kpi_summary FOR EACH ROW EXECUTE FUNCTION run()"
    )
    error = rejected(service, KpiSummary, kpis(20))
    assert (error.row, error.sqlstate) == (9, "P0001")
    assert "a trigger or function of kpi_summary rejected it" in str(error)


@pytest.mark.parametrize("unique", ["SELECT 1", "CREATE UNIQUE INDEX names ON kpi_summary (kpi_name)"])
def test_upsert_does_not_change_a_hidden_row(service: Session, separated: Database, unique: Any) -> None:
    """Without a unique key it inserts a row of the client; with one, the key of the hidden row is taken."""
    separated.execute(unique)
    separated.execute(
        "INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end)"
        " SELECT 8, 'k3', 88, '2026-01-01', '2026-02-01'"
    )
    if unique == "SELECT 1":
        assert upsert_rows(service, KpiSummary, kpis(5), key=["kpi_name"]) == 5
        service.commit()
    else:
        error = rejected(service, KpiSummary, kpis(5), key=["kpi_name"])
        assert (error.row, error.sqlstate) == (3, "42501")
        assert "or its key is that of a row that they hide" in str(error)
    assert separated.query("SELECT kpi_value FROM kpi_summary WHERE client_id = 8") == [(88,)]


def test_upsert_of_a_hidden_row_with_another_unique_key_is_rejected(service: Session, separated: Database) -> None:
    """MERGE sees no row, and the unique key of the table refuses its INSERT."""
    separated.execute("CREATE UNIQUE INDEX names ON kpi_summary (kpi_name)")
    separated.execute(
        "INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end)"
        " SELECT 8, 'k3', 88, '2026-01-01', '2026-02-01'"
    )
    error = rejected(service, KpiSummary, kpis(5), key=["kpi_name", "client_id"])
    assert (error.row, error.sqlstate, error.constraint) == (3, "23505", "names")
    assert separated.query("SELECT client_id, kpi_value FROM kpi_summary") == [(8, 88)]


@pytest.mark.parametrize("statement", ["SELECT 1", UNIQUE])
def test_upsert_updates_rows_of_the_client_only(service: Session, separated: Database, statement: Any) -> None:
    separated.execute(statement)
    with Session(separated.engine) as owner:
        copy_rows(owner, KpiSummary, [kpi(7, 1), kpi(8, 1)])
        owner.commit()
    assert upsert_rows(service, KpiSummary, [kpi(7, 70)], key=KEY) == 1
    service.commit()
    assert separated.query("SELECT client_id, kpi_value FROM kpi_summary ORDER BY 1") == [(7, 70), (8, 1)]


@pytest.mark.parametrize("options", [{}, {"key": ["id"]}])
def test_id_cannot_be_loaded_by_a_service(service: Session, options: Any) -> None:
    load: Any = upsert_rows if options else copy_rows
    with pytest.raises(BulkLoadError, match=r"no privilege INSERT on kpi_summary \(id\)") as info:
        load(service, KpiSummary, [{"id": 1, **kpi(7)}], **options)
    assert (type(info.value), info.value.sqlstate) == (BulkLoadError, "42501")


def test_reader_may_not_load(engine_of: Callable[[str], Engine]) -> None:
    with Session(engine_of("syntegra_reader")) as reader:
        set_client(reader, 7)
        for options in ({}, {"key": KEY}):
            load: Any = upsert_rows if options else copy_rows
            with pytest.raises(BulkLoadError) as info:
                load(reader, KpiSummary, [kpi(7)], **options)
            assert info.value.sqlstate == "42501"
            reader.rollback()


def test_autocommit_and_two_phases_are_rejected(engine_of: Callable[[str], Engine]) -> None:
    with Session(engine_of("syntegra_admin").execution_options(isolation_level="AUTOCOMMIT")) as session:
        assert copy_rows(session, TrendSignal, [FULL[TrendSignal]]) == 1
        with pytest.raises(BulkLoadError, match=r"under row-level security needs a transaction.*AUTOCOMMIT"):
            copy_rows(session, KpiSummary, [kpi(7)])
    with Session(engine_of("syntegra_service"), twophase=True) as session:
        set_client(session, 7)
        with pytest.raises(BulkLoadError, match=r"under row-level security uses a temporary table.*two-phase"):
            copy_rows(session, KpiSummary, [kpi(7)])
        session.rollback()


def test_load_follows_policies_that_are_enabled_and_disabled(service: Session, separated: Database) -> None:
    for statement, error in (
        ("ALTER TABLE kpi_summary DISABLE ROW LEVEL SECURITY", None),
        ("ALTER TABLE kpi_summary ENABLE ROW LEVEL SECURITY", "42501"),
        ("ALTER TABLE kpi_summary DISABLE ROW LEVEL SECURITY", None),
    ):
        service.rollback()
        separated.execute(statement)
        set_client(service, 7)
        assert copy_rows(service, KpiSummary, [kpi(7)]) == 1
        if error:
            assert rejected(service, KpiSummary, [kpi(8)]).sqlstate == error
        else:
            assert copy_rows(service, KpiSummary, [kpi(8)]) == 1


def test_load_waits_while_policies_are_enabled(service: Session, separated: Database) -> None:
    service.rollback()
    separated.execute("ALTER TABLE kpi_summary DISABLE ROW LEVEL SECURITY")
    with separated.connect() as connection, connection.transaction():
        connection.execute("ALTER TABLE kpi_summary ENABLE ROW LEVEL SECURITY")
        loaded: list[int] = []

        def load() -> None:
            set_client(service, 7)
            loaded.append(copy_rows(service, KpiSummary, [kpi(7)]))

        thread = threading.Thread(target=load)
        thread.start()
        deadline = time.monotonic() + 20
        while not separated.query("SELECT FROM pg_locks WHERE NOT granted AND database > 0"):
            assert time.monotonic() < deadline
    thread.join()
    assert loaded == [1]


def test_asyncio_loads_are_staged_too(separated: Database, logins: Logins) -> None:
    async def work() -> list[Any]:
        engine = create_async_engine(separated.url_as(logins.create("syntegra_service")))
        try:
            async with AsyncSession(engine) as session:
                found: list[Any] = []
                await session.run_sync(set_client, 7)
                found.append(await async_copy_rows(session, KpiSummary, kpis(10)))
                found.append(await async_upsert_rows(session, KpiSummary, kpis(12), key=KEY))
                await session.commit()
                loads: list[tuple[Any, dict[str, Any]]] = [(async_copy_rows, {}), (async_upsert_rows, {"key": KEY})]
                for load, options in loads:
                    await session.run_sync(set_client, 7)
                    with pytest.raises(RowRejected) as info:
                        await load(session, KpiSummary, [*kpis(5), kpi(8)], **options)
                    found.append((info.value.row, info.value.sqlstate))
                    await session.rollback()
                return found
        finally:
            await engine.dispose()

    assert asyncio.run(work()) == [10, 12, (6, "42501"), (6, "42501")]
    assert separated.query("SELECT client_id, count(*) FROM kpi_summary GROUP BY 1") == [(7, 12)]
