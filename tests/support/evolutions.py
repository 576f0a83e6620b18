"""Sample revisions after the released ones, one for each kind of change."""

from __future__ import annotations

from typing import LiteralString, NamedTuple

# What services write during the revisions; the CHECK of a sample accepts the name.
INSERT_KPI: LiteralString = (
    "INSERT INTO kpi_summary (client_id, kpi_name, kpi_value, period_start, period_end) "
    "VALUES (1, 'kpi_written', 1, now(), now())"
)
# The record of a revision is there only while it is unfinished.
UNFINISHED = "SELECT FROM pg_class WHERE relname = 'alembic_version_steps'"
INVALID_INDEXES = "SELECT FROM pg_index WHERE NOT indisvalid"


class Evolution(NamedTuple):
    """The bodies of a revision's functions."""

    upgrade: str
    downgrade: str


EVOLUTIONS = {
    "nullable column": Evolution(
        'op.add_column("kpi_summary", sa.Column("unit", sa.String(10)))',
        'op.drop_column("kpi_summary", "unit")',
    ),
    "NOT NULL column with a default": Evolution(
        'op.add_column("kpi_summary", sa.Column("unit", sa.String(10), server_default="EUR", nullable=False))',
        'op.drop_column("kpi_summary", "unit")',
    ),
    "NOT NULL column with values from others": Evolution(
        """
        op.add_column("kpi_summary", sa.Column("label", sa.Text(), server_default=""))
        op.backfill("kpi_summary", {"label": "upper(kpi_name)"}, "label = ''")
        op.set_not_null_online("kpi_summary", "label")
        """,
        'op.drop_column("kpi_summary", "label")',
    ),
    "index": Evolution(
        'op.create_index_online("idx_kpi_summary_value", "kpi_summary", ["kpi_value"])',
        'op.drop_index_online("idx_kpi_summary_value", "kpi_summary")',
    ),
    "index in an autocommit block": Evolution(
        """
        op.add_column("kpi_summary", sa.Column("unit", sa.String(10)))
        with op.get_context().autocommit_block():
            op.create_index("idx_kpi_summary_unit", "kpi_summary", ["unit"], postgresql_concurrently=True)
        """,
        """
        with op.get_context().autocommit_block():
            op.drop_index("idx_kpi_summary_unit", "kpi_summary", postgresql_concurrently=True)
        op.drop_column("kpi_summary", "unit")
        """,
    ),
    "index after a query": Evolution(
        """
        assert op.get_bind().scalar(sa.text("SELECT count(*) FROM kpi_summary")) is not None
        with op.get_context().autocommit_block():
            op.create_index("idx_kpi_summary_value", "kpi_summary", ["kpi_value"], postgresql_concurrently=True)
        """,
        'op.drop_index("idx_kpi_summary_value", "kpi_summary")',
    ),
    "unique constraint": Evolution(
        'op.create_unique_constraint_online("uq_kpi_summary_client", "kpi_summary", ["client_id", "id"])',
        'op.drop_constraint("uq_kpi_summary_client", "kpi_summary")',
    ),
    "CHECK": Evolution(
        """op.create_check_constraint_online("ck_kpi_summary_name", "kpi_summary", "kpi_name LIKE 'kpi%'")""",
        'op.drop_constraint("ck_kpi_summary_name", "kpi_summary")',
    ),
    "foreign key": Evolution(
        """
        op.add_column("kpi_summary", sa.Column("text_id", sa.BigInteger()))
        op.create_index_online("idx_kpi_summary_text_id", "kpi_summary", ["text_id"])
        op.create_foreign_key_online("fk_kpi_summary_text", "kpi_summary", "text_summary", ["text_id"], ["id"])
        """,
        'op.drop_column("kpi_summary", "text_id")',
    ),
    "ENUM label": Evolution(
        """op.add_enum_label("anomaly_severity", "urgent", after="high")""",
        """
        op.execute("ALTER TYPE anomaly_severity RENAME TO anomaly_severity_old")
        op.execute("CREATE TYPE anomaly_severity AS ENUM ('low', 'medium', 'high', 'critical')")
        op.execute(
            "ALTER TABLE anomaly_log ALTER severity DROP DEFAULT, "
            "ALTER severity TYPE anomaly_severity USING severity::text::anomaly_severity, "
            "ALTER severity SET DEFAULT 'medium'"
        )
        op.execute("DROP TYPE anomaly_severity_old")
        """,
    ),
    "renamed column, expanded": Evolution(
        """
        op.add_column("kpi_summary", sa.Column("name", sa.String(255)))
        op.keep_alike("kpi_summary", "kpi_name", "name")
        """,
        """
        op.stop_keeping_alike("kpi_summary", "kpi_name", "name")
        op.drop_column("kpi_summary", "name")
        """,
    ),
    "widened varchar": Evolution(
        'op.alter_column("kpi_summary", "kpi_name", type_=sa.String(300))',
        'op.alter_column("kpi_summary", "kpi_name", type_=sa.String(255))',
    ),
    "new table": Evolution(
        """
        op.create_table(
            "notes",
            sa.Column("id", sa.BigInteger()),
            sa.Column("client_id", sa.BigInteger(), nullable=False),
            sa.Column("source_id", sa.BigInteger()),
            sa.Column("note", sa.Text(), nullable=False),
            sa.PrimaryKeyConstraint("id", name="pk_notes"),
            sa.ForeignKeyConstraint(
                ["client_id", "source_id"],
                ["data_sources.client_id", "data_sources.id"],
                name="fk_notes_source",
                ondelete="SET NULL (source_id)",
            ),
        )
        op.create_index("idx_notes_client_id", "notes", ["client_id"])
        op.create_index("idx_notes_source_id", "notes", ["source_id"])
        """,
        'op.drop_table("notes")',
    ),
    "partitions by month": Evolution(
        'op.partition_by_month("kpi_summary", "period_start")',
        'op.merge_partitions("kpi_summary", "period_start")',
    ),
    "second embedding": Evolution(
        """
        op.add_column("text_summary", sa.Column("embedding_768", pgvector.sqlalchemy.VECTOR(768)))
        op.execute("ALTER TABLE text_summary ALTER COLUMN embedding_768 SET STORAGE PLAIN")
        op.create_index_online(
            "idx_text_summary_embedding_768",
            "text_summary",
            ["embedding_768"],
            postgresql_using="hnsw",
            postgresql_ops={"embedding_768": "vector_cosine_ops"},
        )
        """,
        """
        op.drop_index_online("idx_text_summary_embedding_768", "text_summary")
        op.drop_column("text_summary", "embedding_768")
        """,
    ),
    "dropped column": Evolution(
        'op.drop_column("kpi_summary", "metadata")',
        """
        comment = "Additional data about the value, such as its unit"
        op.add_column("kpi_summary", sa.Column("metadata", postgresql.JSONB(), comment=comment))
        """,
    ),
}
