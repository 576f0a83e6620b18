"""The declarative base of the models, its naming convention, and mapping rules that several models share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, dataclass_transform, overload

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, MetaData, Table, event, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, Mapper, validates
from sqlalchemy.orm import registry as orm_registry
from sqlalchemy.util import HasMemoized

from syntegra_db.models.deprecation import is_deprecated, warn_of_deprecated_columns
from syntegra_db.models.types import Embedding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Column, FromClause

    from syntegra_db.models.data_sources import DataSource

NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(referred_table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "ix": "idx_%(table_name)s_%(column_0_N_name)s",
}


class MetadataAttribute:
    """Attribute `metadata`: SQLAlchemy's MetaData on a model, the column `metadata` on a row.

    Without it, `row.metadata = value` would hide the MetaData and store NULL.
    """

    @overload
    def __get__(self, row: None, model: type[Base]) -> MetaData: ...
    @overload
    def __get__(self, row: Base, model: type[Base]) -> Any: ...
    def __get__(self, row: Any, model: type[Base]) -> Any:
        return model.registry.metadata if row is None else row.metadata_

    def __set__(self, row: Any, value: Any) -> None:
        if not hasattr(type(row), "metadata_"):
            raise AttributeError(f"{type(row).__name__} has no column named metadata.")
        row.metadata_ = value


class _ModelNamespace:
    """The attributes of a model by the names that statements use: `metadata` is `metadata_`."""

    def __init__(self, model: type[Any]) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        is_column = name == "metadata" and hasattr(self._model, "metadata_")
        return getattr(self._model, "metadata_" if is_column else name)


class ModelMapper(Mapper[Any]):
    """Mapper that accepts the key `metadata` for `metadata_`, and writes no deprecated column unless it is set.

    Without it, SQLAlchemy ignores the key in a list of rows and stores NULL, and an INSERT names every column.
    SQLAlchemy has no public hook for either.
    """

    @property
    def entity_namespace(self) -> Any:
        """Return the names that `values()` and `filter_by()` look up."""
        return _ModelNamespace(self.class_)

    @HasMemoized.memoized_attribute
    def _propkey_to_col(self) -> dict[Table, dict[str, Any]]:
        columns_by_table: dict[Table, dict[str, Any]] = super()._propkey_to_col
        for columns in columns_by_table.values():
            if "metadata_" in columns:
                columns["metadata"] = columns["metadata_"]
        return columns_by_table

    @HasMemoized.memoized_attribute
    def _insert_cols_as_none(self) -> dict[Table, frozenset[str]]:
        columns_by_table: dict[Table, frozenset[str]] = super()._insert_cols_as_none
        return {
            table: frozenset(key for key in keys if not is_deprecated(table.columns[key]))
            for table, keys in columns_by_table.items()
        }

    @HasMemoized.memoized_attribute
    def _server_default_cols(self) -> Mapping[FromClause, frozenset[Column[Any]]]:
        columns_by_table: Mapping[FromClause, frozenset[Column[Any]]] = super()._server_default_cols
        return {
            table: frozenset(column for column in columns if not is_deprecated(column))
            for table, columns in columns_by_table.items()
        }


# For type checkers: each mapped attribute with an assigned value is an optional keyword argument of the constructor.
@dataclass_transform(kw_only_default=True, eq_default=False)
class Base(DeclarativeBase):
    """Base of all models."""

    registry = orm_registry(metadata=MetaData(naming_convention=NAMING_CONVENTION))
    metadata: MetadataAttribute = MetadataAttribute()  # type: ignore[misc]  # gives a model its MetaData
    __mapper_cls__ = ModelMapper
    # RETURNING fetches the values that the server sets. Under asyncio, loading them later would fail.
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012  SQLAlchemy declares it without ClassVar

    def __repr__(self) -> str:
        """Show the primary key only: logs show a repr, and rows hold clients' data and credentials."""
        identity = inspect(self).identity
        return f"{type(self).__name__}(id={identity[0] if identity else None})"


warn_of_deprecated_columns(Base)


@event.listens_for(Base, "attribute_instrument", propagate=True)
def _check_embeddings(_model: type[Base], _name: str, attribute: Any) -> None:
    """Let each attribute with an embedding reject an invalid value when it is set, and keep a text as numbers."""
    columns = getattr(attribute.property, "columns", ())
    if not columns or not isinstance(columns[0].type, Embedding):
        return
    embedding = columns[0].type

    def convert(_row: Base, value: Any, _before: Any, _initiator: Any) -> Any:
        if value is None:
            return None
        vector = embedding.convert(value)
        return vector.to_list() if isinstance(value, str) else value

    event.listen(attribute, "set", convert, retval=True)


class SourceMixin:
    """Mixin for rows that may come from a data source: such a row takes the client of its data source."""

    if TYPE_CHECKING:
        client_id: Mapped[int]
        source_id: Mapped[int | None]

    @validates("source")
    def _set_client_from_source(self, _name: str, source: DataSource | None) -> DataSource | None:
        """Set `client_id` and `source_id` of a new row as far as they are known.

        A flush sets `source_id` too, but `bulk_save_objects` knows no relationships and would store NULL.
        """
        if inspect(self).key is not None:
            return source
        # Loading an expired attribute here would fail under asyncio; `_set_client_before_insert` sets it at flush.
        client_id = None if source is None else vars(source).get("client_id")
        if client_id is not None and vars(self).get("client_id") is None:
            self.client_id = client_id
        identity = None if source is None else inspect(source).identity
        if source is None or identity is not None:
            self.source_id = identity[0] if identity else None
        return source


@event.listens_for(SourceMixin, "before_insert", propagate=True)
def _set_client_before_insert(_mapper: Any, _connection: Any, row: Any) -> None:
    source = vars(row).get("source")
    if row.client_id is None and source is not None:
        row.client_id = source.client_id


def source_foreign_key(table: str) -> ForeignKeyConstraint:
    """Return the foreign key from `table` to a data source of the same client.

    Deleting the data source sets only `source_id` to NULL and keeps the row. The column list of ON DELETE SET NULL
    needs PostgreSQL 15: https://www.postgresql.org/docs/current/sql-createtable.html.
    """
    return ForeignKeyConstraint(
        ["client_id", "source_id"],
        ["data_sources.client_id", "data_sources.id"],
        name=f"fk_{table}_source",
        ondelete="SET NULL (source_id)",
    )


def source_primaryjoin(model: str) -> str:
    """Return the join of `model` and its data source, in which the data source sets only `source_id`.

    `client_id` is not in `foreign()`, so `row.source = None` keeps the row's client.
    """
    return f"and_({model}.client_id == DataSource.client_id, foreign({model}.source_id) == DataSource.id)"


def finite_check(column: str) -> CheckConstraint:
    """Return the CHECK that rejects NaN and both infinities in a numeric `column`.

    PostgreSQL sorts NaN above Infinity, so two comparisons are enough:
    https://www.postgresql.org/docs/current/datatype-numeric.html.
    """
    return CheckConstraint(f"{column} > '-Infinity' AND {column} < 'Infinity'", name=f"{column}_finite")
