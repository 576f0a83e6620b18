"""Timestamps that Python cannot represent are read as the nearest datetime, in every time zone and format."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, text

from support.sessions import session_on
from syntegra_db.database import create_async_engine
from syntegra_db.models import TextSummary
from syntegra_db.timestamps import EARLIEST, LATEST
from syntegra_db.vectors import search
from syntegra_db.vectors.maintenance import check_index_health

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from support.servers import Database


@pytest.mark.parametrize("zone", ["UTC", "Europe/Madrid", "America/Bogota", "Pacific/Kiritimati"])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(
    ("stored", "nearest"),
    [
        ("infinity", LATEST),
        ("-infinity", EARLIEST),
        ("294276-01-01", LATEST),
        ("0044-03-15 BC", EARLIEST),
        ("0001-01-01 00:00+12", EARLIEST),
        ("9999-12-31 23:59:59.999999Z", LATEST),
        ("9999-12-31 20:30:00Z", datetime(9999, 12, 31, 20, 30, tzinfo=UTC)),
        ("0001-01-01 01:00:01Z", EARLIEST + timedelta(seconds=3601)),
        ("2026-01-01 00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_timestamp_is_read_as_the_nearest(
    database: Database,
    zone: str,
    binary: bool,  # noqa: FBT001  a case
    stored: str,
    nearest: datetime,
) -> None:
    with session_on(database) as session:
        connection = session.connection()
        connection.execute(text(f"SET TimeZone = '{zone}'"))
        cursor: Any = connection.connection.cursor(binary=binary)
        assert cursor.execute(f"SELECT '{stored}'::timestamptz").fetchone() == (nearest,)


def insert_infinite(connection: Connection) -> None:
    connection.execute(
        text(
            "INSERT INTO text_summary (client_id, text_field, embedding, created_at)"
            " SELECT 1, 't', array_fill(0.1::real, '{384}')::vector,"
            " CASE number WHEN 7 THEN 'infinity' WHEN 8 THEN '-infinity' ELSE now() END"
            " FROM generate_series(1, 20) AS number"
        )
    )


def test_row_with_infinite_timestamp_is_found_and_measured(database: Database) -> None:
    with session_on(database) as session:
        insert_infinite(session.connection())
        session.commit()
        found = {match.row.created_at for match in search(session, [0.1] * 384, limit=20)}
        assert {EARLIEST, LATEST} < found
        assert {EARLIEST, LATEST} < set(session.scalars(select(TextSummary.created_at)))
        session.rollback()
        engine: Any = session.get_bind()
        health = check_index_health(engine, seconds=1)
    assert health.not_measured_reason is None


def test_async_engine_reads_an_infinite_timestamp(database: Database) -> None:
    async def work() -> Any:
        engine = create_async_engine(database.url)
        async with engine.connect() as connection:
            value = await connection.scalar(text("SELECT 'infinity'::timestamptz"))
        await engine.dispose()
        return value

    assert asyncio.run(work()) == LATEST
