"""Create the five analytics tables, their two ENUM types and the vector index.

Why: the workers store their results here: KPIs, texts with sentiment and embedding, trends of sectors, clusters of
clients, anomalies.

Requires: the extension vector (pgvector). If it is missing, the revision creates it; if the role is not allowed to,
the revision stops before any change and prints the statement for an administrator.

Locks: SHARE ROW EXCLUSIVE on data_sources from the creation of the first foreign key to the commit: reads of
data_sources continue, writes wait. No other existing table is locked.
Duration: milliseconds, after the lock is granted. The vector index is built on an empty table, so its recall is low
until it is rebuilt after the first load.
If it fails: the whole transaction is rolled back; fix the cause and run it again.
Downgrade: drops the two ENUM types and the five tables and deletes all their rows, under ACCESS EXCLUSIVE on the five
tables and, last, on data_sources. The extension is kept, because other applications may use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects import postgresql

if TYPE_CHECKING:
    from sqlalchemy.types import TypeEngine

revision = "003"
down_revision = "002"

TIMESTAMPTZ = sa.TIMESTAMP(timezone=True)
JSONB = postgresql.JSONB()
TREND_STATUS = postgresql.ENUM(name="trend_status", create_type=False)
ANOMALY_SEVERITY = postgresql.ENUM(name="anomaly_severity", create_type=False)

# In SQL, so the generated psql script behaves the same; without %, which offline mode would double.
REQUIRE_VECTOR = """\
DO $$
DECLARE
  extension_schema text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'feature_not_supported',
      MESSAGE = 'the extension vector (pgvector) is not installed on this server',
      HINT = 'Install pgvector for this version of PostgreSQL (https://github.com/pgvector/pgvector), or use an image '
             'that has it, such as pgvector/pgvector:pg17; then run this again.';
  END IF;
  BEGIN
    CREATE EXTENSION IF NOT EXISTS vector;
  EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = 'role ' || quote_ident(current_user) || ' may not create the extension vector in database '
                || quote_ident(current_database()),
      HINT = 'Ask an administrator to run this in that database: CREATE EXTENSION vector; Then run this again.';
  WHEN unique_violation THEN
    -- A concurrent migration of another schema in this database has created the extension.
    NULL;
  END;
  IF to_regtype('vector') IS NULL THEN
    SELECT quote_ident(nspname) INTO extension_schema
    FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'vector';
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = 'the extension vector is in schema ' || extension_schema || ', which is not on the search_path',
      HINT = 'Add it, also in PGOPTIONS and the URL if they set the search_path, connect again and run this again: '
             'ALTER ROLE ' || quote_ident(session_user) || ' IN DATABASE ' || quote_ident(current_database())
             || ' SET search_path = ' || replace(current_setting('search_path'), ', pg_temp', '') || ', '
             || extension_schema || ';';
  END IF;
