"""${message}.

Why: …
Locks: which mode, on which existing tables, until when (https://www.postgresql.org/docs/current/explicit-locking.html).
Duration: how long, for which table size.
If it fails: the state of the database, and what to run.
Downgrade: what it drops, and which rows it deletes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
phase = "expand"


def upgrade() -> None:
    """Upgrade from the revision before."""
    ${upgrades if upgrades else "raise NotImplementedError"}


def downgrade() -> None:
    """Downgrade to the revision before."""
    ${downgrades if downgrades else "raise NotImplementedError"}
