"""Create data_sources, the connectors to the external data of clients.

Why: rows of later tables reference their connector. Their foreign keys reference UNIQUE (client_id, id), so a row of
one client cannot reference a data source of another client.

Locks: none on existing tables; the table is new.
Duration: milliseconds, for any database size.
If it fails: the whole transaction is rolled back; fix the cause and run it again.
Downgrade: drops data_sources and deletes all its rows.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "001"
down_revision = None


def upgrade() -> None:
    """Create data_sources and its indexes."""
    op.create_table(
        "data_sources",
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
        sa.Column("name", sa.String(255), nullable=False, comment="Connector name, chosen by the client"),
        sa.Column(
            "type", sa.String(50), nullable=False, comment="Connector type, such as simple_csv or api_rest (open set)"
        ),
        sa.Column(
            "config_json",
            postgresql.JSONB(),
            nullable=False,
            server_default=sa.text("'{}'"),
            comment="Connector settings; may contain credentials, so never display or log them",
        ),
        sa.Column(
            "status",
            sa.String(50),
            nullable=False,
            server_default="idle",
            comment="Connector status, such as idle, processing or error (open set)",
        ),
        sa.Column(
            "last_run_at",
            sa.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Time of the last run; NULL before the first run",
        ),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            nullable=False,
            server_default=sa.func.now(),
            comment="Time when the row was inserted",
        ),
        sa.Column(
            "updated_at",
            sa.TIMESTAMP(timezone=True),
            nullable=False,
            server_default=sa.func.now(),
            comment="Time when the row was last updated",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_data_sources"),
        sa.UniqueConstraint("client_id", "id", name="uq_data_sources_client_id_id"),
        comment="Connectors to the external data of clients",
    )
    op.create_index("idx_data_sources_client_id", "data_sources", ["client_id"])
    op.create_index("idx_data_sources_status", "data_sources", ["status"])


def downgrade() -> None:
    """Drop data_sources and all its rows."""
    op.drop_table("data_sources")
