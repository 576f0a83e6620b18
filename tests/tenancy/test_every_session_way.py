"""Every way of a session to a table with clients: client 7 neither reads, changes nor counts the rows of client 8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, exists, func, insert, inspect, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import aliased, joinedload, lazyload, make_transient_to_detached, selectinload, subqueryload
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError

from support.bulk_rows import FULL
from support.two_clients import MODELS, WITH_SOURCE
from syntegra_db.bulk import copy_rows, upsert_rows
from syntegra_db.models import DataSource, TextSummary
from syntegra_db.vectors import nearest, search

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from support.viewed_sessions import Rows, Sessions

REFUSED = "42501"
VECTOR = FULL[TextSummary]["embedding"]


def known(model: Any, rows: Rows) -> list[Any]:
    """Return an object for each row of the table, as a program has them that knows the ids."""
    objects = [model(id=number) for number in rows.every]
    for known_object in objects:
        make_transient_to_detached(known_object)
    return objects


def loaded(session: Session, model: Any, rows: Rows) -> list[int]:
    """Load the values of objects with known ids, and return the ids of those that exist."""
    found = []
    for known_object in known(model, rows):
        session.add(known_object)
        try:
            found.append((known_object.client_id, known_object.id)[1])
        except ObjectDeletedError:
            session.expunge(known_object)
    return found


def merged(session: Session, model: Any, rows: Rows) -> list[int]:
    """Merge objects with known ids, and return the ids of those that were found and not added."""
    with session.no_autoflush:
        found = [session.merge(model(id=number)) for number in rows.every]
    return [row.id for row in found if inspect(row).persistent]


def with_sources(option: Callable[[Any], Any]) -> Callable[[Session, Any, Rows], list[Any]]:
    def load(session: Session, model: Any, _rows: Rows) -> list[Any]:
        found = session.scalars(select(model).options(option(model.source))).unique().all()
        return [(row.id, row.source and row.source.id) for row in found]

    return load


def of_sources(session: Session, model: Any, _rows: Rows) -> list[Any]:
    """Return rows through the collections of their sources."""
    names = {name for name, relation in inspect(DataSource).relationships.items() if relation.mapper.class_ is model}
    [name] = names
    return [
        (row.id, source.id)
        for source in session.scalars(select(DataSource))
        for row in session.scalars(getattr(source, name).select())
    ]


# Each returns the ids that it found.
READS: dict[str, Callable[[Session, Any, Rows], list[int]]] = {
    "select": lambda session, model, _: [row.id for row in session.scalars(select(model))],
    "select of columns": lambda session, model, _: list(session.scalars(select(model.id))),
    "Core select": lambda session, model, _: list(session.scalars(select(model.__table__.c.id))),
    "text": lambda session, model, _: list(session.scalars(text(f"SELECT id FROM {model.__tablename__}"))),
    "from_statement": lambda session, model, _: [
        row.id for row in session.scalars(select(model).from_statement(select(model.__table__)))
    ],
    "alias": lambda session, model, _: list(session.scalars(select(aliased(model).id))),
    "yield_per": lambda session, model, _: [row.id for row in session.scalars(select(model)).yield_per(1)],
    "server-side cursor": lambda session, model, _: [
        row.id for row in session.scalars(select(model), execution_options={"yield_per": 1})
    ],
    "query": lambda session, model, _: [row.id for row in session.query(model)],
    "session.get": lambda session, model, rows: [n for n in rows.every if session.get(model, n) is not None],
    "load of a known id": loaded,
    "merge of a known id": merged,
    "join": lambda session, model, _: list(
        session.scalars(select(model.id).join(other := aliased(DataSource), other.client_id > 0).distinct())
    ),
    "count": lambda session, model, rows: rows.ids[: session.scalar(select(func.count()).select_from(model))],
    "count over": lambda session, model, _: [row[0] for row in session.execute(select(model.id, func.count().over()))],
    "exists": lambda session, model, rows: [
        n for n in rows.every if session.scalar(select(exists().where(model.id == n)))
    ],
}
# Each returns the ids that it found, with those of their sources.
LOADS: dict[str, Callable[[Session, Any, Rows], list[Any]]] = {
    "joinedload": with_sources(joinedload),
    "selectinload": with_sources(selectinload),
    "subqueryload": with_sources(subqueryload),
    "lazy": with_sources(lazyload),
    "collection": of_sources,
}
SEARCHES: dict[str, Callable[[Session], list[int]]] = {
    "search": lambda session: [match.row.id for match in search(session, VECTOR, limit=100)],
    "search of client 8": lambda session: [match.row.id for match in search(session, VECTOR, client_id=8)],
    "nearest": lambda session: [row.id for row in session.scalars(nearest(VECTOR, limit=100))],
    "nearest of client 8": lambda session: [row.id for row in session.scalars(nearest(VECTOR, client_id=8))],
}


def values(model: Any, client_id: int) -> dict[str, Any]:
    return {**FULL[model], "client_id": client_id}


def add(session: Session, model: Any, client_id: int) -> int:
    session.add(model(**values(model, client_id)))
    session.flush()
    return 1


def insert_on_conflict(session: Session, model: Any, client_id: int) -> int:
    statement = postgresql.insert(model).values(values(model, client_id))
    statement = statement.on_conflict_do_update(index_elements=["id"], set_={"client_id": 7})
    return len(session.scalars(statement.returning(model.id)).all())


def upsert(session: Session, model: Any, client_id: int) -> int:
    """Upsert a row with a key that rows of both clients have."""
    names = {"name", "kpi_name", "text_field", "cluster_id", "source_type"}
    key = [name for name in names if hasattr(model, name)]
    return int(upsert_rows(session, model, [values(model, client_id)], key=key) > 0)


# Each writes a row for a client, and returns the number of rows.
WRITES: dict[str, Callable[[Session, Any, int], int]] = {
    "add": add,
    "insert": lambda session, model, client_id: len(
        session.scalars(insert(model).returning(model.id), [values(model, client_id)]).all()
    ),
    "on conflict": insert_on_conflict,
    "copy_rows": lambda session, model, client_id: copy_rows(session, model, [values(model, client_id)]),
    "upsert_rows": upsert,
}
# Each changes the rows of the own client, and returns their number.
CHANGES: dict[str, Callable[[Session, Any, Rows], int]] = {
    "update": lambda session, model, _: session.execute(update(model).values(client_id=7)).rowcount,  # type: ignore[attr-defined]
    "update of known ids": lambda session, model, rows: (
        session.execute(  # type: ignore[attr-defined]
            update(model).where(model.id.in_(rows.every)).values(client_id=7)
        ).rowcount
    ),
    "delete": lambda session, model, _: session.execute(delete(model)).rowcount,  # type: ignore[attr-defined]
    "delete of known ids": lambda session, model, rows: (
        session.execute(  # type: ignore[attr-defined]
            delete(model).where(model.id.in_(rows.every))
        ).rowcount
    ),
    "query": lambda session, model, _: session.query(model).delete(),
}


@pytest.mark.each("read")
@pytest.mark.parametrize("table", MODELS)
@pytest.mark.parametrize("read", READS)
def test_read_finds_rows_of_own_client_only(sessions: Sessions, read: str, table: str) -> None:
    model = MODELS[table]
    for kind in sessions:
        rows = sessions.rows(kind, model)
        with sessions.open(kind) as session:
            assert (kind, sorted(READS[read](session, model, rows))) == (kind, rows.ids)


@pytest.mark.each("load")
@pytest.mark.parametrize("table", WITH_SOURCE)
@pytest.mark.parametrize("load", LOADS)
def test_relationship_loads_rows_of_own_client_only(sessions: Sessions, load: str, table: str) -> None:
    model = MODELS[table]
    for kind in sessions:
        rows = sessions.rows(kind, model)
        with sessions.open(kind) as session:
            found = sorted(LOADS[load](session, model, rows))
        assert (kind, found) == (kind, rows.own)
        assert all(source for _, source in rows.own)


@pytest.mark.parametrize("name", SEARCHES)
def test_search_finds_texts_of_own_client_only(sessions: Sessions, name: str) -> None:
    for kind in sessions:
        with_vector = sessions.rows(kind, TextSummary).ids[1:]
        with sessions.open(kind) as session:
            found = sorted(SEARCHES[name](session))
        assert (kind, found) == (kind, [] if "client 8" in name else with_vector)


@pytest.mark.each("write")
@pytest.mark.parametrize("client_id", [7, 8])
@pytest.mark.parametrize("table", MODELS)
@pytest.mark.parametrize("write", WRITES)
def test_row_is_written_for_own_client_only(sessions: Sessions, write: str, table: str, client_id: int) -> None:
    for kind in sessions:
        may = kind.viewer.writes and kind.viewer.setting == str(client_id)
        found = sessions.outcome(kind, WRITES[write], MODELS[table], client_id)
        assert (kind, found) == (kind, 1 if may else REFUSED)


@pytest.mark.each("change")
@pytest.mark.parametrize("table", MODELS)
@pytest.mark.parametrize("change", CHANGES)
def test_rows_of_own_client_only_are_changed(sessions: Sessions, change: str, table: str) -> None:
    for kind in sessions:
        rows = sessions.rows(kind, MODELS[table])
        found = sessions.outcome(kind, CHANGES[change], MODELS[table], rows)
        assert (kind, found) == (kind, len(rows.ids) if kind.viewer.writes else REFUSED)


@pytest.mark.parametrize("table", MODELS)
def test_known_row_is_not_updated_by_its_key(sessions: Sessions, table: str) -> None:
    for kind in sessions:
        if not kind.viewer.writes:
            continue
        rows = sessions.rows(kind, MODELS[table])
        [hidden, *_] = sorted({*rows.every} - {*rows.ids})
        with sessions.open(kind) as session, pytest.raises(StaleDataError), session.begin_nested():
            session.execute(update(MODELS[table]), [{"id": hidden, "client_id": 7}])
