"""Services whose type `vector` gets another OID while they have connections in their pool."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import ExitStack
from decimal import Decimal
from typing import TYPE_CHECKING, Any, LiteralString

import pytest
from psycopg import sql
from sqlalchemy import insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from support.poolers import pgbouncer
from syntegra_db import binary_vectors
from syntegra_db.bulk import copy_rows, upsert_rows
from syntegra_db.client_programs import find_program_for_server
from syntegra_db.connections import conninfo
from syntegra_db.database import create_async_engine, create_engine
from syntegra_db.migrations import upgrade
from syntegra_db.models import AnomalyLog, AnomalySeverity, TextSummary
from syntegra_db.vectors import search

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Engine

    from support.servers import Database

    Work = Callable[[Session], Any]

VECTOR = [0.125 * (i % 7) + 1 for i in range(384)]
ROW: dict[str, Any] = {"client_id": 1, "text_field": "x", "embedding": VECTOR}
REPLACE_TYPE: LiteralString = """
    DROP EXTENSION vector CASCADE; CREATE EXTENSION vector;
    ALTER TABLE text_summary ADD COLUMN embedding vector(384);
"""
# More than psycopg runs before it prepares a statement.
RUNS = 7
POOL_SIZE = 3


def read(session: Session) -> None:
    for row in session.scalars(select(TextSummary)):
        assert row.embedding in (VECTOR, None)


def insert_rows(session: Session) -> None:
    session.execute(insert(TextSummary), [ROW, ROW])


def add(session: Session) -> None:
    session.add(TextSummary(**ROW))
    session.flush()


def change(session: Session) -> None:
    session.execute(update(TextSummary).values(embedding=VECTOR))


def compare(session: Session) -> None:
    session.scalars(select(TextSummary.embedding).where(TextSummary.embedding == VECTOR)).all()


def find(session: Session) -> None:
    search(session, VECTOR)


def copy(session: Session) -> None:
    copy_rows(session, TextSummary, [ROW])


def upsert(session: Session) -> None:
    upsert_rows(session, TextSummary, [ROW | {"id": 1}], key=["id"])


WORK = [read, insert_rows, add, change, compare, find, copy, upsert]


def run_on_all_connections(engine: Engine, work: Work) -> int:
    """Run `work` on each connection of the pool, and return how many times it failed."""
    failures = 0
    with ExitStack() as stack:
        sessions = [stack.enter_context(Session(engine)) for _ in range(POOL_SIZE)]
        for session in sessions:
            session.connection()
        for session in sessions:
            try:
                work(session)
                session.commit()
            except DBAPIError:
                failures += 1
                session.rollback()
    return failures


def warm_up(engine: Engine, work: Work) -> None:
    for _ in range(RUNS):
        assert run_on_all_connections(engine, work) == 0


@pytest.mark.parametrize("work", WORK)
def test_connections_work_again_after_the_type_was_replaced(database: Database, work: Work) -> None:
    engine = create_engine(database.url, pool_size=POOL_SIZE, max_overflow=0)
    for one in (add, work):
        warm_up(engine, one)
    database.execute(REPLACE_TYPE)
    # Each connection may fail once.
    run_on_all_connections(engine, work)
    assert run_on_all_connections(engine, work) == 0
    for one in WORK:
        run_on_all_connections(engine, one)
        assert run_on_all_connections(engine, one) == 0
    engine.dispose()


def test_one_failure_repairs_idle_connections_too(database: Database) -> None:
    engine = create_engine(database.url, pool_size=POOL_SIZE, max_overflow=0)
    warm_up(engine, compare)
    database.execute(REPLACE_TYPE)
    with Session(engine) as session, pytest.raises(DBAPIError):
        compare(session)
    assert run_on_all_connections(engine, add) == 0
    engine.dispose()


@pytest.mark.parametrize("work", [read, add, find])
def test_asyncio_connections_work_again(database: Database, work: Work) -> None:
    async def run(engine: Any) -> bool:
        async with AsyncSession(engine) as session:
            try:
                await session.run_sync(work)
                await session.commit()
            except DBAPIError:
                return False
        return True

    async def main() -> None:
        engine = create_async_engine(database.url, pool_size=1, max_overflow=0)
        for _ in range(RUNS):
            assert await run(engine)
        database.execute(REPLACE_TYPE)
        await run(engine)
        assert [await run(engine) for _ in range(RUNS)] == [True] * RUNS
        await engine.dispose()

    asyncio.run(main())


def test_one_connection_kept_by_its_caller_works_again(database: Database) -> None:
    engine = create_engine(database.url)
    with engine.connect() as connection, Session(connection, join_transaction_mode="control_fully") as session:
        for _ in range(RUNS):
            compare(session)
        session.commit()
        database.execute(REPLACE_TYPE)
        with pytest.raises(DBAPIError):
            compare(session)
        session.rollback()
        connection.rollback()
        compare(session)
    engine.dispose()


@pytest.mark.embedded
def test_service_survives_restore_of_a_whole_dump(database: Database, tmp_path: Path) -> None:
    engine = create_engine(database.url, pool_size=POOL_SIZE, max_overflow=0)
    for work in (add, read, find):
        warm_up(engine, work)
    dump = str(tmp_path / "whole.dump")
    version = database.query("SELECT current_setting('server_version_num')::int / 10000")[0][0]
    for name, *options in (("pg_dump", "-Fc", "-f", dump), ("pg_restore", "--clean", "--if-exists", dump)):
        program = find_program_for_server(name, version)
        # pg_restore reports what it cannot drop in a database with an extension.
        subprocess.run([*program.command, f"--dbname={conninfo(database.url)}", *options], check=True)
    for work in (add, read, find):
        run_on_all_connections(engine, work)
        assert run_on_all_connections(engine, work) == 0
    engine.dispose()


@pytest.mark.pooler
def test_service_survives_pooler_that_leads_to_another_database(
    database: Database, empty_database: Database, tmp_path: Path
) -> None:
    # Another OID than in the first database, where the old one may be that of another type.
    empty_database.execute("CREATE TABLE earlier (id integer)")
    upgrade(url=empty_database.url)
    with pgbouncer(database, "transaction", tmp_path) as url:
        engine = create_engine(url, pooler="transaction", pool_size=POOL_SIZE, max_overflow=0)
        for work in WORK:
            warm_up(engine, work)
        swap = sql.SQL(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = {name};"
            " ALTER DATABASE {first} RENAME TO syntegra_test_swapped; ALTER DATABASE {second} RENAME TO {first}"
        )
        administrator = database.url.set(database="postgres")
        names = {"first": sql.Identifier(database.name), "second": sql.Identifier(empty_database.name)}
        type(database)(administrator).execute(swap.format(name=sql.Literal(database.name), **names))
        for work in WORK:
            run_on_all_connections(engine, work)
            assert run_on_all_connections(engine, work) == 0
        engine.dispose()
    type(database)(administrator).execute("ALTER DATABASE syntegra_test_swapped RENAME TO " + empty_database.name)


@pytest.mark.parametrize("value", ["123", "a1b", "", "[x]", "1", "[1"])
def test_text_of_another_type_with_the_old_oid_is_not_changed(database: Database, value: str) -> None:
    (text_types,) = database.query("SELECT oid, typarray FROM pg_type WHERE typname = 'text'")
    with database.connect() as connection:
        driver: Any = connection
        binary_vectors._register_adapters(driver, text_types)  # noqa: SLF001  as if registered elsewhere
        assert connection.execute("SELECT %s::text", (value,)).fetchone() == (value,)


@pytest.mark.parametrize("name", ["halfvec", "sparsevec", "_vector", "anomaly_severity", "text_summary"])
@pytest.mark.parametrize("work", [add, compare, find])
def test_connection_works_again_after_oid_became_that_of_another_type(
    database: Database, name: str, work: Work
) -> None:
    """In a database that a pooler leads to, the old OID can be that of any other type of an extension or user."""
    (oid, array), *_ = database.query(f"SELECT oid, typarray FROM pg_type WHERE typname = '{name}'")
    engine = create_engine(database.url, pool_size=1, max_overflow=0)
    with Session(engine) as session:
        add(session)
        session.commit()
        driver: Any = session.connection().connection.dbapi_connection
        binary_vectors._register_adapters(driver, (oid, array))  # noqa: SLF001  as if registered elsewhere
        session.add(AnomalyLog(client_id=1, kpi_name="orders", value=Decimal(3), severity=AnomalySeverity.HIGH))
        assert session.scalars(select(AnomalyLog)).one().severity is AnomalySeverity.HIGH
        assert session.scalars(select(AnomalyLog.severity)).one() is AnomalySeverity.HIGH
        read(session)
        with pytest.raises(DBAPIError):
            work(session)
        session.rollback()
        work(session)
        read(session)
    engine.dispose()
