"""The table clusters: groups of similar clients."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from syntegra_db.models.base import Base
from syntegra_db.models.exact_types import ExactDouble, ExactInteger, ExactJson, ExactString
from syntegra_db.models.types import BigSerial, ClientId, TimestampNow


class Cluster(Base):
    """The assignment of a client to a cluster."""

    __tablename__ = "clusters"
    __table_args__ = (
        CheckConstraint("distance_to_centroid >= 0", name="distance_not_negative"),
        CheckConstraint("silhouette_score BETWEEN -1 AND 1", name="silhouette_range"),
        Index("idx_clusters_client_cluster", "client_id", "cluster_id"),
        Index("idx_clusters_client_id", "client_id"),
        Index("idx_clusters_cluster_id", "cluster_id"),
        Index("idx_clusters_features", "features_json", postgresql_using="gin"),
        {"comment": "Clients grouped by similar features"},
    )

    id: Mapped[BigSerial] = mapped_column()
    client_id: Mapped[ClientId] = mapped_column()
    cluster_id: Mapped[int] = mapped_column(ExactInteger, comment="Number of the cluster assigned to the client")
    cluster_name: Mapped[str | None] = mapped_column(ExactString(255), comment="Descriptive name of the cluster")
    features_json: Mapped[dict[str, Any]] = mapped_column(ExactJson, comment="Client features used for clustering")
    centroid: Mapped[dict[str, Any] | list[Any] | None] = mapped_column(
        ExactJson, comment="Coordinates of the cluster centroid"
    )
    distance_to_centroid: Mapped[float | None] = mapped_column(
        ExactDouble, comment="Distance from the client to the centroid in feature space; not negative"
    )
    silhouette_score: Mapped[float | None] = mapped_column(
        ExactDouble, comment="Silhouette score of the client in its cluster, from -1 to 1"
    )
    created_at: Mapped[TimestampNow] = mapped_column(comment="Time when the row was inserted")
    updated_at: Mapped[TimestampNow] = mapped_column(onupdate=func.now(), comment="Time when the row was last updated")
