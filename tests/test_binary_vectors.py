"""Vectors in binary format on the package's engines, and as text if that is impossible."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from psycopg.pq import Format
from sqlalchemy import String, event, func, insert, literal_column, select, text, true, type_coerce
from sqlalchemy.orm import Session, aliased

from syntegra_db import binary_vectors
from syntegra_db.database import async_session_factory, create_async_engine, create_engine
from syntegra_db.migrations import upgrade
from syntegra_db.models import AnomalyLog, TextSummary
from syntegra_db.models.types import Embedding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from support.servers import Database

VECTOR = [0.125 * (i % 7) for i in range(384)]
ROW = {"client_id": 1, "text_field": "x", "keywords": {"a": [1]}, "sentiment_score": 0.5, "embedding": VECTOR}


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    engine = create_engine(database.url)
    with Session(engine) as session:
        session.execute(insert(TextSummary), [ROW])
        session.commit()
    yield engine
    engine.dispose()


def formats(engine: Engine) -> list[Format]:
    """Return a list that gets the format of the rows of each later statement."""
    seen: list[Format] = []

    def remember(_connection: Any, cursor: Any, *_: Any) -> None:
        result = getattr(cursor, "_cursor", cursor).pgresult
        seen.append(Format(result.fformat(0)))

    event.listen(engine, "after_cursor_execute", remember)
    return seen


def test_rows_with_vectors_are_received_in_binary_unchanged(engine: Engine) -> None:
    seen = formats(engine)
    with Session(engine) as session:
        row = session.scalars(select(TextSummary)).one()
        assert (row.embedding, row.keywords, row.sentiment_score) == (VECTOR, {"a": [1]}, 0.5)
        assert row.created_at.tzinfo is not None
        session.scalars(select(TextSummary.text_field)).one()
    assert seen == [Format.BINARY, Format.TEXT]


def test_row_with_a_type_unsafe_in_binary_is_received_as_text(engine: Engine) -> None:
    seen = formats(engine)
    with Session(engine) as session:
        severity = literal_column("'high'::anomaly_severity", AnomalyLog.severity.type)
        assert tuple(session.execute(select(TextSummary.embedding, severity)).one()) == (VECTOR, "high")
    assert seen == [Format.TEXT]


REGCLASS = "'text_summary'::regclass"
INNER = select(literal_column(REGCLASS, String).label("inner")).subquery()


@pytest.mark.parametrize(
    "expression",
    [
        literal_column(REGCLASS, String),
        literal_column(REGCLASS, String).label("named"),
        type_coerce(literal_column(REGCLASS), String),
        INNER.c.inner,
        select(type_coerce(literal_column(REGCLASS), String).label("inner")).scalar_subquery(),
        func.to_regclass("text_summary", type_=String),
    ],
)
def test_expression_of_another_type_than_declared_is_received_as_text(engine: Engine, expression: Any) -> None:
    seen = formats(engine)
    statement = select(TextSummary.embedding, expression)
    if expression is INNER.c.inner:
        statement = statement.join(INNER, true())
    with Session(engine) as session:
        assert tuple(session.execute(statement).one()) == (VECTOR, "text_summary")
    assert seen == [Format.TEXT]


DISTANCE = TextSummary.embedding.cosine_distance(VECTOR)
NEAREST = select(TextSummary.id, DISTANCE.label("distance")).subquery()


@pytest.mark.parametrize(
    "statement",
    [
        select(TextSummary.embedding, DISTANCE),
        select(TextSummary, (1 - DISTANCE).label("similarity")),
        select(TextSummary, NEAREST.c.distance).join(NEAREST, NEAREST.c.id == TextSummary.id),
        select(aliased(TextSummary)),
        select(select(TextSummary.embedding).cte("found").c.embedding),
        insert(TextSummary).values(ROW).returning(TextSummary),
    ],
)
def test_columns_and_distances_are_received_in_binary(engine: Engine, statement: Any) -> None:
    seen = formats(engine)
    with Session(engine) as session:
        session.execute(statement).all()
    assert seen == [Format.BINARY]


def test_statement_is_inspected_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    inspected: list[Any] = []
    inspect = binary_vectors._is_binary_safe  # noqa: SLF001  counted

    def counted(column: Any) -> bool:
        inspected.append(column)
        return inspect(column)

    monkeypatch.setattr(binary_vectors, "_is_binary_safe", counted)
    seen = formats(engine)
    with Session(engine) as session:
        for client in (1, 2, 3):
            session.execute(select(TextSummary.embedding).where(TextSummary.client_id == client)).all()
    assert seen == [Format.BINARY] * 3
    assert len(inspected) == 1


def test_textual_sql_is_received_as_text(engine: Engine) -> None:
    with Session(engine) as session:
        statement = text("SELECT embedding, 'high'::anomaly_severity AS severity FROM text_summary")
        row = session.execute(statement.columns(embedding=Embedding())).one()
        assert tuple(row) == (VECTOR, "high")


def test_parameters_are_sent_in_binary(engine: Engine) -> None:
    sent: list[Any] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: sent.append(arguments[3]))
    with Session(engine) as session:
        session.scalars(select(TextSummary.id).where(TextSummary.embedding == VECTOR)).one()
        driver_connection = session.connection().connection.driver_connection
        assert driver_connection is not None
        (value,) = sent[0].values()
        assert driver_connection.adapters.get_dumper(type(value), "s").format == Format.BINARY


@pytest.mark.usefixtures("engine")
def test_asyncio_engine_sends_and_receives_binary(database: Database) -> None:
    async def read() -> tuple[Any, list[Format]]:
        asynchronous = create_async_engine(database.url)
        seen = formats(asynchronous.sync_engine)
        async with async_session_factory(asynchronous)() as session:
            vector = (await session.scalars(select(TextSummary.embedding).where(TextSummary.embedding == VECTOR))).one()
        await asynchronous.dispose()
        return vector, seen

    assert asyncio.run(read()) == (VECTOR, [Format.BINARY])


def test_connection_older_than_the_type_uses_text(empty_database: Database) -> None:
    engine = create_engine(empty_database.url, pool_size=1, max_overflow=0)
    with engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    upgrade(url=empty_database.url)
    with Session(engine) as session:
        session.execute(insert(TextSummary), [ROW])
        assert session.scalars(select(TextSummary)).one().embedding == VECTOR
        assert session.scalar(text("SELECT pg_backend_pid()")) == pid
    engine.dispose()


def test_engine_of_sqlalchemy_uses_text(database: Database) -> None:
    engine = sqlalchemy.create_engine(database.url)
    with Session(engine) as session:
        session.execute(insert(TextSummary), [ROW])
        assert session.scalars(select(TextSummary)).one().embedding == VECTOR
    engine.dispose()
