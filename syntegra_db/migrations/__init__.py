"""Changing the schema on a live server.

Whoever migrates, by `alembic`, by `syntegra-db` or from Python, goes through `environment` and `runner`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from syntegra_db.migrations.config import alembic_config, head_revision
from syntegra_db.migrations.revision import current_revision, require_head

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from syntegra_db.migrations.options import MigrationOptions

__all__ = ["alembic_config", "current_revision", "downgrade", "head_revision", "require_head", "upgrade"]

# Alembic keeps the running environment in module globals; two at once in a process break each other.
_one_alembic = threading.Lock()


def upgrade(revision: str = "head", url: URL | None = None, options: MigrationOptions | None = None) -> None:
    """Upgrade the database at `url`, by default the one that the settings name, to `revision`.

    Raises:
        LockNotObtained, ExtensionUnavailable, MigrationFailed, DatabaseAhead: see `runner.run`.
        ConnectionFailed: there is no connection; one of its subclasses says why.
    """
    from alembic import command

    with _one_alembic:
        command.upgrade(alembic_config(url, options), revision)


def downgrade(revision: str, url: URL | None = None, options: MigrationOptions | None = None) -> None:
    """Take the database back to `revision`, or `base`; the rows of the tables it drops are lost.

    Raises:
        LockNotObtained, MigrationFailed, DatabaseAhead: see `runner.run`.
        ConnectionFailed: there is no connection; one of its subclasses says why.
    """
    from alembic import command

    with _one_alembic:
        command.downgrade(alembic_config(url, options), revision)
