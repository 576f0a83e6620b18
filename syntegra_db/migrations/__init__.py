"""Changing the schema on a live server.

Whoever migrates, by `alembic`, by `syntegra-db` or from Python, goes through `environment` and `runner`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from syntegra_db.errors import RevisionError
from syntegra_db.revisions import alembic_config, current_revision, head_revision, require_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from alembic.config import Config
    from sqlalchemy.engine import URL

    from syntegra_db.migrations._options import MigrationOptions

__all__ = ["alembic_config", "current_revision", "downgrade", "head_revision", "require_head", "upgrade"]

# Alembic keeps the running environment in module globals; two at once in a process break each other.
_one_alembic = threading.Lock()


def upgrade(revision: str = "head", url: URL | None = None, options: MigrationOptions | None = None) -> str | None:
    """Upgrade the database at `url`, by default the one that the settings name, and return the revision reached.

    Raises:
        RevisionError: there is no such revision, or the database is at one that this package does not know.
        LockNotObtained, ExtensionUnavailable, MigrationFailed: see `runner.run`.
        ConnectionFailed: there is no connection; one of its subclasses says why.
    """
    from alembic import command

    return _run(command.upgrade, revision, url, options)


def downgrade(revision: str, url: URL | None = None, options: MigrationOptions | None = None) -> str | None:
    """Take the database back to `revision`, or `base`, and return it; the rows of the tables it drops are lost.

    Raises:
        RevisionError, LockNotObtained, MigrationFailed, ConnectionFailed: as `upgrade` does.
    """
    from alembic import command

    return _run(command.downgrade, revision, url, options, downgrade=True)


def _run(
    command: Callable[[Config, str], None],
    revision: str,
    url: URL | None,
    options: MigrationOptions | None,
    **attributes: bool,
) -> str | None:
    from alembic.util import CommandError

    if not revision:
        raise RevisionError("A revision has no empty name; `syntegra-db status` says which ones there are.")
    config = alembic_config(url, options)
    config.attributes.update(attributes)
    with _one_alembic:
        try:
            command(config, revision)
        except CommandError as error:
            raise RevisionError(f"{error}. `syntegra-db status` says which revisions there are.") from None
    reached: str | None = config.attributes["reached"]
    return reached
