"""The column `metadata`: the attribute `metadata_`, which every way of writing a row accepts as `metadata` too."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import MetaData, insert, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session, aliased

from support.bulk_rows import FULL, stored
from syntegra_db.bulk import copy_rows, upsert_rows
from syntegra_db.models import AnomalyLog, Base, Cluster, DataSource, KpiSummary, TrendSignal

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    from support.servers import Database

UNIT = {"unit": "EUR"}
MODELS = [model for model in FULL if "metadata_" in FULL[model]]
TABLE = Base.metadata.tables["kpi_summary"]


def row(model: type[Base] = KpiSummary, **values: Any) -> dict[str, Any]:
    """A row without metadata but for what `values` has."""
    return {**{key: value for key, value in FULL[model].items() if key != "metadata_"}, **values}


def stored_metadata(session: Session, model: type[Base] = KpiSummary) -> list[Any]:
    session.flush()
    return [found["metadata_"] for found in stored(session, model)]


def set_attribute(session: Session, model: type[Base]) -> None:
    instance = model(**row(model))
    session.add(instance)
    session.flush()
    instance.metadata = UNIT


INSERTS: dict[str, Callable[[Session, type[Base]], Any]] = {
    "constructor": lambda session, model: session.add(model(**row(model, metadata=UNIT))),
    "attribute": set_attribute,
    "merge": lambda session, model: session.merge(model(id=7, **row(model, metadata=UNIT))),
    "execute with a dict": lambda session, model: session.execute(insert(model), row(model, metadata=UNIT)),
    "execute with a list": lambda session, model: session.execute(insert(model), [row(model, metadata=UNIT)]),
    "scalars with RETURNING": lambda session, model: session.scalars(
        insert(model).returning(model), [row(model, metadata=UNIT)]
    ).all(),
    "values with keywords": lambda session, model: session.execute(insert(model).values(**row(model, metadata=UNIT))),
    "values with metadata_": lambda session, model: session.execute(insert(model).values(**row(model, metadata_=UNIT))),
    "values with a list": lambda session, model: session.execute(insert(model).values([row(model, metadata=UNIT)])),
    "values and parameters": lambda session, model: session.execute(insert(model).values(metadata=UNIT), [row(model)]),
    "raw strategy": lambda session, model: session.execute(
        insert(model).execution_options(dml_strategy="raw"), [row(model, metadata=UNIT)]
    ),
    "bulk_insert_mappings": lambda session, model: session.bulk_insert_mappings(
        model.__mapper__, [row(model, metadata=UNIT)]
    ),
    "bulk_insert_mappings with defaults": lambda session, model: session.bulk_insert_mappings(
        model.__mapper__, [row(model, metadata=UNIT)], return_defaults=True
    ),
    "bulk_save_objects": lambda session, model: session.bulk_save_objects([model(**row(model, metadata=UNIT))]),
    "Core insert": lambda session, model: session.connection().execute(
        insert(Base.metadata.tables[model.__tablename__]).values(**row(model, metadata=UNIT))
    ),
    "Core executemany": lambda session, model: session.connection().execute(
        insert(Base.metadata.tables[model.__tablename__]), [row(model, metadata=UNIT)]
    ),
    "copy_rows": lambda session, model: copy_rows(session, model, [row(model, metadata=UNIT)]),
    "copy_rows of instances": lambda session, model: copy_rows(session, model, [model(**row(model, metadata=UNIT))]),
    "upsert_rows": lambda session, model: upsert_rows(session, model, [row(model, metadata=UNIT, id=7)], key=["id"]),
}


@pytest.mark.parametrize("way", INSERTS)
def test_insert_with_metadata_stores_it(session: Session, way: str) -> None:
    for model in MODELS:
        INSERTS[way](session, model)
        assert stored_metadata(session, model) == [UNIT], model


def test_every_model_with_the_column_is_tested() -> None:
    assert [KpiSummary, TrendSignal, AnomalyLog] == MODELS
    assert {*MODELS} == {mapper.class_ for mapper in Base.registry.mappers if "metadata_" in mapper.column_attrs}


def test_bulk_insert_of_both_names_in_different_rows_stores_both(session: Session) -> None:
    session.execute(insert(KpiSummary), [row(metadata=UNIT), row(metadata_={"n": 1}), row(), row(metadata=None)])
    assert stored_metadata(session) == [UNIT, {"n": 1}, None, None]


UPDATES: dict[str, Callable[[Session], Any]] = {
    "values": lambda session: session.execute(update(KpiSummary).values(metadata=UNIT)),
    "values with metadata_": lambda session: session.execute(update(KpiSummary).values(metadata_=UNIT)),
    "values without synchronization": lambda session: session.execute(
        update(KpiSummary).values(metadata=UNIT), execution_options={"synchronize_session": False}
    ),
    "values with RETURNING": lambda session: session.scalars(
        update(KpiSummary).values(metadata=UNIT).returning(KpiSummary)
    ).one(),
    "by primary key": lambda session: session.execute(update(KpiSummary), [{"id": 1, "metadata": UNIT}]),
    "bulk_update_mappings": lambda session: session.bulk_update_mappings(
        KpiSummary.__mapper__, [{"id": 1, "metadata": UNIT}]
    ),
    "Query.update": lambda session: session.query(KpiSummary).update({"metadata": UNIT}),
    "Core": lambda session: session.connection().execute(update(TABLE).values(metadata=UNIT)),
    "upsert_rows": lambda session: upsert_rows(session, KpiSummary, [{"id": 1, **row(metadata=UNIT)}], key=["id"]),
}


@pytest.mark.parametrize("way", UPDATES)
def test_update_with_metadata_stores_it(session: Session, way: str) -> None:
    instance = KpiSummary(id=1, **row(metadata={"unit": "USD"}))
    session.add(instance)
    session.flush()
    UPDATES[way](session)
    assert stored_metadata(session) == [UNIT]
    session.refresh(instance)
    assert (instance.metadata, instance.metadata_) == (UNIT, UNIT)


def test_on_conflict_do_update_with_metadata_stores_it(session: Session) -> None:
    statement = postgresql.insert(KpiSummary)
    statement = statement.on_conflict_do_update(index_elements=["id"], set_={"metadata": statement.excluded.metadata})
    for unit in ({"unit": "USD"}, UNIT):
        session.execute(statement, [{"id": 1, **row(metadata=unit)}])
    assert stored_metadata(session) == [UNIT]


def test_asyncio_session_with_metadata_stores_it(run: Any, session: Session) -> None:
    async def work(session: AsyncSession) -> Any:
        session.add(KpiSummary(**row(metadata=UNIT)))
        await session.execute(insert(KpiSummary), [row(metadata=UNIT)])
        await session.execute(insert(KpiSummary).values(**row(metadata=UNIT)))
        returned = await session.scalars(insert(KpiSummary).returning(KpiSummary), [row(metadata=UNIT)])
        metadata = returned.one().metadata
        await session.commit()
        return metadata

    assert run(work) == UNIT
    assert stored_metadata(session) == [UNIT] * 4


def test_row_metadata_reads_and_writes_the_column() -> None:
    instance = KpiSummary(metadata=UNIT)  # type: ignore[call-arg]  # type checkers know metadata_ alone
    assert instance.metadata is instance.metadata_ is UNIT
    instance.metadata = {"n": 1}
    assert instance.metadata_ == {"n": 1}
    instance.metadata_ = None
    assert instance.metadata is None
    assert KpiSummary().metadata is None


def test_loaded_row_has_its_metadata(session: Session) -> None:
    session.add(KpiSummary(**row(metadata=UNIT)))
    session.flush()
    session.expire_all()
    for statement in (
        select(KpiSummary),
        select(KpiSummary).from_statement(text("SELECT * FROM kpi_summary")),
        select(KpiSummary).filter_by(metadata=UNIT),
        select(aliased(KpiSummary)),
    ):
        assert session.scalars(statement).one().metadata == UNIT
    assert session.scalars(select(KpiSummary).filter_by(metadata={"unit": "USD"})).all() == []


def test_copies_of_a_row_have_its_metadata() -> None:
    instance = KpiSummary(client_id=1, metadata=UNIT)  # type: ignore[call-arg]  # same as above
    for duplicate in (pickle.loads(pickle.dumps(instance)), copy.copy(instance)):  # noqa: S301  pickled here
        assert (duplicate.client_id, duplicate.metadata, duplicate.metadata_) == (1, UNIT, UNIT)


@pytest.mark.parametrize("model", [Base, *FULL])
def test_model_metadata_is_sqlalchemys(model: type[Base]) -> None:
    assert isinstance(model.metadata, MetaData)
    assert model.metadata is Base.metadata is Base.registry.metadata
    assert {table.name for table in model.metadata.sorted_tables} >= {found.__tablename__ for found in FULL}


def test_table_has_the_column_metadata() -> None:
    assert KpiSummary.__table__ is TABLE
    assert TABLE.c.metadata is KpiSummary.__mapper__.column_attrs.metadata_.columns[0]


@pytest.mark.parametrize("model", [DataSource, Cluster])
def test_metadata_of_a_model_without_the_column_raises(model: type[Base]) -> None:
    with pytest.raises(AttributeError, match=f"{model.__name__} has no column named metadata"):
        model(metadata=UNIT)
    with pytest.raises(AttributeError, match="metadata"):
        _ = model().metadata


# In a separate process: otherwise these models would stay in the package's MetaData.
APPLICATION = """
import sys
from datetime import UTC, datetime
from sqlalchemy import MetaData, insert, text
from sqlalchemy.orm import Mapped, Session, mapped_column
from syntegra_db.database import create_engine
from syntegra_db.models import Base, KpiSummary

