"""Classes of the application on the tables: their objects are not given to another client either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, inspect, select
from sqlalchemy.orm import foreign, registry, relationship, remote

from syntegra_db.models import DataSource, KpiSummary
from syntegra_db.tenancy import client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Database
    from syntegra_db.tenancy import ClientSession

VIEW = "CREATE VIEW own_view WITH (security_invoker = true) AS SELECT id, client_id FROM kpi_summary"
TAGS = "CREATE TABLE tags AS SELECT id, 'kpi 1' AS name FROM data_sources"
GRANT = "; GRANT SELECT ON {} TO PUBLIC"


class OwnRow:
    id: int


class OwnSource:
    id: int
    kpis: list[OwnRow]
    notes: list[Tag]


class Tag:
    id: int
    kpis: list[KpiSummary]


def own_table() -> Table:
    return KpiSummary.__table__.to_metadata(MetaData())  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def mappings() -> Iterator[registry]:
    mappings = registry()
    yield mappings
    mappings.dispose()


SELECTABLES: dict[str, Any] = {
    "table": own_table,
    "subquery": lambda: select(own_table()).subquery(),
    "view": lambda: Table(
        "own_view", MetaData(), Column("id", Integer, primary_key=True), Column("client_id", Integer)
    ),
}


@pytest.mark.parametrize("selectable", SELECTABLES)
def test_object_of_own_class_is_not_given_to_next_client(
    session: ClientSession, protected: Database, mappings: registry, selectable: str
) -> None:
    protected.execute(VIEW + GRANT.format("own_view"))
    mappings.map_imperatively(OwnRow, SELECTABLES[selectable]())
    with client(session, 8):
        row = session.scalars(select(OwnRow)).first()
        assert row is not None
        with client(session, 7):
            assert session.get(OwnRow, row.id) is None
        assert row in session
    with client(session, 7):
        assert session.get(OwnRow, row.id) is None


def test_collection_of_a_shared_object_is_that_of_the_client(
    session: ClientSession, protected: Database, mappings: registry
) -> None:
    protected.execute(TAGS + GRANT.format("tags"))
    table = Table("tags", MetaData(), Column("id", Integer, primary_key=True), Column("name", String))
    join = foreign(KpiSummary.kpi_name) == table.c.name
    mappings.map_imperatively(
        Tag, table, properties={"kpis": relationship(KpiSummary, viewonly=True, primaryjoin=join)}
    )
    with client(session, 8):
        tag = session.scalars(select(Tag)).all()[0]
        assert {kpi.client_id for kpi in tag.kpis} == {8}
        with client(session, 7):
            assert tag in session
            assert {kpi.client_id for kpi in tag.kpis} == {7}
        assert {kpi.client_id for kpi in tag.kpis} == {8}
    with client(session, 7):
        assert {kpi.client_id for kpi in tag.kpis} == {7}


@pytest.mark.parametrize("cascade", ["save-update, merge", "all", "all, delete-orphan"])
def test_objects_that_belong_together_come_back_together(
    session: ClientSession, protected: Database, mappings: registry, cascade: str
) -> None:
    protected.execute(TAGS + GRANT.format("tags"))
    metadata = MetaData()
    sources = DataSource.__table__.to_metadata(metadata)  # type: ignore[attr-defined]
    kpis = KpiSummary.__table__.to_metadata(metadata)  # type: ignore[attr-defined]
    tags = Table("tags", metadata, Column("id", Integer, primary_key=True), Column("name", String))
    joins = {
        "kpis": (OwnRow, remote(foreign(kpis.c.source_id)) == sources.c.id),
        "notes": (Tag, remote(foreign(tags.c.id)) == sources.c.id),
    }
    mappings.map_imperatively(OwnRow, kpis)
    mappings.map_imperatively(Tag, tags)
    mappings.map_imperatively(
        OwnSource,
        sources,
        properties={
            name: relationship(target, cascade=cascade, primaryjoin=join) for name, (target, join) in joins.items()
        },
    )
    with client(session, 7):
        source = session.scalars(select(OwnSource).order_by(sources.c.id)).all()[0]
        together: list[object] = [source, *source.kpis, *source.notes]
        assert len(together) > 3
        with client(session, 8):
            assert not [row for row in together if row in session and "client_id" in inspect(row).dict]
        assert all(row in session for row in together)