END
$$"""


def upgrade() -> None:
    """Create the five tables, the two ENUM types and all indexes."""
    # The notices "extension already exists" and "index created with little data" are expected here.
    op.execute("SET LOCAL client_min_messages = warning")
    op.execute(REQUIRE_VECTOR)
    op.execute("CREATE TYPE trend_status AS ENUM ('emergent', 'stable', 'declining')")
    op.execute("CREATE TYPE anomaly_severity AS ENUM ('low', 'medium', 'high', 'critical')")
    create_kpi_summary()
    create_text_summary()
    create_vector_index()
    create_trend_signals()
    create_clusters()
    create_anomaly_log()


def downgrade() -> None:
    """Drop the five tables with all their rows, and the two ENUM types."""
    # data_sources is locked last, so its writers never wait while this transaction waits for one of these locks.
    op.execute("LOCK TABLE anomaly_log, clusters, trend_signals, text_summary, kpi_summary")
    op.drop_table("anomaly_log")
    op.drop_table("clusters")
    op.drop_table("trend_signals")
    op.drop_table("text_summary")
    op.drop_table("kpi_summary")
    op.execute("DROP TYPE anomaly_severity")
    op.execute("DROP TYPE trend_status")


def create_kpi_summary() -> None:
    """Create kpi_summary and its indexes."""
    op.create_table(
        "kpi_summary",
        id_column(),
        client_id_column(),
        source_id_column(),
        required("kpi_name", sa.String(255), "KPI name, such as sales_mom or avg_ticket"),
        required("kpi_value", sa.Numeric(), "KPI value, in the unit of the KPI; finite"),
        required("period_start", TIMESTAMPTZ, "Start of the period of the value"),
        required("period_end", TIMESTAMPTZ, "End of the period of the value"),
        required("calculated_at", TIMESTAMPTZ, "Time when the value was calculated", default=sa.func.now()),
        optional("metadata", JSONB, "Additional data about the value, such as its unit"),
        sa.PrimaryKeyConstraint("id", name="pk_kpi_summary"),
        source_foreign_key("fk_kpi_summary_source"),
        finite("kpi_value", name=op.f("ck_kpi_summary_kpi_value_finite")),
        sa.CheckConstraint("period_end >= period_start", name=op.f("ck_kpi_summary_period_order")),
        comment="KPI values of clients by period",
    )
    op.create_index("idx_kpi_summary_client_kpi_period", "kpi_summary", ["client_id", "kpi_name", "period_start"])
    op.create_index("idx_kpi_summary_client_id", "kpi_summary", ["client_id"])
    op.create_index("idx_kpi_summary_source_id", "kpi_summary", ["source_id"])
    op.create_index("idx_kpi_summary_kpi_name", "kpi_summary", ["kpi_name"])
    op.create_index("idx_kpi_summary_period_start", "kpi_summary", ["period_start"])


def create_text_summary() -> None:
    """Create text_summary and its indexes, except the vector index."""
    op.create_table(
        "text_summary",
        id_column(),
        client_id_column(),
        source_id_column(),
        required("text_field", sa.Text(), "Analysed text"),
        optional("sentiment", sa.String(50), "Detected sentiment, such as positive, neutral or negative (open set)"),
        optional("sentiment_score", sa.Double(), "Sentiment strength, on the scale of the analysis method"),
        optional("keywords", JSONB, "Keywords extracted from the text"),
        optional("embedding", VECTOR(384), "Embedding of the text: 384 dimensions, compared by cosine distance"),
        required("language", sa.String(10), "Language of the text, ISO 639-1 code", default="es"),
        required("created_at", TIMESTAMPTZ, "Time when the row was inserted", default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="pk_text_summary"),
        source_foreign_key("fk_text_summary_source"),
        comment="Analysed texts of clients with sentiment, keywords and embedding",
    )
    # By default, PostgreSQL stores a vector of 1.5 kB out of line, and every scan has to fetch it.
    op.execute("ALTER TABLE text_summary ALTER COLUMN embedding SET STORAGE PLAIN")
    op.create_index("idx_text_summary_client_id", "text_summary", ["client_id"])
    op.create_index("idx_text_summary_source_id", "text_summary", ["source_id"])
    op.create_index("idx_text_summary_sentiment", "text_summary", ["sentiment"])
    op.create_index("idx_text_summary_created_at", "text_summary", ["created_at"])
    op.create_index("idx_text_summary_keywords", "text_summary", ["keywords"], postgresql_using="gin")


def create_vector_index() -> None:
    """Create the vector index for searches by cosine distance."""
    # pgvector 0.8.4 cannot build this index with less memory, even on an empty table.
    op.execute("SET LOCAL maintenance_work_mem = '64MB'")
    op.create_index(
        "idx_text_summary_embedding",
        "text_summary",
        ["embedding"],
        postgresql_using="ivfflat",
        postgresql_ops={"embedding": "vector_cosine_ops"},
        postgresql_with={"lists": 100},
    )


def create_trend_signals() -> None:
    """Create trend_signals and its indexes."""
    op.create_table(
        "trend_signals",
        id_column(),
        required("sector", sa.String(255), "Business sector of the term"),
        required("term", sa.String(255), "Term or keyword"),
        required("period_start", TIMESTAMPTZ, "Start of the analysed period"),
        required("period_end", TIMESTAMPTZ, "End of the analysed period"),
        required(
            "frequency", sa.Integer(), "Number of occurrences of the term in the period; not negative", default="0"
        ),
        optional("delta_pct", sa.Double(), "Change in frequency from the previous period, in percent"),
        required("status", TREND_STATUS, "Trend status: emergent, stable or declining", default="stable"),
        optional("metadata", JSONB, "Additional data about the trend"),
        required("created_at", TIMESTAMPTZ, "Time when the row was inserted", default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="pk_trend_signals"),
        sa.CheckConstraint("period_end >= period_start", name=op.f("ck_trend_signals_period_order")),
        sa.CheckConstraint("frequency >= 0", name=op.f("ck_trend_signals_frequency_not_negative")),
        comment="Frequency of terms and its change, by sector and period",
    )
    op.create_index("idx_trend_signals_sector_term", "trend_signals", ["sector", "term"])
    op.create_index("idx_trend_signals_period", "trend_signals", ["period_start", "period_end"])
    op.create_index("idx_trend_signals_sector", "trend_signals", ["sector"])
    op.create_index("idx_trend_signals_term", "trend_signals", ["term"])
    op.create_index("idx_trend_signals_status", "trend_signals", ["status"])
    op.create_index("idx_trend_signals_delta_pct", "trend_signals", ["delta_pct"])


def create_clusters() -> None:
    """Create clusters and its indexes."""
    op.create_table(
        "clusters",
        id_column(),
        client_id_column(),
        required("cluster_id", sa.Integer(), "Number of the cluster assigned to the client"),
        optional("cluster_name", sa.String(255), "Descriptive name of the cluster"),
        required("features_json", JSONB, "Client features used for clustering"),
        optional("centroid", JSONB, "Coordinates of the cluster centroid"),
        optional(
            "distance_to_centroid",
            sa.Double(),
            "Distance from the client to the centroid in feature space; not negative",
        ),
        optional("silhouette_score", sa.Double(), "Silhouette score of the client in its cluster, from -1 to 1"),
        required("created_at", TIMESTAMPTZ, "Time when the row was inserted", default=sa.func.now()),
        required("updated_at", TIMESTAMPTZ, "Time when the row was last updated", default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="pk_clusters"),
        sa.CheckConstraint("distance_to_centroid >= 0", name=op.f("ck_clusters_distance_not_negative")),
        sa.CheckConstraint("silhouette_score BETWEEN -1 AND 1", name=op.f("ck_clusters_silhouette_range")),
        comment="Clients grouped by similar features",
    )
    op.create_index("idx_clusters_client_cluster", "clusters", ["client_id", "cluster_id"])
    op.create_index("idx_clusters_client_id", "clusters", ["client_id"])
    op.create_index("idx_clusters_cluster_id", "clusters", ["cluster_id"])
    op.create_index("idx_clusters_features", "clusters", ["features_json"], postgresql_using="gin")


def create_anomaly_log() -> None:
    """Create anomaly_log and its indexes."""
    op.create_table(
        "anomaly_log",
        id_column(),
        client_id_column(),
        source_id_column(),
        required("kpi_name", sa.String(255), "Name of the KPI with the anomaly"),
        required("detected_at", TIMESTAMPTZ, "Time when the anomaly was detected", default=sa.func.now()),
        required("value", sa.Numeric(), "Anomalous value, in the unit of the KPI; finite"),
        optional("expected_value", sa.Numeric(), "Expected value, in the unit of the KPI; finite"),
        optional("deviation", sa.Double(), "Deviation from the expected value, in standard deviations"),
        optional("reason", sa.Text(), "Description of the anomaly"),
        required(
            "severity", ANOMALY_SEVERITY, "Severity, in ascending order: low, medium, high, critical", default="medium"
        ),
        optional("method", sa.String(100), "Detection method"),
        optional("metadata", JSONB, "Additional data about the anomaly"),
        sa.PrimaryKeyConstraint("id", name="pk_anomaly_log"),
        source_foreign_key("fk_anomaly_log_source"),
        finite("value", name=op.f("ck_anomaly_log_value_finite")),
        finite("expected_value", name=op.f("ck_anomaly_log_expected_value_finite")),
        comment="Anomalous KPI values of clients",
    )
    op.create_index("idx_anomaly_log_client_kpi", "anomaly_log", ["client_id", "kpi_name"])
    op.create_index("idx_anomaly_log_client_id", "anomaly_log", ["client_id"])
    op.create_index("idx_anomaly_log_source_id", "anomaly_log", ["source_id"])
    op.create_index("idx_anomaly_log_kpi_name", "anomaly_log", ["kpi_name"])
    op.create_index("idx_anomaly_log_detected_at", "anomaly_log", ["detected_at"])
    op.create_index("idx_anomaly_log_severity", "anomaly_log", ["severity"])


def required(
    name: str, kind: TypeEngine[Any], comment: str, *, default: str | sa.ColumnElement[Any] | None = None
) -> sa.Column[Any]:
    """Return a NOT NULL column."""
    return sa.Column(name, kind, nullable=False, server_default=default, comment=comment)


def optional(name: str, kind: TypeEngine[Any], comment: str) -> sa.Column[Any]:
    """Return a nullable column."""
    return sa.Column(name, kind, nullable=True, comment=comment)


def id_column() -> sa.Column[Any]:
    """Return the primary key column, a BIGSERIAL."""
    return required("id", sa.BigInteger(), "Primary key, from a sequence owned by this column")


def client_id_column() -> sa.Column[Any]:
    """Return the client_id column."""
    return required(
        "client_id", sa.BigInteger(), "Client that owns the row; the clients table belongs to the application"
    )


def source_id_column() -> sa.Column[Any]:
    """Return the source_id column."""
    return optional(
        "source_id", sa.BigInteger(), "Data source of the row, owned by the same client; NULL if none or deleted"
    )


def source_foreign_key(name: str) -> sa.ForeignKeyConstraint:
    """Return the foreign key to a data source of the same client; deleting the source sets only source_id to NULL."""
    return sa.ForeignKeyConstraint(
        ["client_id", "source_id"],
        ["data_sources.client_id", "data_sources.id"],
        name=name,
        ondelete="SET NULL (source_id)",
    )


def finite(column: str, *, name: str) -> sa.CheckConstraint:
    """Return a CHECK that rejects NaN (which PostgreSQL sorts above Infinity) and both infinities."""
    return sa.CheckConstraint(f"{column} > '-Infinity' AND {column} < 'Infinity'", name=name)
