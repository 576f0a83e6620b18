"""The application's own table, and its relationship to a table of syntegra_db."""

from __future__ import annotations

from sqlalchemy import BigInteger, MetaData, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, foreign, mapped_column, relationship

from syntegra_db.models import Cluster


class Base(DeclarativeBase):
    """The base of the application's models: another MetaData than that of syntegra_db."""

    metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s"})


class Client(Base):
    """A client: its id is `client_id` in the tables of syntegra_db."""

    __tablename__ = "clients"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str] = mapped_column(Text)

    clusters: Mapped[list[Cluster]] = relationship(
        lambda: Cluster,
        primaryjoin=lambda: Client.id == foreign(Cluster.client_id),
        order_by=lambda: Cluster.cluster_id,
        lazy="raise",
    )
