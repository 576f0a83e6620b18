"""The factories: valid rows of all models with their related data, the same in each run of a test."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, inspect, select

from support.commands import succeed
from syntegra_db.models import Base, DataSource, KpiSummary
from syntegra_db.testing import factories
from syntegra_db.testing.factories import (
    AnomalyLogFactory,
    ClusterFactory,
    DataSourceFactory,
    KpiSummaryFactory,
    ModelFactory,
    ProcessedDataFactory,
    TextSummaryFactory,
    TrendSignalFactory,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

FACTORIES: list[type[ModelFactory[Any]]] = [
    DataSourceFactory,
    ProcessedDataFactory,
    KpiSummaryFactory,
    AnomalyLogFactory,
    TextSummaryFactory,
    ClusterFactory,
    TrendSignalFactory,
]
SOURCED = [KpiSummaryFactory, AnomalyLogFactory, TextSummaryFactory, ProcessedDataFactory]
ROWS = 20


def column_values(row: Base) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if name in inspect(type(row)).column_attrs}


def test_every_model_has_a_factory() -> None:
    declared = {mapper.class_ for mapper in Base.registry.mappers if mapper.class_.__module__.startswith("syntegra_db")}
    assert {factory.__model__ for factory in FACTORIES} == declared
    assert {f"{model.__name__}Factory" for model in declared} <= set(factories.__all__)


def test_rows_of_all_factories_are_accepted_and_read_back(syntegra_session: Session) -> None:
    for factory in FACTORIES:
        rows = factories.add(syntegra_session, factory, ROWS)
        before = [column_values(row) for row in rows]
        syntegra_session.commit()
        for row, values in zip(rows, before, strict=True):
            syntegra_session.refresh(row)
            assert {name: column_values(row)[name] for name in values} == values
        count = syntegra_session.scalar(select(func.count()).select_from(factory.__model__))
        assert count is not None
        assert count >= ROWS


@pytest.mark.parametrize("factory", SOURCED)
def test_source_of_rows_is_of_their_client(syntegra_session: Session, factory: type[ModelFactory[Any]]) -> None:
    shared = factories.add(syntegra_session, factory, 3, client_id=7)
    [source] = syntegra_session.scalars(select(DataSource)).all()
    assert {(row.client_id, row.source_id) for row in shared} == {(7, source.id)}
    given = factories.add(syntegra_session, factory, source=source)
    by_id = factories.add(syntegra_session, factory, source_id=source.id, client_id=7)
    assert {(row.client_id, row.source_id) for row in given + by_id} == {(7, source.id)}
    [without] = factories.add(syntegra_session, factory, source=None)
    assert without.source_id is None
    assert syntegra_session.scalar(select(func.count()).select_from(DataSource)) == 1


def test_arguments_that_contradict_raise() -> None:
    source = DataSourceFactory.build(client_id=7)
    with pytest.raises(ValueError, match="KpiSummaryFactory: source belongs to the client 7, not to 8"):
        KpiSummaryFactory.build(source=source, client_id=8)
    with pytest.raises(ValueError, match="KpiSummaryFactory: source_id needs client_id"):
        KpiSummaryFactory.batch(2, source_id=1)


@pytest.mark.parametrize("end", ["period_start", "period_end"])
def test_period_with_one_given_end_is_in_order(end: str) -> None:
    given = datetime(2024, 2, 29, tzinfo=UTC)
    row = KpiSummaryFactory.build(**{end: given})
    assert getattr(row, end) == given
    assert row.period_start < row.period_end


@pytest.mark.parametrize("factory", FACTORIES)
def test_same_seed_builds_same_rows(factory: type[ModelFactory[Any]]) -> None:
    def build(seed: int) -> list[dict[str, Any]]:
        factories.seed(seed)
        return [column_values(row) for row in factory.batch(3)]

    assert build(1) == build(1)
    assert build(1) != build(2)


def test_factory_of_an_application_model_is_seeded_too() -> None:
    class LargeKpiFactory(KpiSummaryFactory):
        __model__ = KpiSummary

        @classmethod
        def kpi_name(cls) -> str:
            return "large"

    factories.seed(3)
    first = LargeKpiFactory.build()
    factories.seed(3)
    assert LargeKpiFactory.build().kpi_value == first.kpi_value
    assert first.kpi_name == "large"


def test_plugin_loads_nothing_heavy_before_it_is_needed() -> None:
    program = (
        "import sys, pytest; before = set(sys.modules); import syntegra_db.testing;"
        "names = ('sqlalchemy', 'psycopg', 'alembic', 'polyfactory', 'faker', 'docker', 'pydantic_settings');"
        "print([name for name in names if name in set(sys.modules) - before])"
    )
    assert succeed("python", "-c", program) == "[]\n"
