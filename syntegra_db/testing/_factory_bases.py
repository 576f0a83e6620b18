"""What the factories share: which columns they set, data sources, periods, and random values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from polyfactory import PostGenerated
from polyfactory.factories.sqlalchemy_factory import SQLAlchemyFactory
from sqlalchemy import Column, inspect

from syntegra_db.models import DataSource

Row = TypeVar("Row")
FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)
DAYS = 365
PERIOD = timedelta(days=30)


class ModelFactory(SQLAlchemyFactory[Row]):
    """Base of the factories: sets the columns that the factory names, and leaves the others to the server."""

    __is_base_factory__ = True
    __set_relationships__ = False
    __set_association_proxy__ = False

    @classmethod
    def should_column_be_set(cls, column: Any) -> bool:
        """Return whether the factory has an attribute for `column`."""
        if not isinstance(column, Column):
            return False
        return hasattr(cls, inspect(cls.__model__).get_property_by_column(column).key)

    @classmethod
    def get_type_from_column(cls, column: Column[Any]) -> Any:  # noqa: ARG003  polyfactory's signature
        """Return no type, because the factory's attributes provide all values."""
        return Any

    @classmethod
    def client_id(cls) -> int:
        """Return a client."""
        return cls.__random__.randrange(1, 10_000)

    @classmethod
    def created_at(cls) -> datetime:
        """Return a time in 2025."""
        return random_time(cls)


class SourcedFactory(ModelFactory[Row]):
    """Base of the factories of rows that may come from a data source."""

    __is_base_factory__ = True

    @classmethod
    def build(cls, *args: Any, **kwargs: Any) -> Row:
        """Return a new row of a new data source, of `source` or of `source_id`; None for either means no source.

        Raises:
            ValueError: `source` belongs to another client than `client_id`, or `source_id` has no `client_id`.
        """
        return super().build(*args, **_with_source(cls.__name__, kwargs))

    @classmethod
    def batch(cls, size: int, **kwargs: Any) -> list[Row]:
        """Return `size` new rows, of one data source unless an argument says another."""
        return super().batch(size, **_with_source(cls.__name__, kwargs))


def _with_source(factory: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` with the data source and its client."""
    if values.get("source") is not None:
        client = values["source"].client_id
        if values.get("client_id", client) != client:
            raise ValueError(f"{factory}: source belongs to the client {client}, not to {values['client_id']}.")
        return {**values, "client_id": client}
    if values.get("source_id") is not None and "client_id" not in values:
        raise ValueError(f"{factory}: source_id needs client_id, the client of that data source.")
    if "source" in values or "source_id" in values:
        return values
    source = DataSourceFactory.build(**{name: values[name] for name in ("client_id",) if name in values})
    return {**values, "source": source, "client_id": source.client_id}


class PeriodFactory(ModelFactory[Row]):
    """Base of the factories of rows with a period: 30 days unless both ends are given."""

    __is_base_factory__ = True

    @classmethod
    def process_kwargs(cls, **kwargs: Any) -> dict[str, Any]:
        """Return the values of a row; a period of which one end is given begins or ends there."""
        if "period_start" not in kwargs:
            day = FIRST_DAY + timedelta(days=cls.__random__.randrange(DAYS))
            kwargs["period_start"] = kwargs["period_end"] - PERIOD if "period_end" in kwargs else day
        kwargs.setdefault("period_end", kwargs["period_start"] + PERIOD)
        return super().process_kwargs(**kwargs)


def same_as_created(_name: str, values: dict[str, Any]) -> datetime:
    """Return the time of creation, the first value of `updated_at`."""
    created: datetime = values["created_at"]
    return created


class DataSourceFactory(ModelFactory[DataSource]):
    """Factory of data sources that have not run."""

    __model__ = DataSource
    type = "simple_csv"
    status = "idle"
    updated_at = PostGenerated(same_as_created)

    @classmethod
    def name(cls) -> str:
        """Return a name with a number."""
        return f"Connector {cls.__random__.randrange(10_000)}"

    @classmethod
    def config_json(cls) -> dict[str, Any]:
        """Return settings without credentials."""
        return {"path": f"sales-{cls.__random__.randrange(10_000)}.csv"}


def random_amount(factory: type[ModelFactory[Any]]) -> Decimal:
    """Return an amount with two decimals."""
    return Decimal(factory.__random__.randrange(1_000_000)).scaleb(-2)


def random_time(factory: type[ModelFactory[Any]]) -> datetime:
    """Return a time in 2025."""
    return FIRST_DAY + timedelta(seconds=factory.__random__.randrange(DAYS * 86_400))
