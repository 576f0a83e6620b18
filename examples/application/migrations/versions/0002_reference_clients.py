"""Reference clients from the tables of syntegra_db.

It needs revision 003 of syntegra_db. Each constraint is added without a check of the existing rows, which locks both
tables for milliseconds, and then validated while services read and write. A downgrade of syntegra_db drops the tables
with these constraints: after the next upgrade, `alembic downgrade 0001` and `alembic upgrade head` add them again.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

TABLES = ("data_sources", "processed_data", "kpi_summary", "text_summary", "clusters", "anomaly_log")


def upgrade() -> None:
    """Apply the revision."""
    for table in TABLES:
        with op.get_context().autocommit_block():
            op.execute("SET lock_timeout = '500ms'")
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS fk_{table}_client")
            op.execute(
                f"ALTER TABLE {table} ADD CONSTRAINT fk_{table}_client "
                "FOREIGN KEY (client_id) REFERENCES clients (id) NOT VALID"
            )
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT fk_{table}_client")


def downgrade() -> None:
    """Revert the revision."""
    for table in TABLES:
        op.execute(f"ALTER TABLE IF EXISTS {table} DROP CONSTRAINT IF EXISTS fk_{table}_client")
