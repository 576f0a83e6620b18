"""${message}.

Why: …
Locks: which mode, on which existing tables, until when (https://www.postgresql.org/docs/current/explicit-locking.html).
Duration: how long, for which table size.
If it fails: the state of the database, and what to run.
Downgrade: what it drops, and which rows it deletes.

Checklist before the merge: every constraint and index has a name, a CHECK name is inside op.f(); no import from
syntegra_db; a table that exists is changed with the online operations of CONTRIBUTING.md; `make generate` has been run;
the tests of this revision are in tests/revisions/.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
phase = "expand"


def upgrade() -> None:
    """…"""
    ${upgrades if upgrades else "raise NotImplementedError"}


def downgrade() -> None:
    """…"""
    ${downgrades if downgrades else "raise NotImplementedError"}
