"""Embeddings: the same forms are accepted, and the same values rejected, by the ORM, by bulk loads and by searches."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pgvector import Vector
from sqlalchemy import insert, literal, select, update

from support.bulk_rows import stored
from syntegra_db.bulk import RowRejected, async_copy_rows, copy_rows, upsert_rows
from syntegra_db.models import EMBEDDING_DIMENSIONS, InvalidEmbedding, TextSummary
from syntegra_db.models.types import Embedding
from syntegra_db.vectors import nearest, search

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

# Exact in half precision, so every form has the same numbers.
NUMBERS = [index / 128 for index in range(EMBEDDING_DIMENSIONS)]
TEXT = f"[{','.join(map(str, NUMBERS))}]"
FORMS: dict[str, Any] = {
    "list": NUMBERS,
    "tuple": tuple(NUMBERS),
    "list of Decimal": [Decimal(str(number)) for number in NUMBERS],
    "tuple of Decimal": tuple(Decimal(str(number)) for number in NUMBERS),
    "Vector": Vector(NUMBERS),
    "text": TEXT,
    "text with spaces": f" [ {', '.join(f'{number:.10e}' for number in NUMBERS)} ]\n",
    "text of NumPy": np.str_(TEXT),
    "float64": np.array(NUMBERS),
    "float32": np.array(NUMBERS, np.float32),
    "float16": np.array(NUMBERS, np.float16),
    "big endian": np.array(NUMBERS, ">f4"),
    "strided": np.repeat(np.array(NUMBERS), 2)[::2],
    "masked array without masked numbers": np.ma.array(NUMBERS, mask=[False] * EMBEDDING_DIMENSIONS),
    "masked array without mask": np.ma.array(NUMBERS),
}
REJECTED: list[tuple[Any, str]] = [
    ([0.5] * 383, "has 383"),
    ([], "has 0"),
    ("[1,2,3]", "has 3"),
    (np.zeros(385), "has 385"),
    (np.zeros((1, 384)), "not ndarray of float64 and shape (1, 384)"),
    ([float("nan"), *NUMBERS[1:]], "number 0 of this vector is nan"),
    ([*NUMBERS[1:], float("-inf")], "number 383 of this vector is -inf"),
    ([1e39, *NUMBERS[1:]], "number 0 of this vector is inf"),
    (np.full(384, 1e39), "number 0 of this vector is inf"),
    (TEXT.replace("[0.0,", "[nan,"), "number 0 of this vector is nan"),
    (np.array(NUMBERS, complex), "not ndarray of complex128"),
    (np.array(["1"] * 384), "not ndarray of <U1"),
    (np.array([1.0] * 384, object), "not ndarray of object"),
    (np.ones(384, bool), "not ndarray of bool"),
    (np.zeros(384, "M8[s]"), "not ndarray of datetime64[s]"),
    (np.float64(1), "not float64"),
    (["a"] * 384, "not list"),
    ([None] * 384, "not list"),
    ({1: 2}, "not dict"),
    (np.ma.masked_equal(NUMBERS, 1.0), "has masked numbers"),
    (np.ma.array(NUMBERS, mask=True), "has masked numbers"),
    *((value, "a text must have the form [1,2,…]") for value in ("x" * 384, "", "[]", TEXT[1:], TEXT[:-1])),
    (TEXT.replace("1.0", "1_0.0"), "a text must have the form [1,2,…]"),
    (TEXT.replace(",1.0,", ",,"), "a text must have the form [1,2,…]"),
]


def text_row(embedding: Any) -> dict[str, Any]:
    return {"client_id": 1, "text_field": "x", "embedding": embedding}


def assign(session: Session, embedding: Any) -> None:
    row = TextSummary(client_id=1, text_field="x")
    session.add(row)
    session.flush()
    row.embedding = embedding
    session.flush()


def update_statement(session: Session, embedding: Any) -> None:
    session.execute(insert(TextSummary), text_row(None))
    session.execute(update(TextSummary).values(embedding=embedding))


WRITES: dict[str, Callable[[Session, Any], Any]] = {
    "constructor": lambda session, embedding: session.add(TextSummary(**text_row(embedding))),
    "assignment": assign,
    "insert": lambda session, embedding: session.execute(insert(TextSummary), [text_row(embedding)]),
    "values": lambda session, embedding: session.execute(insert(TextSummary).values(**text_row(embedding))),
    "update": update_statement,
    "copy_rows": lambda session, embedding: copy_rows(session, TextSummary, [text_row(embedding)]),
    "upsert_rows": lambda session, embedding: upsert_rows(
        session, TextSummary, [{"id": 1, **text_row(embedding)}], key=["id"]
    ),
}


@pytest.mark.parametrize("way", WRITES)
def test_write_of_every_form_stores_the_numbers(session: Session, way: str) -> None:
    for form, embedding in FORMS.items():
        WRITES[way](session, embedding)
        session.flush()
        assert [row["embedding"] for row in stored(session, TextSummary)] == [NUMBERS], form
        session.rollback()


def test_search_with_every_form_finds_the_nearest(session: Session) -> None:
    copy_rows(session, TextSummary, [{"id": 1, **text_row(NUMBERS)}, {"id": 2, **text_row(NUMBERS[::-1])}])
    for form, embedding in FORMS.items():
        distance = TextSummary.embedding.cosine_distance(embedding)
        assert session.scalars(select(TextSummary.id).order_by(distance)).all() == [1, 2], form
        equal = select(TextSummary.id).where(TextSummary.embedding == literal(embedding, Embedding()))
        assert session.scalars(equal).all() == [1], form
        assert [match.row.id for match in search(session, embedding)] == [1, 2], form
        assert session.scalars(nearest(embedding, limit=1)).one().id == 1, form


def test_asyncio_writes_of_a_text_store_the_numbers(run: Any, session: Session) -> None:
    async def work(session: AsyncSession) -> None:
        session.add(TextSummary(**text_row(TEXT)))
        await session.execute(insert(TextSummary), [text_row(TEXT)])
        await async_copy_rows(session, TextSummary, [text_row(TEXT)])
        await session.commit()

    run(work)
    assert [row["embedding"] for row in stored(session, TextSummary)] == [NUMBERS] * 3


def test_assigned_text_reads_as_numbers() -> None:
    embedding = TextSummary(embedding=TEXT).embedding
    assert embedding == NUMBERS


def test_invalid_embedding_is_rejected_before_it_is_sent(session: Session) -> None:
    for embedding, reason in REJECTED:
        complaint = f"text_summary\\.embedding takes 384 finite numbers.*{re.escape(reason)}"
        for write in (WRITES["constructor"], WRITES["assignment"], WRITES["insert"], search):
            with pytest.raises(InvalidEmbedding, match=complaint):
                write(session, embedding)
            session.rollback()
        with pytest.raises(RowRejected, match=r"text_summary\.embedding takes 384 finite numbers"):
            copy_rows(session, TextSummary, [text_row(embedding)])
        session.rollback()
    assert stored(session, TextSummary) == []
