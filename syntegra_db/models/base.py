"""The one declarative base: its naming convention, and what every model shares."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, MetaData, inspect
from sqlalchemy.orm import DeclarativeBase

NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(referred_table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "ix": "idx_%(table_name)s_%(column_0_N_name)s",
}


class Base(DeclarativeBase):
    """Base of the seven models."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    # An attribute that the server sets comes back with the statement; under asyncio a later load would fail.
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012  SQLAlchemy's own declaration of it

    def __repr__(self) -> str:
        """Show the primary key only: a repr ends in logs, and rows hold clients' data and credentials."""
        identity = inspect(self).identity
        return f"{type(self).__name__}(id={identity[0] if identity else None})"


def source_foreign_key(table: str) -> ForeignKeyConstraint:
    """Return the foreign key that ties a row of `table` to a data source of the same client.

    Deleting the data source empties `source_id` alone and keeps the row. The column list of ON DELETE SET NULL
    needs PostgreSQL 15: https://www.postgresql.org/docs/current/sql-createtable.html.
    """
    return ForeignKeyConstraint(
        ["client_id", "source_id"],
        ["data_sources.client_id", "data_sources.id"],
        name=f"fk_{table}_source",
        ondelete="SET NULL (source_id)",
    )


def source_primaryjoin(model: str) -> str:
    """Return the join of `model` and its data source, in which only `source_id` follows the data source.

    With `client_id` left out of `foreign()`, `row.source = None` keeps the row's client.
    """
    return f"and_({model}.client_id == DataSource.client_id, foreign({model}.source_id) == DataSource.id)"


def finite_check(column: str) -> CheckConstraint:
    """Return the CHECK that keeps NaN and both infinities out of a numeric `column`.

    PostgreSQL sorts NaN above Infinity, so that two comparisons are enough:
    https://www.postgresql.org/docs/current/datatype-numeric.html.
    """
    return CheckConstraint(f"{column} > '-Infinity' AND {column} < 'Infinity'", name=f"{column}_finite")
