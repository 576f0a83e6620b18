"""${message}.

Why: …
Locks: which, on which tables that exist, and until when (https://www.postgresql.org/docs/current/explicit-locking.html).
How long: on a table of what size.
If it fails: what state the database is in, and what to run.
Downgrade: what it drops and which rows are lost.

Before this revision is merged: every constraint and index has a name, a CHECK's in op.f(); it imports nothing of
syntegra_db; an index on a table that holds rows is made CONCURRENTLY in an autocommit block; `make sql`, `make manifests`
and `make docs` have run; tests of its own stand in tests/revisions/.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """…"""
    ${upgrades if upgrades else "raise NotImplementedError"}


def downgrade() -> None:
    """…"""
    ${downgrades if downgrades else "raise NotImplementedError"}