class Audited:
    created_by: Mapped[str | None]

class Report(Audited, Base):
    __tablename__ = "report"
    id: Mapped[int] = mapped_column(primary_key=True)
    metadata_: Mapped[str | None] = mapped_column("metadata")

class OwnBase(Base):
    __abstract__ = True
    metadata = MetaData()

class Other(OwnBase):
    __tablename__ = "other"
    id: Mapped[int] = mapped_column(primary_key=True)

class Kpi(KpiSummary):
    pass

assert Report.metadata is Kpi.metadata is Base.metadata
assert Other.metadata is OwnBase.metadata is not Base.metadata
assert set(Other.metadata.tables) == {"other"}
with Session(create_engine(sys.argv[1])) as session:
    Report.__table__.create(session.connection())
    session.add(Report(created_by="a", metadata="x"))
    session.execute(insert(Report), [{"created_by": "b", "metadata": "x"}])
    assert session.scalars(text("SELECT metadata FROM report")).all() == ["x", "x"]
    now = datetime.now(UTC)
    kpi = Kpi(client_id=1, kpi_name="k", kpi_value=1, period_start=now, period_end=now, metadata={})
    session.add(kpi)
    session.flush()
    session.refresh(kpi)
    assert kpi.metadata == kpi.metadata_ == {}
"""


def test_models_of_an_application_have_both(database: Database) -> None:
    command = [sys.executable, "-c", APPLICATION, database.environment_url]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
