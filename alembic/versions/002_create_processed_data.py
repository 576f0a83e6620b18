"""Create processed_data, the normalised records of clients.

Why: workers store the records from the connectors here, in one format for every business type.

Locks: SHARE ROW EXCLUSIVE on data_sources from the creation of the foreign key to the commit: reads of data_sources
continue, writes wait. No other existing table is locked.
Duration: milliseconds, after the lock is granted.
If it fails: the whole transaction is rolled back; fix the cause and run it again.
Downgrade: drops processed_data and deletes all its rows, under ACCESS EXCLUSIVE on it and on data_sources.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "002"
down_revision = "001"


def upgrade() -> None:
    """Create processed_data and its indexes."""
    op.create_table(
        "processed_data",
        sa.Column(
            "id",
            sa.BigInteger(),
            nullable=False,
            autoincrement=True,
            comment="Primary key, from a sequence owned by this column",
        ),
        sa.Column(
            "client_id",
            sa.BigInteger(),
            nullable=False,
            comment="Client that owns the row; the clients table belongs to the application",
        ),
        sa.Column(
            "source_id",
            sa.BigInteger(),
            nullable=True,
            comment="Data source of the row, owned by the same client; NULL if none or deleted",
        ),
        sa.Column(
            "source_type",
            sa.String(50),
            nullable=False,
            comment="Business type, such as restaurant, retail or service (open set)",
        ),
        sa.Column("data", postgresql.JSONB(), nullable=False, comment="Normalised record"),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            nullable=False,
            server_default=sa.func.now(),
            comment="Time when the row was inserted",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_processed_data"),
        sa.ForeignKeyConstraint(
            ["client_id", "source_id"],
            ["data_sources.client_id", "data_sources.id"],
            name="fk_processed_data_source",
            ondelete="SET NULL (source_id)",
        ),
        comment="Normalised records of clients",
    )
    op.create_index("idx_processed_data_client_id", "processed_data", ["client_id"])
    op.create_index("idx_processed_data_source_id", "processed_data", ["source_id"])
    op.create_index("idx_processed_data_source_type", "processed_data", ["source_type"])
    op.create_index("idx_processed_data_created_at", "processed_data", ["created_at"])


def downgrade() -> None:
    """Drop processed_data and all its rows."""
    op.drop_table("processed_data")
