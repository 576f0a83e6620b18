"""The statements of a search: their rows and their plans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import SelectBase, func, select, text

from support.embeddings import EMBEDDING
from support.texts import Texts, load_texts
from syntegra_db.database import create_engine, session_factory
from syntegra_db.models import InvalidEmbedding, TextSummary
from syntegra_db.vectors import InvalidSearchArgument, nearest
from syntegra_db.vectors._statements import exact_statement, index_statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from support.servers import Database, Server

VECTOR_INDEX = "idx_text_summary_embedding"
HALF = """CREATE INDEX idx_text_summary_embedding ON text_summary
    USING ivfflat ((embedding::halfvec(384)) halfvec_cosine_ops) WITH (lists = 20)"""


@pytest.fixture(scope="module")
def loaded(server: Server, migrated_template: str) -> Iterator[tuple[Database, Texts]]:
    with server.database(migrated_template, name="syntegra_test_statements") as database:
        texts = load_texts(database, 6_000, {1: 30, 2: 3_000, 3: 300})
        yield database, texts


@pytest.fixture
def texts(loaded: tuple[Database, Texts]) -> Texts:
    return loaded[1]


@pytest.fixture
def session(loaded: tuple[Database, Texts]) -> Iterator[Session]:
    engine = create_engine(loaded[0].url)
    with session_factory(engine)() as session:
        yield session
    engine.dispose()


def plan(session: Session, statement: SelectBase, **parameters: Any) -> str:
    """The plan of `statement`, without the lines that contain the vector."""
    compiled = statement.compile(session.connection())
    bound = {
        name: str(value.to_list()) if hasattr(value, "to_list") else value
        for name, value in {**compiled.params, **parameters}.items()
    }
    lines = session.connection().exec_driver_sql(f"EXPLAIN (COSTS OFF) {compiled}", bound).scalars()
    return "\n".join(line for line in lines if "<=>" not in line)


def test_nearest_orders_texts_by_distance(session: Session, texts: Texts) -> None:
    session.execute(text("SET LOCAL ivfflat.probes = 100"))
    query = texts.queries[0]
    rows = session.execute(nearest(query, client_id=2, limit=7)).all()
    assert [row.id for row, _ in rows] == texts.nearest(query, texts.clients == 2, 7)
    assert [distance for _, distance in rows] == pytest.approx(
        [1 - float(texts.embeddings[row.id - 1] @ query) for row, _ in rows], abs=1e-5
    )
    far = rows[3][1]
    assert session.execute(nearest(query, client_id=2, max_distance=far)).all() == rows[:4]


def test_nearest_composes_with_other_clauses(session: Session, texts: Texts) -> None:
    session.execute(text("SET LOCAL ivfflat.probes = 100"))
    statement = nearest(texts.queries[0], sentiment="neutral", language="es")
    first = session.execute(statement).all()
    assert session.execute(statement.offset(3)).all()[:7] == first[3:]
    assert session.execute(statement.where(TextSummary.id != first[0][0].id)).all()[:9] == first[1:]
    inner = statement.subquery()
    assert session.scalar(select(func.count()).select_from(inner).where(inner.c.distance >= first[1].distance)) == 9


@pytest.mark.parametrize("embedding", [[0.0] * 384, [1.0] * 3, [float("inf")] * 384])
def test_nearest_with_invalid_vector_raises(embedding: list[float]) -> None:
    with pytest.raises(InvalidEmbedding):
        nearest(embedding)


def test_nearest_with_invalid_bounds_raises(texts: Texts) -> None:
    with pytest.raises(InvalidSearchArgument):
        nearest(texts.queries[0], limit=-1)
    with pytest.raises(InvalidSearchArgument):
        nearest(texts.queries[0], max_distance=-0.1)


def test_nearest_and_search_use_the_index(session: Session, texts: Texts) -> None:
    query = texts.queries[0].tolist()
    assert f"Index Scan using {VECTOR_INDEX}" in plan(session, nearest(query))
    found = index_statement(EMBEDDING, (), is_half=False)
    assert f"Index Scan using {VECTOR_INDEX}" in plan(session, found, query=str(query), limit=10)


def test_half_precision_search_uses_half_precision_index(session: Session, texts: Texts) -> None:
    session.execute(text(f"DROP INDEX {VECTOR_INDEX}"))
    session.execute(text(HALF))
    found = index_statement(EMBEDDING, (), is_half=True)
    assert f"Index Scan using {VECTOR_INDEX}" in plan(session, found, query=str(texts.queries[0].tolist()), limit=10)
    session.rollback()


def test_exact_search_uses_no_vector_index(session: Session, texts: Texts) -> None:
    query = str(texts.queries[0].tolist())
    assert VECTOR_INDEX not in plan(session, exact_statement(EMBEDDING, ()), query=query, limit=10)
    of_client = plan(session, exact_statement(EMBEDDING, ("client_id",)), query=query, limit=10, client_id=1)
    assert VECTOR_INDEX not in of_client
    assert "idx_text_summary_client_id" in of_client


def test_exact_search_of_client_uses_covering_index(session: Session, texts: Texts) -> None:
    session.execute(text("CREATE INDEX covering ON text_summary (client_id) INCLUDE (id, embedding)"))
    parameters = {"query": str(texts.queries[0].tolist()), "limit": 10, "client_id": 3}
    assert "Index Only Scan using covering" in plan(session, exact_statement(EMBEDDING, ("client_id",)), **parameters)
    session.rollback()
